"""A TLS connection that is used as its socket was: the same two calls, the same three answers.

    recv_into:  network ─▶ loop.raw ─▶ incoming ─ssl─▶ the caller's buffer
    send:       the caller's bytes ─ssl─▶ outgoing ─▶ network ─ short ─▶ unsent

Whoever relays calls recv_into, send, shutdown and close and does not know of TLS:
- BlockingIOError means that epoll will tell. What is decrypted already and did not fit into the
  caller's buffer epoll does not know of; TlsLoop calls the reader for it.
- `send` takes bytes once their records are whole with the kernel. What it does not take it has
  encrypted all the same, for a record cannot be unmade: the caller offers the same bytes again, as
  one does with a socket, and they are taken when the rest of their records has gone.
- close_notify is the end of the stream, and `shutdown(SHUT_WR)` sends it: the other direction
  lives on (RFC 8446, 6.1; OpenSSL lets it with TLS 1.2, too). TCP's end alone is a reset: what was
  cut short must not look whole.

The ssl module works on memory here and not on the socket: SSLSocket.unwrap() reads as well, and
what it meets then is lost (SSL_shutdown(3): application data after close notify).
"""

import contextlib
import socket
import ssl
from typing import Any

from aegis.limits import GOODBYE_S, TICK_S, TLS_RECORD_BYTES
from workers.loop import READ, WRITE
from workers.timers import UNARMED
from workers.tls_loop import TlsLoop
from workers.tls_records import Records

DONE = 0

# The socket's own methods, unbound: a bound one kept by its object would be a cycle.
_RECV_INTO, _SEND, _SHUTDOWN = socket.socket.recv_into, socket.socket.send, socket.socket.shutdown


class TlsSocket(socket.socket):
    """Takes over a connected, non-blocking socket; `handshake` comes first."""

    __slots__ = (
        "_abrupt", "_closing", "_ended", "_established", "_give_up_at", "_incoming", "_kept",
        "_loop", "_more", "_outgoing", "_said_all", "_tls", "_unsent", "held", "slot",
        "wanted",
    )  # fmt: skip

    def __init__(
        self,
        plain: socket.socket,
        context: ssl.SSLContext,
        loop: TlsLoop,
        *,
        server_side: bool,
        server_name: str | None = None,
    ) -> None:
        """Leave `plain` without its fd, which is this socket's from now on."""
        family, kind, proto = plain.family, plain.type, plain.proto
        super().__init__(family, kind, proto, plain.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self._loop = loop
        self._established = False
        self._more = False  # what is here may be readable, although epoll says nothing
        self._kept = b""  # decrypted before somebody wanted it
        self._ended = False  # the peer has sent its last byte
        self._unsent = Records()
        self._said_all = False  # close_notify is sent, or among the unsent
        self._abrupt = False  # closing resets, so that nobody takes it for a clean end
        self._closing = False  # to be closed as soon as close_notify is sent
        self._give_up_at = 0.0
        self.slot = UNARMED
        self.wanted = False
        """Whether the reader waits for bytes; the loop's."""
        self.held = False
        """Whether the loop is about to call the reader; the loop's."""
        loop.adopt(self)

    # --- handshake -----------------------------------------------------------------------------

    def handshake(self) -> int:
        """Go on with the handshake; returns DONE, or the events to wait for.

        Raises:
            ssl.SSLError: it has failed; the peer has been told why, if it listens.
            OSError: the connection is broken.
        """
        while True:
            try:
                self._tls.do_handshake()
                self._established = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._tell()
                raise
            if not self._tell():
                return WRITE
            if self._established:
                self._more = bool(self._incoming.pending)
                return DONE
            try:
                self._receive(TLS_RECORD_BYTES)
            except BlockingIOError:
                return READ

    # --- reading -------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether there may be something to read that epoll does not know of."""
        return self._more or bool(self._kept)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Decrypt what has come; 0 at the clean end.

        With MSG_PEEK the bytes stay; with MSG_TRUNC as many as were seen are thrown away.

        Raises:
            BlockingIOError: nothing yet.
            ConnectionResetError: cut short, or not TLS any more.
        """
        size = nbytes or len(buffer)
        if flags & socket.MSG_TRUNC:
            self._kept = self._kept[size:]
            return size
        if self._kept:
            count = min(size, len(self._kept))
            buffer[:count] = self._kept[:count]
            if not flags:
                self._kept = self._kept[count:]
        else:
            count = self._read(buffer, size)
            if flags:
                self._kept = bytes(memoryview(buffer)[:count])
        if self._more or self._kept:
            self._loop.hold(self)
        return count

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Look at the bytes on the network: whether there are any, or the end."""
        assert flags == socket.MSG_PEEK
        return super().recv(bufsize, flags)

    def flush(self) -> None:
        """Have the reader called for what is held; the loop's next turn does this."""
        self.held = False
        if self.wanted and self.holds:
            self._loop.call_reader(self.fileno())
            if self.holds:
                self._loop.hold(self)

    def fail(self, error: Exception) -> None:
        """End what a reader has failed with."""
        self._loop.fail_handlers(self.fileno(), error)

    def _receive(self, size: int) -> None:
        """Take what has come on the network, a record at least if there is one."""
        raw = self._loop.raw
        count = _RECV_INTO(self, raw.buffer, min(max(size, TLS_RECORD_BYTES), len(raw.buffer)))
        if count:
            self._incoming.write(raw.view[:count])
        else:
            self._incoming.write_eof()

    def _read(self, buffer: Any, size: int) -> int:
        """Decrypt as much as fits; `_more` says whether there may be more, or the end to report."""
        if self._ended:
            self._more = False
            return 0
        if not self._more:
            self._receive(size)
        self._more = False
        read, incoming = self._tls.read, self._incoming
        count = 0
        try:
            while count < size:
                part = int(read(size - count, memoryview(buffer)[count:] if count else buffer))
                if not part:
                    raise ssl.SSLZeroReturnError
                count += part
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            if not count:
                raise BlockingIOError from None
            return count
        except ssl.SSLZeroReturnError:
            self._ended = True
            self._more = bool(count)
            return count
        except ssl.SSLError as error:
            if not count:
                raise ConnectionResetError(f"TLS: {error.reason or error}") from None
            self._more = True  # the error comes again behind these
            return count
        self._more = count == size and bool(self._tls.pending() or incoming.pending)
        return count

    # --- writing -------------------------------------------------------------------------------

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ARG002 - nobody has any
        """Encrypt and send; returns how many bytes are with the kernel.

        Raises:
            BlockingIOError: none are; offer the same bytes again.
        """
        taken = 0
        if self._unsent.data:
            taken = self._flush()
            if self._unsent.data or taken == len(data):
                if not taken:
                    raise BlockingIOError
                return taken
            data = memoryview(data)[taken:]
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS: {error.reason or error}") from None
        taken += self._pass_on(len(data))
        if not taken:
            raise BlockingIOError
        return taken

    def _pass_on(self, plain: int) -> int:
        """Send what was encrypted, `plain` bytes; returns how many are with the kernel."""
        records = self._outgoing.read()
        try:
            sent = _SEND(self, records)
        except BlockingIOError:
            sent = 0
        if sent == len(records):
            return plain
        self._unsent.add(records, plain)
        return self._unsent.sent(sent)

    def _flush(self) -> int:
        """Send what the kernel did not take; returns how many of the caller's bytes went."""
        try:
            return self._unsent.sent(_SEND(self, self._unsent.data))
        except BlockingIOError:
            return 0

    def _tell(self) -> bool:
        """Send what OpenSSL has to say itself; False when the kernel does not take it all."""
        self._unsent.add(self._outgoing.read(), 0)
        if self._unsent.data:
            self._flush()
        return not self._unsent.data

    # --- end -----------------------------------------------------------------------------------

    def setsockopt(self, *option: Any) -> None:
        """Set an option; one that makes closing a reset is noted as well."""
        self._abrupt = self._abrupt or option[:2] == (socket.SOL_SOCKET, socket.SO_LINGER)
        super().setsockopt(*option)

    def shutdown(self, how: int) -> None:
        """Send close_notify and TCP's end behind it; what the peer still says can be read."""
        assert how == socket.SHUT_WR
        self._say_goodbye()
        if not self._unsent.data:
            _SHUTDOWN(self, how)

    def close(self) -> None:
        """Send close_notify, unless this is a reset or it has been sent, and close."""
        if self.fileno() >= 0 and self._established and not self._abrupt:
            if not self._unsent.data:  # else records are cut off, and the end must not look clean
                with contextlib.suppress(OSError):
                    self._say_goodbye()
            if self._unsent.data and self._said_all:
                self._closing = True
                self._loop.abandon(self)
                return
        self._loop.wheel.disarm(self)
        super().close()

    def _say_goodbye(self) -> None:
        """Send close_notify; where the kernel has no room for it, a timer goes on trying."""
        if self._said_all:
            return
        self._said_all = True
        with contextlib.suppress(ssl.SSLError):  # it is there still for who reads
            self._keep_what_has_come()  # for unwrap reads, too
        with contextlib.suppress(ssl.SSLError):  # WantRead: the peer's may come much later
            self._tls.unwrap()
        if not self._tell():
            self._give_up_at = self._loop.now + GOODBYE_S
            self._loop.wheel.arm(self, self._loop.now + TICK_S)

    def _keep_what_has_come(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            while not self._ended:
                try:
                    part = self._tls.read(TLS_RECORD_BYTES)
                except ssl.SSLZeroReturnError:
                    part = b""
                self._kept += part
                self._ended = self._more = not part
        if self.holds:
            self._loop.hold(self)

    def expire(self, now: float) -> float:
        """Try again to send what belongs to the end; tell when to try next."""
        try:
            done = self._tell()
        except OSError:
            done = True  # nobody is there to hear it
        if not done and now < self._give_up_at:
            return now + TICK_S
        if self._closing:
            super().close()
        else:
            with contextlib.suppress(OSError):
                _SHUTDOWN(self, socket.SHUT_WR)
        return 0.0

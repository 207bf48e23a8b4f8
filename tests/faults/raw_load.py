"""A raw load: blobs that come back as they went, or as a prefix when a fault has cut them short.

Seat ─▶ the proxy, unread ─▶ Echo      one blob per connection, half-closed behind its last byte
"""

import contextlib
import errno
import random
import socket
from collections.abc import Callable

from tests.faults.accounts import Accounts
from tests.faults.client import SILENCE_S
from tests.faults.poller import READ, WRITE, Poller

AHEAD_BYTES = 1 << 18
"""The echo reads no more before this is taken."""


class Echo:
    """A server that says back what it hears, and ends when its client has."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._sock.setblocking(False)
        self._open: set[EchoEnd] = set()
        host, port = self._sock.getsockname()
        self.address = f"{host}:{port}"
        poller.add(self._sock.fileno(), READ, self._accept)

    def _accept(self, mask: int) -> None:
        with contextlib.suppress(OSError):
            self._open.add(EchoEnd(self._poller, self._sock.accept()[0], self._open))

    def close(self) -> None:
        for end in list(self._open):
            end.close()
        self._poller.remove(self._sock.fileno())
        self._sock.close()


class EchoEnd:
    """One connection to the echo."""

    def __init__(self, poller: Poller, sock: socket.socket, others: "set[EchoEnd]") -> None:
        self._poller = poller
        self._sock = sock
        self._others = others
        self._rest = bytearray()
        self._ended = False
        self._mask = READ
        sock.setblocking(False)
        poller.add(sock.fileno(), READ, self._on_event)

    def _on_event(self, mask: int) -> None:
        try:
            if mask & ~WRITE and not self._ended:
                data = self._sock.recv(65_536)
                self._rest += data
                self._ended = not data
            with contextlib.suppress(BlockingIOError):
                while self._rest:
                    del self._rest[: self._sock.send(self._rest)]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._ended and not self._rest:
            self.close()
            return
        reads = not self._ended and len(self._rest) < AHEAD_BYTES
        mask = (READ if reads else 0) | (WRITE if self._rest else 0)
        if mask != self._mask:
            self._mask = mask
            self._poller.change(self._sock.fileno(), mask)

    def close(self) -> None:
        self._others.discard(self)
        self._poller.remove(self._sock.fileno())
        self._sock.close()


class Seat:
    """One blob after another; every byte that comes back is compared."""

    def __init__(
        self, poller: Poller, accounts: Accounts, address: tuple[str, int], rng: random.Random
    ) -> None:
        self._poller = poller
        self._accounts = accounts
        self._address = address
        self._rng = rng
        self._stopped = False
        self.ended = False
        self.whole = 0
        """Blobs that came back whole."""
        self.bytes = 0
        self._connect()

    def stop(self) -> None:
        """Send no more blobs."""
        self._stopped = True

    def _connect(self) -> None:
        if self._stopped:
            self.ended = True
            return
        self._blob = memoryview(self._rng.randbytes(int(2 ** self._rng.uniform(0, 21))))
        self._sent = self._heard = 0
        self._deadline = self._poller.now + SILENCE_S
        self._sock = socket.socket()
        self._sock.setblocking(False)
        code = self._sock.connect_ex(self._address)
        if code in {0, errno.EINPROGRESS}:
            self._poller.add(self._sock.fileno(), READ | WRITE, self._on_event)
            self._poller.later(SILENCE_S / 10, self._watch(self._sock))
        else:
            self._leave(f"raw: {errno.errorcode.get(code, code)}")

    def _watch(self, sock: socket.socket) -> Callable[[], None]:
        def look() -> None:
            if self._sock is not sock or sock.fileno() < 0:
                return
            if self._poller.now < self._deadline:
                self._poller.later(SILENCE_S / 10, look)
                return
            self._accounts.wrong(
                f"raw: silence for {SILENCE_S} s with {self._sent} of {len(self._blob)} bytes "
                f"sent and {self._heard} back"
            )
            self._leave("raw: silence")

        return look

    def _on_event(self, mask: int) -> None:
        try:
            if code := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._leave(f"raw: {errno.errorcode.get(code, code)}")
                return
            if mask & WRITE:
                self._send()
            if mask & ~WRITE:
                self._hear()
        except BlockingIOError:
            return
        except OSError as error:
            self._leave(f"raw: {errno.errorcode.get(error.errno or 0, error.errno)}")

    def _send(self) -> None:
        self._sent += self._sock.send(self._blob[self._sent : self._sent + 65_536])
        self._deadline = self._poller.now + SILENCE_S
        if self._sent == len(self._blob):
            self._sock.shutdown(socket.SHUT_WR)
            self._poller.change(self._sock.fileno(), READ)

    def _hear(self) -> None:
        data = self._sock.recv(65_536)
        self._deadline = self._poller.now + SILENCE_S
        if self._blob[self._heard : self._heard + len(data)] != data:
            self._accounts.wrong(f"raw: other bytes at {self._heard} of {len(self._blob)}")
            self._leave("raw: wrong")
            return
        self._heard += len(data)
        self.bytes += len(data)
        if not data:
            self.whole += self._heard == len(self._blob)
            self._leave("raw: whole" if self._heard == len(self._blob) else "raw: cut short")

    def _leave(self, outcome: str) -> None:
        self._accounts.outcomes[outcome] += 1
        self._poller.remove(self._sock.fileno())
        self._sock.close()
        pause_s = 0.0 if outcome == "raw: whole" else self._rng.uniform(0.01, 0.1)
        self._poller.later(pause_s, self._connect)

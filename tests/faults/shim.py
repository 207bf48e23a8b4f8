"""A TCP relay between a proxy and its server that splits, counts and cuts.

proxy ──▶ Shim ──▶ server      bytes go on in pieces of a size chosen for each connection;
                               `most` is how many connections were open at one moment;
                               each write that goes by is noted: none may come twice
"""

import contextlib
import errno
import random
import re
import socket
from collections.abc import Callable

from tests.faults.poller import READ, WRITE, Poller

PIECES = (1, 3, 17, 100, 1448, *[65_536] * 35)
"""Bytes read at once; most connections are not slowed."""
ROUNDS = 8
"""Pieces relayed in a row."""
TOKEN_BYTES = 400
"""More than a write's beginning has, its token included."""
ESTABLISHED = 1  # tcp_states.h; the first byte of struct tcp_info is the state
GONE = (OSError, ValueError)  # a closed socket's fd is -1


class Shim:
    """Listens on a port of the kernel's choice; `target` may be unreachable."""

    def __init__(
        self,
        poller: Poller,
        rng: random.Random,
        target: tuple[str, int],
        writes: re.Pattern[bytes] | None = None,
    ) -> None:
        self.poller = poller
        self.rng = rng
        self.target = target
        self.writes = writes
        """Finds the tokens of writes in what clients say."""
        self.seen: set[bytes] = set()
        self.again: list[bytes] = []
        """Writes that came twice."""
        self.accepted = 0
        self.most = 0
        self.garbles = 0
        self._relays: set[Relay] = set()
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._sock.setblocking(False)
        host, port = self._sock.getsockname()
        self.address = f"{host}:{port}"
        poller.add(self._sock.fileno(), READ, self._accept)

    def _accept(self, mask: int) -> None:
        near, _ = self._sock.accept()
        self.accepted += 1
        relay = Relay(self, near)
        self._relays.add(relay)
        self.most = max(self.most, self.open_now)
        relay.begin()

    @property
    def open_now(self) -> int:
        """Return how many connections the proxy has not closed, whatever was read of them."""
        return sum(not relay.has_ended for relay in self._relays)

    def cut_one(self) -> bool:
        """Reset a connection, both ways."""
        return self._on_one(Relay.reset)

    def stall_one(self, seconds: float) -> bool:
        """Let a connection be silent for a while."""
        return self._on_one(lambda relay: relay.stall(seconds))

    def garble_next(self, count: int) -> None:
        """Answer the first request on so many new connections in the server's place, nonsense."""
        self.garbles = count

    def _on_one(self, harm: Callable[["Relay"], None]) -> bool:
        if not self._relays:
            return False
        harm(self.rng.choice(sorted(self._relays, key=lambda relay: relay.number)))
        return True

    def note_write(self, token: bytes) -> None:
        """See whether a write has gone by before."""
        if token in self.seen:
            self.again.append(token)
        self.seen.add(token)

    def forget(self, relay: "Relay") -> None:
        """Count a relay no more."""
        self._relays.discard(relay)

    def close(self) -> None:
        for relay in list(self._relays):
            relay.close()
        self.poller.remove(self._sock.fileno())
        self._sock.close()


class Relay:
    """One connection of the proxy, and the server's that belongs to it."""

    def __init__(self, shim: Shim, near: socket.socket) -> None:
        self.shim = shim
        self.number = shim.accepted
        self.near = near
        self.far = socket.socket()
        self._stalled = self._closed = False
        self._garbles = shim.garbles > 0
        shim.garbles -= self._garbles
        self._connecting = True
        self._pumps: list[Pump] = []

    def begin(self) -> None:
        for sock in (self.near, self.far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.far.connect_ex(self.shim.target)
        poller = self.shim.poller
        up, down = Pump(self, self.near, self.far, up=True), Pump(self, self.far, self.near)
        self._pumps = [up, down]
        poller.add(self.near.fileno(), 0, self._on_near)
        poller.add(self.far.fileno(), WRITE, self._on_far)
        if code not in {0, errno.EINPROGRESS}:
            self.reset()

    @property
    def has_ended(self) -> bool:
        """Whether the proxy has closed its end, although not all it sent was read yet."""
        try:
            state = self.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except GONE:
            return True
        return bool(state != ESTABLISHED)

    def _on_near(self, mask: int) -> None:
        self._on(mask, 0, 1)

    def _on_far(self, mask: int) -> None:
        if self._connecting:
            if self.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.reset()
                return
            self._connecting = False
        self._on(mask, 1, 0)

    def _on(self, mask: int, reads: int, writes: int) -> None:
        """Relay what an event on one of the sockets makes possible."""
        try:
            if mask & WRITE:
                self._pumps[writes].flush()
            if mask & ~WRITE and self._garbles and not reads:
                self.near.send(b"\xff" + self.shim.rng.randbytes(self.shim.rng.randrange(100)))
                self.close()
                return
            if mask & ~WRITE and not self._connecting:
                self._pumps[reads].run(hung_up=not mask & READ)
        except OSError:
            self.reset()
            return
        if all(pump.ended for pump in self._pumps):
            self.close()
        else:
            self._register()

    def _register(self) -> None:
        if self._closed or self._connecting:
            return
        quiet = self._stalled
        for sock, reads, writes in ((self.near, 0, 1), (self.far, 1, 0)):
            source, sink = self._pumps[reads], self._pumps[writes]
            mask = READ if not (quiet or source.rest or source.ended) else 0
            mask |= WRITE if sink.rest and not quiet else 0
            self.shim.poller.change(sock.fileno(), mask)

    def stall(self, seconds: float) -> None:
        self._stalled = True
        self._register()
        self.shim.poller.later(seconds, self._resume)

    def _resume(self) -> None:
        self._stalled = False
        self._register()

    def reset(self) -> None:
        linger = b"\1\0\0\0\0\0\0\0"
        with contextlib.suppress(OSError):
            self.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with contextlib.suppress(OSError):
            self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for sock in (self.near, self.far):
            self.shim.poller.remove(sock.fileno())
            sock.close()
        self.shim.forget(self)


class Pump:
    """One direction of a relay."""

    def __init__(
        self, relay: Relay, source: socket.socket, sink: socket.socket, *, up: bool = False
    ) -> None:
        self._shim = relay.shim
        self._source, self._sink = source, sink
        self._piece = self._shim.rng.choice(PIECES)
        self._writes = self._shim.writes if up else None
        self._tail = b""
        self._at = self._noted = 0  # in the stream: where `_tail` starts, where the last write did
        self.rest = b""
        """Read, and not taken yet."""
        self.ended = False

    def run(self, *, hung_up: bool) -> None:
        """Relay a few pieces."""
        for _ in range(ROUNDS):
            if self.rest or self.ended:
                return
            try:
                data = self._source.recv(self._piece)
            except BlockingIOError:
                if hung_up:  # both ends of it have gone, and nothing is left to read
                    raise ConnectionResetError from None
                return
            if not data:
                self.ended = True
                self._sink.shutdown(socket.SHUT_WR)
                return
            if self._writes is not None:
                self._look(self._writes, data)
            self.rest = data
            self.flush()
            if len(data) < self._piece:
                return
        if self._shim.rng.random() < 0.02:
            self._piece = self._shim.rng.choice(PIECES)

    def flush(self) -> None:
        """Send on what waits."""
        if self.rest:
            with contextlib.suppress(BlockingIOError):
                self.rest = self.rest[self._sink.send(self.rest) :]

    def _look(self, writes: re.Pattern[bytes], data: bytes) -> None:
        """Note each write once, however it was split."""
        self._tail += data
        for found in writes.finditer(self._tail):
            if self._at + found.start() >= self._noted:
                self._noted = self._at + found.end()
                self._shim.note_write(found[1])
        behind = max(0, len(self._tail) - TOKEN_BYTES)
        self._tail = self._tail[behind:]
        self._at += behind

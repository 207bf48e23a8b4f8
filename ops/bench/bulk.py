"""Bulk over TCP, at so little CPU that the proxy is what is measured.

The sender uses sendfile(2) from memory, so nothing is copied; the receiver discards with MSG_TRUNC
(tcp(7)), so nothing is copied either. Every byte is counted at both ends.

    python -m ops.bench.bulk serve --port PORT
    python -m ops.bench.bulk load --port PORT --streams N --bytes TOTAL --direction down|up

A stream begins with an order of nine bytes, `D` or `U` and how many. For `D` the server sends as
many and ends; for `U` the client sends them and the server answers with the count of what came.
"""

import argparse
import contextlib
import os
import select
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod

from ops.bench import generator
from ops.bench.failure import MeasurementError

CHUNK_BYTES = 1 << 20
_ORDER = struct.Struct("!cQ")
_COUNT = struct.Struct("!Q")
_SINK = bytearray(CHUNK_BYTES)


class _Source:
    """Bytes to send from a file in memory."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("bulk")
        os.truncate(self._fd, CHUNK_BYTES)
        os.pwrite(self._fd, os.urandom(CHUNK_BYTES), 0)

    def send(self, sock: socket.socket, left: int) -> int:
        """Send some of what is left; return how much, 0 if the socket is full."""
        with contextlib.suppress(BlockingIOError):
            return os.sendfile(sock.fileno(), self._fd, 0, min(left, CHUNK_BYTES))
        return 0


def _discard(sock: socket.socket) -> int | None:
    """Receive and forget; return how much, 0 at the end, None if there is nothing now."""
    try:
        return sock.recv_into(_SINK, 0, socket.MSG_TRUNC)
    except BlockingIOError:
        return None


class _Stream(ABC):
    """One connection of either side: what is done when epoll says so."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    @abstractmethod
    def step(self) -> int | None:
        """Go on; return what to wait for, None when the stream has ended."""


def _run(epoll: select.epoll, streams: dict[int, _Stream], events: list[tuple[int, int]]) -> None:
    for fd, _ in events:
        stream = streams.get(fd)
        if stream is None:
            continue
        mask = stream.step()
        if mask is None:
            del streams[fd]
            stream.sock.close()
        else:
            epoll.modify(fd, mask)


class _Served(_Stream):
    """A stream as the server sees it."""

    def __init__(self, sock: socket.socket, source: _Source) -> None:
        super().__init__(sock)
        self._source = source
        self._order: bytes | None = None
        self._ordered = self._left = 0

    def step(self) -> int | None:
        try:
            return self._step()
        except ConnectionError:
            return None

    def _step(self) -> int | None:
        if self._order is None:
            order = self.sock.recv(_ORDER.size)
            if len(order) != _ORDER.size:
                return None
            self._order, self._ordered = _ORDER.unpack(order)
            self._left = self._ordered
        if self._order == b"D":
            self._left -= self._source.send(self.sock, self._left)
            return select.EPOLLOUT if self._left else None
        came = _discard(self.sock)
        self._left -= came or 0
        if came == 0 or self._left < 0:
            return None  # too few or too many: no answer, which the client takes for a failure
        if not self._left:
            self.sock.send(_COUNT.pack(self._ordered))
            self._left = sys.maxsize  # from here on only the end is waited for
        return select.EPOLLIN


def serve(port: int) -> None:
    """Serve until a signal ends the process."""
    source = _Source()
    epoll = select.epoll()
    streams: dict[int, _Stream] = {}
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        epoll.register(listener, select.EPOLLIN)
        while True:
            events = epoll.poll()
            for fd, _ in events:
                if fd == listener.fileno():
                    sock = listener.accept()[0]
                    streams[sock.fileno()] = _Served(sock, source)
                    epoll.register(sock, select.EPOLLIN)
            _run(epoll, streams, events)


class _Down(_Stream):
    """A client that receives."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        super().__init__(sock)
        self._left = size

    def step(self) -> int | None:
        came = _discard(self.sock)
        self._left -= came or 0
        if self._left < 0:
            raise MeasurementError(f"{-self._left} bytes too many came")
        if came == 0:
            if self._left:
                raise MeasurementError(f"a stream ended {self._left} bytes too soon")
            return None
        return select.EPOLLIN


class _Up(_Stream):
    """A client that sends."""

    def __init__(self, sock: socket.socket, size: int, source: _Source) -> None:
        super().__init__(sock)
        self._size = self._left = size
        self._source = source

    def step(self) -> int | None:
        if self._left:
            self._left -= self._source.send(self.sock, self._left)
            return select.EPOLLOUT if self._left else select.EPOLLIN
        if self.sock.recv(_COUNT.size) != _COUNT.pack(self._size):
            raise MeasurementError("the server has not received what was sent")
        return None


def load(port: int, count: int, total: int, direction: str) -> dict[str, float]:
    """Move `total` bytes over `count` streams at once; return the seconds it took."""
    each = total // count
    socks = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(count)]
    source = _Source()
    streams: dict[int, _Stream] = {}
    epoll = select.epoll()
    generator.wait_for_go()
    start = time.perf_counter()
    for sock in socks:
        sock.sendall(_ORDER.pack(b"D" if direction == "down" else b"U", each))
        down = direction == "down"
        streams[sock.fileno()] = _Down(sock, each) if down else _Up(sock, each, source)
        epoll.register(sock, select.EPOLLIN if down else select.EPOLLOUT)
    while streams:
        _run(epoll, streams, epoll.poll())
    return {"seconds": time.perf_counter() - start, "bytes": float(each * count)}


def probe(port: int) -> None:
    """Have a few bytes sent and count them, as `servers.Server.probe` wants it."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(_ORDER.pack(b"D", 3))
        with sock.makefile("rb") as reply:
            if len(reply.read()) != 3:
                raise ConnectionResetError("the stream ended too soon")


def main() -> None:
    """Be the server or the load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "load"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--direction", choices=["down", "up"], default="down")
    options = parser.parse_args()
    if options.role == "serve":
        serve(options.port)  # for ever
    with generator.told():
        result = load(options.port, options.streams, options.bytes, options.direction)
        generator.tell(result)


if __name__ == "__main__":
    main()

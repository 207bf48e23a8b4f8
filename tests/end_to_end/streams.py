"""Random bytes both ways at once over many connections, each byte accounted for by checksum.

Every end sends its own stream while it receives the other's: an index first, so that the two ends
of a session find each other behind a proxy, then `size` bytes, then the end of the stream. Streams
are windows of one random block at steps that no buffer size divides, so bytes that are lost,
doubled, swapped or of another connection change the checksum.
"""

import contextlib
import random
import resource
import select
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from tests.harness import listening_address
from tests.proxy import connect

BLOCK = random.Random(20_240_229).randbytes((4 << 20) + 1)
STEP = 100_003
PIECE = 256 << 10
INDEX = struct.Struct(">I")


@dataclass
class Total:
    """What a transfer has moved."""

    connections: int
    bytes_both_ways: int
    seconds: float

    def __str__(self) -> str:
        megabytes = self.bytes_both_ways / 1e6
        return (
            f"{self.connections} connection(s): {megabytes:,.0f} MB in both directions together in "
            f"{self.seconds:.1f} s, {megabytes / self.seconds:,.0f} MB/s, checksums equal"
        )


class Stream:
    """One end of a session."""

    def __init__(self, sock: socket.socket, index: int, size: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.index = index
        self.left = size
        self.at = index * STEP % len(BLOCK)
        self.header = INDEX.pack(index)
        self.sent_sum = self.received_sum = 0
        self.received = 0
        self.peer_header = b""
        self.sent_end = self.received_end = False

    def send(self) -> None:
        """Send one piece, or the end."""
        if self.header:
            self.header = self.header[self.sock.send(self.header) :]
            return
        if not self.left:
            self.sock.shutdown(socket.SHUT_WR)
            self.sent_end = True
            return
        piece = memoryview(BLOCK)[self.at : self.at + min(PIECE, self.left)]
        count = self.sock.send(piece)
        self.sent_sum = zlib.crc32(piece[:count], self.sent_sum)
        self.left -= count
        self.at = (self.at + count) % len(BLOCK)

    def receive(self, buffer: memoryview) -> None:
        """Receive what is there, or the end."""
        count = self.sock.recv_into(buffer)
        part = buffer[:count]
        if missing := INDEX.size - len(self.peer_header):
            self.peer_header += bytes(part[:missing])
            part = part[missing:]
        self.received += len(part)
        self.received_sum = zlib.crc32(part, self.received_sum)
        self.received_end = not count

    @property
    def mask(self) -> int:
        return (0 if self.received_end else select.EPOLLIN) | (
            0 if self.sent_end else select.EPOLLOUT
        )


def listen(own: contextlib.ExitStack) -> socket.socket:
    """Return a server's socket for `exchange`."""
    return own.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))


def address_of(server: socket.socket) -> str:
    return listening_address(server)


def exchange(
    server: socket.socket,
    proxy_address: str,
    *,
    connections: int,
    size: int,
    deadline_s: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> Total:
    """Send `size` bytes each way over every connection at once; all must arrive as they were."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as own:
        streams: dict[int, Stream] = {}
        epoll = own.enter_context(contextlib.closing(select.epoll()))
        began = monotonic()

        def add(sock: socket.socket, index: int) -> None:
            streams[sock.fileno()] = Stream(own.enter_context(sock), index, size)
            epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

        server.settimeout(deadline_s)
        for index in range(connections):
            add(connect(proxy_address), index)
            add(server.accept()[0], connections + index)
        _move(epoll, streams, began + deadline_s, meanwhile)
        ends = {stream.index: stream for stream in streams.values()}
        for stream in streams.values():
            (peer,) = INDEX.unpack(stream.peer_header)
            assert (stream.received, stream.received_sum) == (size, ends[peer].sent_sum)
            assert ends[peer].peer_header == INDEX.pack(stream.index)
        return Total(connections, 2 * connections * size, monotonic() - began)


def _move(
    epoll: select.epoll, streams: dict[int, Stream], deadline: float, meanwhile: Callable[[], None]
) -> None:
    buffer = memoryview(bytearray(PIECE))
    open_ends = len(streams)
    while open_ends:
        assert monotonic() < deadline, f"{open_ends} ends have not finished in time"
        meanwhile()
        for fd, mask in epoll.poll(0.1):
            stream = streams[fd]
            before = stream.mask
            with contextlib.suppress(BlockingIOError):
                if mask & ~select.EPOLLOUT and not stream.received_end:
                    stream.receive(buffer)
            with contextlib.suppress(BlockingIOError):
                if mask & select.EPOLLOUT and not stream.sent_end:
                    stream.send()
            if not stream.mask:
                epoll.unregister(fd)
                open_ends -= 1
            elif stream.mask != before:
                epoll.modify(fd, stream.mask)

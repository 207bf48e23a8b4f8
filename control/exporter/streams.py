"""Server-sent events: browsers that are told of every second, and cannot hold anybody up.

    HTTP thread:  admit() ─▶ sends what was until now ─▶ adopt(socket)
    main thread:  publish(message) ─▶ one send(2) per browser that never waits

A browser that does not read is cut when its kernel buffer is full: nothing is queued for it here,
and STREAM_BUFFER_BYTES bound what the kernel queues. Whoever is cut connects again and gets all
points at once, so nothing is lost but a moment.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import contextlib
import socket
import threading
from collections import deque

from aegis.limits import MAX_STREAMS, SCRAPE_TIMEOUT_S, STREAM_BUFFER_BYTES


def message(event: str, data: bytes) -> bytes:
    """Return one event; `data` must have no newline, which JSON has not."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)


class Streams:
    """The browsers; safe in any thread."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._admitted = 0
        self._socks: list[socket.socket] = []
        # What is published while a browser still reads the beginning, which has a deadline.
        self._latest: deque[bytes] = deque(maxlen=int(2 * SCRAPE_TIMEOUT_S))
        self._published = 0

    @property
    def published(self) -> int:
        """How many messages there have been."""
        return self._published

    def admit(self) -> bool:
        """Take a place if there is one; `adopt` or `leave` must follow."""
        with self._lock:
            if self._admitted >= self._most:
                return False
            self._admitted += 1
            return True

    def leave(self) -> None:
        """Give back a place that was not used."""
        with self._lock:
            self._admitted -= 1

    def adopt(self, sock: socket.socket, seen: int) -> None:
        """Own a socket from now on; it has had everything up to message number `seen`."""
        with self._lock:
            missed = self._published - seen
            sock.setblocking(False)
            self._socks.append(sock)
            if missed > len(self._latest):
                self._drop(sock)
            elif missed:
                self._send(sock, b"".join(list(self._latest)[-missed:]))

    def publish(self, data: bytes) -> None:
        """Send to every browser; those that have left or do not read are dropped."""
        with self._lock:
            self._published += 1
            self._latest.append(data)
            for sock in list(self._socks):
                self._send(sock, data)

    def close(self) -> None:
        """Cut all."""
        with self._lock:
            for sock in list(self._socks):
                self._drop(sock)

    def __len__(self) -> int:
        return len(self._socks)

    def _send(self, sock: socket.socket, data: bytes) -> None:
        try:
            if not _has_left(sock) and sock.send(data) == len(data):
                return
        except OSError:  # BlockingIOError too: its buffer is full
            pass
        self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._socks.remove(sock)
        self._admitted -= 1
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def limit_buffer(sock: socket.socket) -> None:
    """Fix the size of the kernel's buffer, which would grow to megabytes for one that is slow."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER_BYTES)


def _has_left(sock: socket.socket) -> bool:
    """Whether the browser has ended its side; what it says is of no interest."""
    try:
        return not sock.recv(4096)
    except BlockingIOError:
        return False

"""Requests that have begun and not ended, over all clients of a worker; bounded together.

    keep ─▶ {client: bytes}, who began first comes first ──too much in all──▶ the first is closed

Half a request must be read to get on: left in the kernel, it can fill the receive buffer with what
belongs to one segment, and the window stays shut (tcp_recvmsg frees whole segments only). So memory
is bounded by ending the request that has taken longest, which is the slowest client's or that of
somebody who never meant to end it.
"""

from typing import Protocol


class Slow(Protocol):
    """Somebody who has begun a request."""

    def too_slow(self) -> None:
        """End: others need the memory, and nobody's request has taken longer."""
        ...


class Halves:
    """What is held of whom. Not thread-safe: the loop is the only user."""

    __slots__ = ("_bytes", "_most", "_sizes")

    def __init__(self, most_bytes: int) -> None:
        self._bytes = 0
        self._most = most_bytes
        self._sizes: dict[Slow, int] = {}

    def keep(self, client: Slow, size: int) -> None:
        """Note how much is held of a client's half; its place is that of the half's beginning."""
        self._bytes += size - self._sizes.get(client, 0)
        self._sizes[client] = size
        while self._bytes > self._most:
            first = next(iter(self._sizes))
            self.forget(first)
            first.too_slow()

    def forget(self, client: Slow) -> None:
        """Note that the client's half is whole, goes elsewhere, or is lost."""
        self._bytes -= self._sizes.pop(client, 0)

"""What a checked client says: requests that carry who sent them, and what their replies must be.

One `Talk` is one connection's; its keys and values hold the connection's name. So a reply that went
astray shows whose it was, and what another connection left undone is in nobody's way.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple


class Ask(NamedTuple):
    """One request, and whether a reply may be its."""

    data: bytes
    fits: Callable[[Any], bool]
    counter: bytes = b""
    """The key that it increments."""
    bodiless: bool = False
    """The reply to HTTP's HEAD."""


class Talk(ABC):
    """What one connection says."""

    def __init__(
        self, who: bytes, rng: random.Random, big_bytes: int, only: frozenset[str]
    ) -> None:
        self.who = who
        self.rng = rng
        self.big_bytes = big_bytes
        self.only = only
        self.seq = 0
        self.values: dict[bytes, bytes] = {}
        self.counts: dict[bytes, int] = {}
        """Key → increments asked for."""
        self.finished = False
        """The connection ends with the reply to what was said last."""

    def next(self) -> list[Ask]:
        """Make the next requests; they belong together."""
        self.seq += 1
        makers, weights = [], []
        for make, weight in self.kinds():
            name = getattr(make, "__name__", "").strip("_")
            makers.append(make)
            weights.append(weight if not self.only or name in self.only else 0)
        (make,) = self.rng.choices(makers, weights if any(weights) else None)
        return make()

    @abstractmethod
    def kinds(self) -> list[tuple[Callable[[], list[Ask]], float]]:
        """Return what may be said now, with weights."""

    @staticmethod
    @abstractmethod
    def parse(buf: bytearray, at: int, ask: Ask) -> tuple[Any, int] | None:
        """Return the reply at `at` and the index behind it; None if it is not whole."""

    @staticmethod
    @abstractmethod
    def gave_up(reply: Any) -> str:
        """Return why the proxy or the server could not serve the request; empty if it did."""

    def token(self) -> bytes:
        """Return what nobody else says, and this connection says once."""
        return b"%s.%d.%x" % (self.who, self.seq, self.rng.getrandbits(24))

    def big(self) -> bytes:
        """Return a value of any size up to the largest."""
        size = self.rng.randrange(1, self.big_bytes)
        return (self.token() * (size // 8 + 1))[:size]

    def count(self, key: bytes) -> int:
        """Note one more increment of a key; returns the sum."""
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]


def exactly(want: Any) -> Callable[[Any], bool]:
    """Fit that and nothing else, the type included."""
    return lambda reply: type(reply) is type(want) and reply == want

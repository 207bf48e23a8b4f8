"""What a checked client says: requests that carry who sent them, and what their replies must be.

One `Talk` is one connection's; its keys and values hold the connection's name. So a reply that went
astray shows whose it was, and what another connection left undone is in nobody's way.
"""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

TOKEN = rb"(c\d+-\d+\.\d+\.[0-9a-f]+);"
"""What `Talk.token` makes, as a pattern."""


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

    writes: ClassVar[re.Pattern[bytes]]
    """Finds the token of each value that a request stores; a server sees each of them once."""

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
        self.tunnelled = False
        """It is a tunnel from here on, so that other things may be said."""
        self._menu: tuple[list[Callable[[], list[Ask]]], list[float]] | None = None

    def next(self) -> list[Ask]:
        """Make the next requests; they belong together."""
        self.seq += 1
        makers, sums = self._menu or self._choose()
        (make,) = self.rng.choices(makers, cum_weights=sums)
        return make()

    def tunnel(self) -> None:
        """Note that the connection becomes a tunnel."""
        self.tunnelled = True
        self._menu = None

    def _choose(self) -> tuple[list[Callable[[], list[Ask]]], list[float]]:
        kinds = [
            (make, weight)
            for make, weight in self.kinds()
            if not self.only or getattr(make, "__name__", "").strip("_") in self.only
        ]
        kinds = kinds or self.kinds()
        self._menu = [make for make, _ in kinds], list(accumulate(weight for _, weight in kinds))
        return self._menu

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
        return b"%s.%d.%x;" % (self.who, self.seq, self.rng.getrandbits(24))

    def big(self) -> bytes:
        """Return a value of any magnitude up to the largest, the token at its beginning."""
        token = self.token()
        size = int(self.big_bytes ** self.rng.random())
        return token * (size // len(token) + 1)

    def count(self, key: bytes) -> int:
        """Note one more increment of a key; returns the sum."""
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]


def exactly(want: Any) -> Callable[[Any], bool]:
    """Fit that and nothing else, the type included."""
    return lambda reply: type(reply) is type(want) and reply == want

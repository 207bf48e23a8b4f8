"""Maglev hashing: a table from a client's hash to a server, in which few clients ever move.

    hash of the client's address % size ─▶ slots[…] ─▶ index of a server

Every server fills slots in an order of its own, in turn, until none is left; weights decide how
often its turn comes. The same servers give the same table in every worker and after a restart, and
when one of them goes its slots are shared out while nearly all of the others stay (when 1 of 10
goes, 12 in 1,000 clients of the others move too; a ring would move none, and balance far worse).

Source: Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer, NSDI 2016, 3.4.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain

# Primes, so that every step through the table visits each slot. A hundred slots for each server
# keep the shares within about one percent (3.4); four hundred move fewer clients (0.4 of those that
# a hundred do), where filling the table does not hold the loop up: 2 ms, 20 ms and 90 ms.
_SIZES = (1_009, 4_099, 16_411, 65_537)
_LEAST_SLOTS, _GOOD_SLOTS = 100, 400


class Table:
    """The table for some servers; made anew when they or their weights change."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        """`servers` are names, which alone decide on the slots, and weights above 0."""
        count = len(servers)
        wanted = max(_LEAST_SLOTS * count, min(_GOOD_SLOTS * count, _SIZES[2]))
        self.size = next((size for size in _SIZES if size >= wanted), _SIZES[-1])
        self.slots = _fill(self.size, servers) if servers else []

    def from_key(self, key: int) -> Iterator[int]:
        """Yield the index of the key's server, then those of the slots behind it."""
        slots = self.slots
        if slots:
            start = key % self.size
            yield slots[start]
            yield from chain(slots[start + 1 :], slots[:start])


def key_of(address: bytes) -> int:
    """Return the same number for the same bytes in every process."""
    return int.from_bytes(blake2b(address, digest_size=8).digest(), "big")


def _fill(size: int, servers: Sequence[tuple[str, int]]) -> list[int]:
    slots = [-1] * size
    heaviest = max(weight for _, weight in servers)
    # Where a server's order begins, its step, and what it is owed of a turn.
    turns = []
    for index, (name, weight) in enumerate(servers):
        key = key_of(name.encode())
        turns.append([index, weight, 0, key % size, (key >> 32) % (size - 1) + 1])
    left = size
    while left:
        for turn in turns:
            index, weight, owed, slot, step = turn
            turn[2] = owed = owed + weight
            if owed < heaviest:
                continue
            while slots[slot] >= 0:
                slot = (slot + step) % size
            slots[slot] = index
            turn[2] = owed - heaviest
            turn[3] = slot
            left -= 1
            if not left:
                break
    return slots

"""Which server is next: one function or small class for each word of `balance`.

    candidates (live, not tried yet, with room) ─▶ next ─▶ one of them

Each is given at least one candidate, in the configuration's order, each with a weight above 0.
`changed` comes first, and again whenever the live servers or their weights have changed. All of it
is one worker's: what `least_conn` and `random` compare is what this worker has open, and round
robin begins at another server in each worker, so that workers do not move in step.
"""
# ruff: noqa: ARG002 - each looks at what it needs

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from aegis.access import site_of
from aegis.proxy_protocol import Endpoints
from workers.maglev import Table, key_of
from workers.target import Server

Load = Callable[[Server], int]
"""What a server is busy with: a number that compares."""


def connections_of(server: Server) -> int:
    """Return what a server is busy with where each session has a connection."""
    return server.figures.connections


class Balance(Protocol):
    """A way to choose."""

    by_load: bool
    """Whether it looks at the load."""

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """Take note of the live servers; `members` unless only weights are others."""
        ...

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """Choose.

        Args:
            candidates: from whom.
            key: a hash of the client's address, where a balance wants that.
            load: what each is busy with.
        """
        ...


class RoundRobin:
    """Smooth weighted round robin: weights 5, 1, 1 give a a b a c a a, not five of a in a row.

    Each turn every candidate is given its weight, and who has most pays the sum. Source: nginx,
    ngx_http_upstream_get_peer (commit 52327e0).
    """

    by_load = False

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """See `Balance`; weights alone go on from where it is, or a ramp would favour the first."""
        if members and live:
            for server in live:
                server.credit = 0
            for _ in range(self._slot % len(live)):
                self.next(live, 0, connections_of)

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """See `Balance`."""
        best, total = candidates[0], 0
        for server in candidates:
            total += server.weight
            server.credit += server.weight
            if server.credit > best.credit:
                best = server
        best.credit -= total
        return best


class LeastConn:
    """The fewest connections for its weight; of equals in turn."""

    by_load = True

    def __init__(self) -> None:
        self._turns = 0

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """See `Balance`."""

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """See `Balance`."""
        best = min(candidates, key=lambda each: (_burden(each, load), each.picked))
        self._turns += 1
        best.picked = self._turns
        return best


class TwoRandom:
    """The emptier of two that are drawn by weight: near to least_conn, and no two move in step.

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001).
    """

    by_load = True

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """See `Balance`."""

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """See `Balance`."""
        two = random.choices(candidates, [server.weight for server in candidates], k=2)
        return min(two, key=lambda each: _burden(each, load))


class First:
    """The first in the configuration's order that has room, so that the last may be let go."""

    by_load = False

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """See `Balance`."""

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """See `Balance`."""
        return candidates[0]


class Source:
    """The same server for the same client, of all workers, as long as that is live."""

    by_load = False

    def __init__(self) -> None:
        self._live: Sequence[Server] = ()
        self._table = Table([])

    def changed(self, live: Sequence[Server], *, members: bool) -> None:
        """See `Balance`."""
        self._live = live
        self._table = Table([(server.address.text, server.weight) for server in live])

    def next(self, candidates: Sequence[Server], key: int, load: Load) -> Server:
        """See `Balance`; where the client's own server was tried or is full, the next one is."""
        for index in self._table.from_key(key):
            if self._live[index] in candidates:
                return self._live[index]
        return candidates[key % len(candidates)]  # backups: they have no table


def _burden(server: Server, load: Load) -> float:
    """Return the load for the weight, the one to come counted; who is idle is so at any weight.

    Source: HAProxy, fwlc_queue_srv in src/lb_fwlc.c (2.6).
    """
    busy = load(server)
    return (busy + 1) / server.weight if busy else 0.0


def make_balance(word: str, slot: int) -> Balance:
    """Make what the configuration's word means, HAProxy's spellings included."""
    makers: dict[str, Callable[[], Balance]] = {
        "roundrobin": lambda: RoundRobin(slot),
        "leastconn": LeastConn,
        "random": TwoRandom,
        "first": First,
        "source": Source,
    }
    return makers[word.replace("_", "")]()


def client_key(ends: Endpoints | None) -> int:
    """Return the same number for the same client in every worker; of IPv6 its /64 counts."""
    if ends is None:  # it has left
        return 0
    return key_of(site_of(ends.source[0]))

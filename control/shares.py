"""Divide each limit over the workers, and move shares to where clients wait.

A limit has a name: a backend's (its `max_connections`), BACKEND/ADDRESS for a server's, or that of
`listener_limit` for sessions, of which each counts as a connection here.

A limit is the whole proxy's (a database counts connections, not workers), and it holds at every
moment, also while shares move and while a worker and its successor are both alive: what one worker
is given must have left another first. It has left when the worker has applied the smaller share and
reports no more open connections than that.

    free = limit - sum of max(believed, open)      only this is given away, ever

A worker that leaves its slot keeps what its remaining clients need and no more than half of a fair
part; one connection, if its clients have none, comes before anybody else's. Who has none at all
gets one from who has most, so that a successor can serve at once. Where there are fewer than
workers whose clients wait, these take turns.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aegis.limits import SHARE_TURN_S


class Need(NamedTuple):
    """What one worker has and wants of what one limit is about."""

    granted: int
    """Its share as last published."""
    believed: int
    """The largest share it may still act on: it has not confirmed a smaller one."""
    open: int
    """Connections, idle pipes included."""
    busy: int
    """Connections that serve somebody at this moment."""
    waiting: int
    """Clients that wait for one."""
    leaving: bool = False
    """It has a successor."""
    least: int = 1
    """What it keeps for its next client, if there is enough for all workers."""
    waited_s: float = 0.0
    """How long the first of those has waited that wait."""


def divide(limit: int, needs: dict[int, Need]) -> dict[int, int]:
    """Return each worker's new share; no share grows by more than what is free in all.

    Args:
        limit: of all workers together.
        needs: worker's pid -> what it has and wants.
    """
    if not needs:
        return {}
    staying = {pid: need for pid, need in needs.items() if not need.leaving} or needs
    fair, left_over = divmod(limit, len(staying))
    free = limit - sum(max(need.believed, need.granted, need.open) for need in needs.values())
    shares = {pid: need.granted for pid, need in needs.items()}
    hungry = [pid for pid, need in staying.items() if need.waiting]
    for pid, need in staying.items():
        if hungry and not need.waiting:  # keeps one if there are enough: its next client may come
            shares[pid] = min(need.granted, max(need.busy, min(need.least, fair)))
        elif hungry and need.granted > fair + min(1, left_over):
            # Sessions do not end because a share is smaller, so what they use is no one else's.
            used = 0 if need.least else need.busy
            shares[pid] = min(need.granted, max(fair + min(1, left_over), used))
    if limit < len(staying):
        _take_turns(staying, hungry, shares)
    first = _see_to_the_ends(limit, fair, needs, staying, shares)
    takers = {pid: staying[pid].waiting for pid in hungry}
    if not hungry:
        takers = {pid: fair + 1 - shares[pid] for pid in staying if shares[pid] <= fair}
    for pid in first[: max(0, free)]:
        shares[pid] += 1
        takers[pid] = takers.get(pid, 1) - 1
    free -= len(first)
    takers = {pid: wanted for pid, wanted in takers.items() if wanted > 0}
    while free > 0 and takers:
        pid = min(takers, key=lambda each: (shares[each], -staying[each].waited_s, each))
        shares[pid] += 1
        free -= 1
        takers[pid] -= 1
        if takers[pid] <= 0:
            del takers[pid]
    return shares


def _take_turns(staying: dict[int, Need], hungry: list[int], shares: dict[int, int]) -> None:
    """Take from workers that serve, in place, where clients of one without any wait for longer.

    One that shares its pipe may be busy for ever and have nobody who waits.
    """
    without = [pid for pid in hungry if not shares[pid]]
    having = [pid for pid in staying if shares[pid]]
    for pid in sorted(without, key=lambda each: -staying[each].waited_s):
        donor = min(having, key=lambda each: staying[each].waited_s, default=pid)
        if staying[pid].waited_s <= staying[donor].waited_s + SHARE_TURN_S:
            return
        shares[donor] -= 1
        having.remove(donor)


def _see_to_the_ends(
    limit: int, fair: int, needs: dict[int, Need], staying: dict[int, Need], shares: dict[int, int]
) -> list[int]:
    """Cut down, in place, what leaving workers do not need and what newborn ones do.

    Returns:
        Who gets one connection before all others, in this order.
    """
    leaving = {pid: need for pid, need in needs.items() if pid not in staying}
    for pid, need in leaving.items():
        used = need.busy + need.waiting
        shares[pid] = min(need.granted, max(min(1, used), min(used, fair // 2)))
    cut_off = [pid for pid, need in leaving.items() if need.waiting and not shares[pid]]
    newborn = [pid for pid, need in staying.items() if fair and need.least and not shares[pid]]
    spare = limit - sum(shares.values())  # what is free once all have confirmed
    for wanted, least in ((len(cut_off), 1), (len(cut_off) + len(newborn), 2)):
        while spare < wanted:
            donor = max(staying, key=lambda pid: shares[pid])
            if shares[donor] < least:
                break
            shares[donor] -= 1
            spare += 1
    return cut_off + newborn


class Shares:
    """The shares of all limits."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits: dict[str, int] = {}
        """Name → of all workers together."""
        self._granted: dict[str, dict[int, int]] = {}
        self._believed: dict[str, dict[int, int]] = {}
        self._changed_in: dict[int, int] = {}  # pid -> epoch of its last change
        self.reconfigure(limits)

    def reconfigure(
        self,
        limits: dict[str, int],
        holders: Mapping[str, Iterable[int]] | None = None,
        epoch: int = 0,
    ) -> None:
        """Go by other limits; what the workers have of one that stays they keep.

        Args:
            limits: name -> of all workers together.
            holders: of what was not limited so far: name -> workers that may have it. Until they
                have applied the epoch any of them may use up all.
            epoch: the one from which on the limits hold.
        """
        new = limits.keys() - self.limits.keys()
        self.limits = dict(limits)
        self._granted = {name: self._granted.get(name, {}) for name in self.limits}
        self._believed = {name: self._believed.get(name, {}) for name in self.limits}
        for name in new:
            for pid in (holders or {}).get(name, ()):
                self._believed[name][pid] = limits[name]
                self._changed_in[pid] = epoch

    def for_new_worker(self, workers: int, needs: dict[str, dict[int, Need]]) -> dict[str, int]:
        """Return what a worker may start with: its fair part, as far as that is free."""
        shares = {}
        for name, limit in self.limits.items():
            taken = sum(max(n.believed, n.granted, n.open) for n in needs[name].values())
            shares[name] = max(0, min(-(-limit // workers), limit - taken))
        return shares

    def set(self, pid: int, shares: dict[str, int]) -> None:
        """Note what a worker was started with, or is known to have."""
        for name, share in shares.items():
            if name in self.limits:
                self._granted[name][pid] = self._believed[name][pid] = share

    def adopt(self, pid: int, opened: dict[str, int], epoch: int) -> None:
        """Note a worker of a controller before us: until it has applied the epoch, who knows."""
        self.set(pid, opened)
        for name, limit in self.limits.items():
            self._believed[name][pid] = limit
        self._changed_in[pid] = epoch

    def forget(self, pid: int) -> None:
        """Take a dead worker's shares back."""
        for of_backend in [*self._granted.values(), *self._believed.values()]:
            of_backend.pop(pid, None)
        self._changed_in.pop(pid, None)

    def move(self, needs: dict[str, dict[int, Need]], next_epoch: int) -> bool:
        """Divide anew by what the workers report; True when a share has changed."""
        changed = False
        for name in self.limits:
            before = self._granted[name]
            after = self._granted[name] = divide(self.limits[name], needs.get(name, {}))
            for pid, share in after.items():
                if share != before.get(pid):
                    changed = True
                    self._changed_in[pid] = next_epoch
                    believed = self._believed[name]
                    believed[pid] = max(share, believed.get(pid, 0))
        return changed

    def need(self, name: str, pid: int, epoch: int) -> tuple[int, int]:
        """Return (granted, believed) for a worker that has applied the epoch."""
        granted = self._granted.get(name, {}).get(pid, 0)
        if name in self._believed and epoch >= self._changed_in.get(pid, 0):
            self._believed[name][pid] = granted
        return granted, self._believed.get(name, {}).get(pid, 0)

    def of(self, pids: Iterable[int]) -> dict[int, dict[str, int]]:
        """Return pid -> name -> share, for Desired."""
        return {
            pid: {name: granted.get(pid, 0) for name, granted in self._granted.items()}
            for pid in pids
        }

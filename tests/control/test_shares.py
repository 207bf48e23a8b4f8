"""Connections divided over workers: the limit holds at every moment, and nobody starves."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from control.shares import Need, divide

PIDS = (11, 12, 13)


class Worker:
    """A worker as its share sees it: opens what it may when clients wait, hears late."""

    def __init__(self) -> None:
        self.share = self.open = self.busy = self.waiting = 0
        self.inbox: list[tuple[int, int]] = []  # (epoch, share), not heard yet
        self.applied = 0

    def live(self, rng: random.Random) -> None:
        if self.inbox and rng.random() < 0.5:
            self.applied, self.share = self.inbox.pop(0)
        self.busy = rng.randint(0, self.busy) if rng.random() < 0.3 else self.busy
        self.waiting = rng.choice([0, 0, 1, 5]) if rng.random() < 0.3 else self.waiting
        self.open = min(self.open, max(self.share, self.busy))
        while self.waiting and self.open < self.share:
            self.open += 1
            self.busy += 1
            self.waiting -= 1


@settings(deadline=None, max_examples=200)
@given(limit=st.integers(1, 12), count=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_the_limit_holds_at_every_moment_however_late_workers_hear(
    limit: int, count: int, seed: int
) -> None:
    rng = random.Random(seed)
    workers = {pid: Worker() for pid in PIDS[:count]}
    granted = dict.fromkeys(workers, 0)
    believed = dict.fromkeys(workers, 0)
    changed_in = dict.fromkeys(workers, 0)
    for epoch in range(1, 200):
        for pid, worker in workers.items():
            worker.live(rng)
            if worker.applied >= changed_in[pid]:
                believed[pid] = granted[pid]
        assert sum(worker.open for worker in workers.values()) <= limit
        needs = {
            pid: Need(granted[pid], believed[pid], w.open, w.busy, w.waiting)
            for pid, w in workers.items()
        }
        shares = divide(limit, needs)
        for pid, share in shares.items():
            if share != granted[pid]:
                granted[pid], changed_in[pid] = share, epoch
                believed[pid] = max(share, believed[pid])
                workers[pid].inbox.append((epoch, share))


def settle(limit: int, needs: dict[int, Need]) -> dict[int, int]:
    """Divide until nothing moves, every worker obeying at once."""
    for _ in range(10):
        shares = divide(limit, needs)
        needs = {
            pid: Need(
                shares[pid], shares[pid], min(need.open, shares[pid]), need.busy, need.waiting
            )
            for pid, need in needs.items()
        }
    return shares


def test_with_nobody_waiting_the_shares_are_even() -> None:
    needs = {pid: Need(0, 0, 0, 0, 0) for pid in PIDS}
    assert sorted(settle(8, needs).values()) == [2, 3, 3]


def test_a_worker_whose_clients_wait_gets_what_the_others_do_not_use() -> None:
    needs = {11: Need(4, 4, 4, 4, 9), 12: Need(4, 4, 4, 0, 0)}
    assert settle(8, needs) == {11: 7, 12: 1}


def test_when_clients_wait_everywhere_the_shares_become_even() -> None:
    needs = {11: Need(7, 7, 7, 7, 9), 12: Need(1, 1, 1, 1, 9)}
    shares = divide(8, needs)
    assert shares == {11: 4, 12: 1}  # the first lets go before the second is given
    assert divide(8, {11: Need(4, 4, 4, 4, 9), 12: Need(1, 1, 1, 1, 9)}) == {11: 4, 12: 4}


def test_one_connection_for_two_workers_goes_to_who_needs_it() -> None:
    needs = {11: Need(1, 1, 1, 0, 0), 12: Need(0, 0, 0, 0, 1)}
    assert settle(1, needs) == {11: 0, 12: 1}


def test_one_connection_for_two_workers_that_both_want_it_is_theirs_in_turn() -> None:
    served = Need(1, 1, 1, 1, 3, waited_s=0.2)
    starved = Need(0, 0, 0, 0, 3, waited_s=0.25)
    assert divide(1, {11: served, 12: starved}) == {11: 1, 12: 0}, "not for so little"
    starved = starved._replace(waited_s=0.5)
    assert divide(1, {11: served, 12: starved}) == {11: 0, 12: 0}, "it lets go first"
    never_idle = Need(1, 1, 1, 1, 0)
    assert divide(1, {11: never_idle, 12: starved}) == {11: 0, 12: 0}
    let_go = Need(0, 0, 0, 0, 3, waited_s=0.3)
    assert divide(1, {11: let_go, 12: starved}) == {11: 0, 12: 1}, "who has waited longest"


def test_a_newborn_worker_gets_one_from_who_has_most() -> None:
    needs = {11: Need(5, 5, 5, 5, 0), 12: Need(3, 3, 3, 3, 0), 13: Need(0, 0, 0, 0, 0)}
    assert divide(8, needs) == {11: 4, 12: 3, 13: 0}  # let go first
    assert settle(8, needs)[13] >= 1


def test_a_limit_of_two_is_one_for_each_while_a_worker_is_replaced() -> None:
    assert settle(2, {11: Need(2, 2, 2, 0, 0), 12: Need(0, 0, 0, 0, 0)}) == {11: 1, 12: 1}


def test_a_worker_that_leaves_gives_up_what_its_clients_do_not_need() -> None:
    idle, busy = Need(8, 8, 8, 0, 0, leaving=True), Need(8, 8, 8, 6, 3, leaving=True)
    born = Need(0, 0, 0, 0, 9)
    assert divide(8, {11: idle, 12: born})[11] == 0
    assert divide(8, {11: busy, 12: born})[11] == 4, "half of what a successor would have"
    assert divide(1, {11: Need(1, 1, 1, 1, 0, leaving=True), 12: born}) == {11: 1, 12: 0}


def test_the_last_clients_of_a_worker_that_leaves_come_before_its_successors() -> None:
    leaving, successor = Need(0, 0, 0, 0, 1, leaving=True), Need(1, 1, 1, 1, 9)
    assert divide(1, {11: leaving, 12: successor}) == {11: 0, 12: 0}
    assert divide(1, {11: leaving, 12: Need(0, 0, 0, 0, 9)}) == {11: 1, 12: 0}


def test_a_limit_that_is_lowered_is_kept_as_soon_as_the_workers_can() -> None:
    assert sum(settle(3, {11: Need(4, 4, 4, 4, 0), 12: Need(4, 4, 4, 4, 0)}).values()) == 3


def test_a_hungry_worker_is_not_cut_below_its_sessions() -> None:
    """Else the place that is free would go to a worker whose sessions are above its share."""
    needs = {1: Need(3, 3, 3, 3, 1, least=0), 2: Need(1, 1, 0, 0, 0, least=0)}
    assert divide(4, needs) == {1: 3, 2: 0}
    needs = {1: Need(3, 3, 3, 3, 1, least=0), 2: Need(0, 0, 0, 0, 0, least=0)}
    assert divide(4, needs) == {1: 4, 2: 0}

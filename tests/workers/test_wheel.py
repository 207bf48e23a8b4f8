"""The timer wheel: never early, at most a tick late, whatever is armed and disarmed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.limits import TICK_S, WHEEL_SLOTS
from workers.timers import UNARMED, Alarm, Wheel

START = 1000.0
SPAN_S = TICK_S * WHEEL_SLOTS
STEP_S = TICK_S / 2  # how often the tests' loop looks at the wheel


class Item:
    """Notes when it is looked at; `act` decides what `expire` does."""

    def __init__(self, act: Callable[[float], float] = lambda _now: 0.0) -> None:
        self.slot = UNARMED
        self.act = act
        self.looked_at: list[float] = []
        self.failures: list[Exception] = []

    def expire(self, now: float) -> float:
        self.looked_at.append(now)
        return self.act(now)

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


def run(wheel: Wheel, start: float, end: float) -> None:
    """Turn the wheel as the loop does."""
    now = start
    while now < end:
        now += STEP_S
        if now >= wheel.due:
            wheel.advance(now)


@given(st.floats(0.0, 3 * SPAN_S), st.floats(0.0, 10_000.0))
def test_an_alarm_is_never_early_and_at_most_a_tick_and_a_turn_late(
    delay: float, start: float
) -> None:
    wheel, fired = Wheel(start), list[float]()

    def note(now: float) -> float:
        fired.append(now)
        return 0.0

    Alarm(wheel, start + delay, note)
    run(wheel, start, start + delay + 3 * TICK_S)
    assert len(fired) == 1
    assert start + delay <= fired[0] <= start + delay + TICK_S + 2 * STEP_S


@given(st.lists(st.floats(-1.0, SPAN_S), max_size=30))
def test_a_stall_of_any_length_fires_everything_once(delays: list[float]) -> None:
    wheel = Wheel(START)
    items = [Item() for _ in delays]
    for item, delay in zip(items, delays, strict=True):
        wheel.arm(item, START + delay)
    wheel.advance(START + 10 * SPAN_S)
    assert [len(item.looked_at) for item in items] == [1] * len(items)
    assert wheel.due > START + 10 * SPAN_S


def test_an_infinite_due_time_is_looked_at_once_per_span() -> None:
    wheel, item = Wheel(START), Item(lambda _now: float("inf"))
    wheel.arm(item, float("inf"))
    run(wheel, START, START + 3.5 * SPAN_S)
    assert len(item.looked_at) == 3


def test_a_disarmed_item_is_not_looked_at_and_may_be_disarmed_again() -> None:
    wheel, item = Wheel(START), Item()
    wheel.arm(item, START + 1)
    wheel.disarm(item)
    wheel.disarm(item)
    run(wheel, START, START + 2 * SPAN_S)
    assert item.looked_at == []
    assert item.slot == UNARMED


def test_an_item_may_disarm_another_one_of_its_own_tick() -> None:
    wheel = Wheel(START)
    pair = [Item(), Item()]
    for item, other in ((pair[0], pair[1]), (pair[1], pair[0])):

        def disarm_other(_now: float, other: Item = other) -> float:
            wheel.disarm(other)
            return 0.0

        item.act = disarm_other
        wheel.arm(item, START + 1)
    run(wheel, START, START + 2)
    assert sum(len(item.looked_at) for item in pair) == 1


def test_an_item_may_arm_itself_while_it_is_looked_at() -> None:
    wheel, item = Wheel(START), Item()

    def again(now: float) -> float:
        wheel.arm(item, now + 1)
        return 0.0

    item.act = again
    wheel.arm(item, START)
    run(wheel, START, START + 5)
    assert len(item.looked_at) in {4, 5}


def test_an_item_that_raises_is_told_and_the_others_are_still_looked_at() -> None:
    def broken(_now: float) -> float:
        raise ValueError("broken")

    wheel = Wheel(START)
    items = [Item(broken if n == 1 else lambda _now: 0.0) for n in range(3)]
    for item in items:
        wheel.arm(item, START + 1)
    run(wheel, START, START + 2)
    assert [len(item.looked_at) for item in items] == [1, 1, 1]
    assert [len(item.failures) for item in items] == [0, 1, 0]


def test_an_alarm_that_raises_ends_the_worker() -> None:
    def broken(_now: float) -> float:
        raise ValueError("broken")

    wheel = Wheel(START)
    Alarm(wheel, START, broken)
    with pytest.raises(ValueError, match="broken"):
        run(wheel, START, START + 1)

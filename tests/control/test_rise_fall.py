"""When a server is up: so many successes in a row, until so many failures in a row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.config_health import Health
from control.health.rise_fall import Before, RiseFall


def states(conf: Health, before: Before, results: list[bool]) -> list[bool]:
    state = RiseFall(conf, before)
    up = []
    for ok in results:
        state.record(ok=ok)
        up.append(state.up)
    return up


@given(
    rise=st.integers(1, 6),
    fall=st.integers(1, 6),
    before=st.sampled_from(["up", "down"]),
    results=st.lists(st.booleans(), max_size=60),
)
def test_rise_successes_and_fall_failures_in_a_row_decide_and_nothing_else(
    rise: int, fall: int, before: Before, results: list[bool]
) -> None:
    up, row, expected = before == "up", 0, []
    for ok in results:
        row = row + 1 if ok != up else 0
        if row == (fall if up else rise):
            up, row = not up, 0
        expected.append(up)
    assert states(Health(rise=rise, fall=fall), before, results) == expected


@given(fall=st.integers(1, 6), rise=st.integers(1, 6), ok=st.booleans())
def test_the_first_result_decides_on_a_server_of_which_nothing_is_known(
    fall: int, rise: int, ok: bool
) -> None:
    conf = Health(rise=rise, fall=fall)
    assert RiseFall(conf, "unchecked").up
    assert not RiseFall(conf, "added").up
    assert states(conf, "unchecked", [ok]) == states(conf, "added", [ok]) == [ok]
    failures = [True] + [False] * fall
    assert states(conf, "added", failures) == [True] * fall + [False], "it is as any other then"


@pytest.mark.parametrize(
    ("results", "seconds"),
    [
        ([], 8.0),
        ([True], 8.0),
        ([False], 2.0),
        ([False, False], 32.0),
        ([False, False, True], 2.0),
        ([False, False, True, True], 8.0),
        ([False, True], 8.0),
    ],
)
def test_the_interval_is_short_in_doubt_and_another_while_down(
    results: list[bool], seconds: float
) -> None:
    conf = Health(inter_s=8, fast_inter_s=2, down_inter_s=32, rise=2, fall=2, jitter_percent=0)
    state = RiseFall(conf, "up")
    for ok in results:
        state.record(ok=ok)
    assert state.interval_s() == seconds
    assert state.hurried_interval_s == 2.0


def test_the_interval_is_the_same_for_all_unless_others_are_given() -> None:
    state = RiseFall(Health(inter_s=3, rise=2, fall=2, jitter_percent=0), "up")
    for ok in (False, False, True):
        state.record(ok=ok)
        assert state.interval_s() == 3.0


@given(percent=st.integers(0, 50))
def test_jitter_stays_within_its_part(percent: int) -> None:
    state = RiseFall(Health(inter_s=10, jitter_percent=percent), "up")
    drawn = [state.interval_s() for _ in range(50)]
    assert all(10 - percent / 10 <= seconds <= 10 + percent / 10 for seconds in drawn)
    assert percent == 0 or len(set(drawn)) > 1

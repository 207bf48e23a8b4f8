"""Maglev's table: full, fair, the same everywhere, and quiet when a server goes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.maglev import Table, key_of

KEYS = [key_of(b"10.%d.%d.%d" % (i >> 16, i >> 8 & 255, i & 255)) for i in range(20_000)]


def servers(count: int, weight: int = 100) -> list[tuple[str, int]]:
    return [(f"10.1.0.{i + 1}:6379", weight) for i in range(count)]


def choice(listed: list[tuple[str, int]]) -> list[str]:
    """Return the server of each key."""
    table = Table(listed)
    return [listed[next(table.from_key(key))][0] for key in KEYS]


@settings(max_examples=50)
@given(weights=st.lists(st.integers(1, 65_535), min_size=1, max_size=30))
def test_every_slot_is_filled_and_nobody_with_a_fair_weight_is_left_out(weights: list[int]) -> None:
    listed = [(f"s{i}", weight) for i, weight in enumerate(weights)]
    table = Table(listed)
    slots = Counter(table.slots)
    assert slots.total() == table.size
    assert set(slots) <= set(range(len(weights)))
    for index, weight in enumerate(weights):
        fair = table.size * weight / sum(weights)
        assert abs(slots[index] - fair) <= 0.02 * fair + 2


@given(key=st.integers(0, 2**64), count=st.integers(1, 12))
def test_the_slots_behind_a_keys_own_lead_to_every_server(key: int, count: int) -> None:
    table = Table(servers(count))
    walk = list(table.from_key(key))
    assert len(walk) == table.size
    assert walk[0] == table.slots[key % table.size]
    assert set(walk) == set(range(count))


def test_the_same_servers_make_the_same_table() -> None:
    assert Table(servers(7)).slots == Table(servers(7)).slots
    assert key_of(b"\x7f\0\0\1") == 0x9455EFE666868CD5, "in every process, and for ever"


@pytest.mark.parametrize("gone", range(10))
def test_when_one_of_ten_servers_goes_few_clients_of_the_others_move(gone: int) -> None:
    """docs/configuration.md tells the number."""
    before = choice(servers(10))
    left = [server for i, server in enumerate(servers(10)) if i != gone]
    after = choice(left)
    name = servers(10)[gone][0]
    lost = sum(old == name for old in before)
    moved = sum(old not in {name, new} for old, new in zip(before, after, strict=True))
    others = len(KEYS) - lost
    print(
        f"1 of 10 gone: {lost / len(KEYS):.1%} were its own, {moved / others:.2%} of others moved"
    )
    assert abs(lost / len(KEYS) - 0.1) < 0.01
    assert moved / others < 0.02

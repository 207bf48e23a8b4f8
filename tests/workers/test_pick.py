"""The choice of a server: by the balance and the weights, and never one that was tried."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis import config_backend
from aegis.messages import ServerWish
from workers.backend import Backend, Tried
from workers.target import Server

BALANCES = ("round_robin", "roundrobin", "least_conn", "leastconn", "random", "first", "source")


def address(index: int) -> str:
    return f"127.0.0.1:{index + 1}"


def wishes(weights: Sequence[int], backups: Sequence[int] = ()) -> list[ServerWish]:
    return [ServerWish(address(i), w, backup=i in backups) for i, w in enumerate(weights)]


def backend_of(
    weights: Sequence[int], balance: str = "round_robin", slot: int = 0, backups: Sequence[int] = ()
) -> Backend:
    made = Backend(config_backend.Backend(name="db", balance=balance), slot)  # type: ignore[arg-type]
    made.apply(wishes(weights, backups), {})
    return made


def indexes(servers: Sequence[Server | None]) -> list[int]:
    return [server.address.sockaddr[1] - 1 for server in servers if server is not None]  # type: ignore[operator]


def picks(backend: Backend, count: int, tried: Tried = (), key: int = 0) -> list[int]:
    return indexes([backend.pick(tried, key) for _ in range(count)])


def servers(backend: Backend) -> list[Server]:
    return list(backend.servers.values())


def test_round_robin_goes_around() -> None:
    assert picks(backend_of([1, 1, 1]), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_by_weight_is_smooth() -> None:
    assert picks(backend_of([5, 1, 1]), 14) == [0, 0, 1, 0, 2, 0, 0] * 2


def test_workers_start_at_different_servers() -> None:
    assert [picks(backend_of([1, 1, 1], slot=slot), 2) for slot in range(4)] == [
        [0, 1],
        [1, 2],
        [2, 0],
        [0, 1],
    ]


def test_a_weight_that_grows_does_not_begin_the_round_anew() -> None:
    backend = backend_of([100, 100])
    chosen = []
    for weight in range(1, 101):
        backend.apply(wishes([100, weight]), {})
        chosen += picks(backend, 1)
    assert Counter(chosen)[1] in range(30, 37), "about a third: 0 to 100 against 100"


def test_least_conn_takes_the_emptiest_and_ties_rotate() -> None:
    backend = backend_of([1, 1, 1], "least_conn")
    assert picks(backend, 4) == [0, 1, 2, 0]
    for server, connections in zip(servers(backend), (5, 1, 4), strict=True):
        server.figures.connections = connections
    assert picks(backend, 3) == [1, 1, 1]


def test_least_conn_counts_the_weight() -> None:
    backend = backend_of([3, 1], "leastconn")
    for _ in range(8):
        picked = backend.pick()
        assert picked is not None
        picked.figures.connections += 1
    assert [server.figures.connections for server in servers(backend)] == [6, 2]


def test_random_draws_two_by_weight_and_takes_the_emptier() -> None:
    backend = backend_of([1, 1], "random")
    servers(backend)[0].figures.connections = 9
    counts = Counter(picks(backend, 2000))
    assert 350 < counts[0] < 650, "only where both draws are the fuller one: a quarter"
    assert Counter(picks(backend_of([3, 1], "random"), 2000))[0] > 1200


def test_first_fills_the_servers_in_order() -> None:
    backend = backend_of([1, 1, 1], "first")
    for server in servers(backend)[:2]:
        backend.set_server_limit(server, 2)
    chosen = []
    for _ in range(6):
        picked = backend.pick()
        assert picked is not None
        picked.figures.connections += 1
        chosen.append(picked)
    assert indexes(chosen) == [0, 0, 1, 1, 2, 2]


def test_source_gives_the_same_client_the_same_server_in_every_worker() -> None:
    backends = [backend_of([1] * 7, "source", slot=slot) for slot in range(3)]
    keys = range(0, 10**6, 9973)
    chosen = [[picks(backend, 1, key=key)[0] for key in keys] for backend in backends]
    assert chosen[0] == chosen[1] == chosen[2]
    assert set(chosen[0]) == set(range(7))


def test_source_goes_on_to_another_server_where_its_own_was_tried() -> None:
    backend = backend_of([1] * 4, "source")
    first = backend.pick((), 12345)
    assert first is not None
    second = backend.pick((first,), 12345)
    assert second is not None
    assert second is not first
    assert backend.pick((first,), 12345) is second


def test_backups_serve_only_when_no_other_server_does() -> None:
    backend = backend_of([1, 1, 1], backups=[2])
    assert set(picks(backend, 20)) == {0, 1}
    backend.apply(wishes([0, 0, 1], [2]), {})
    assert set(picks(backend, 20)) == {2}
    backend.apply(wishes([0, 1, 1], [2]), {})
    assert set(picks(backend, 20)) == {1}


def test_a_session_that_has_tried_all_others_gets_a_backup() -> None:
    backend = backend_of([1, 1, 1], backups=[0])
    assert picks(backend, 1, tried=tuple(servers(backend)[1:])) == [0]


def test_a_server_without_weight_gets_nobody() -> None:
    backend = backend_of([1, 0, 1])
    assert set(picks(backend, 20)) == {0, 2}
    assert backend.pick(tuple(servers(backend)[::2])) is None


def test_a_server_that_is_not_wanted_any_more_stays_until_it_has_nothing_left() -> None:
    backend = backend_of([1, 1])
    gone = servers(backend)[0]
    backend.opened(gone)
    backend.apply(wishes([1, 1])[1:], {})
    assert set(picks(backend, 5)) == {1}
    assert backend.leaving() == [gone]
    assert not gone.wanted
    backend.apply(wishes([1, 1]), {})
    assert backend.leaving() == []
    assert set(picks(backend, 5)) == {0, 1}


@pytest.mark.parametrize("balance", BALANCES)
@given(
    weights=st.lists(st.integers(0, 300), min_size=1, max_size=40),
    slot=st.integers(0, 100),
    data=st.data(),
)
def test_a_tried_server_is_never_picked_again_and_every_other_one_is_in_the_end(
    balance: str, weights: list[int], slot: int, data: st.DataObject
) -> None:
    backups = data.draw(st.sets(st.integers(0, len(weights) - 1)))
    backend = backend_of(weights, balance, slot, sorted(backups))
    for server in servers(backend):
        server.figures.connections = data.draw(st.integers(0, 3))
    usable = {server for server in servers(backend) if server.weight}
    tried: Tried = ()
    while (picked := backend.pick(tried, data.draw(st.integers(0, 2**64)))) is not None:
        assert picked not in tried
        tried = (*tried, picked)
    assert set(tried) == usable
    ordinary = sum(1 for server in usable if not server.wish.backup)
    assert not any(server.wish.backup for server in tried[:ordinary])

"""The choice of a server: in turn or the emptiest, and never one that was tried."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis import config
from workers.backend import Backend

Balance = Literal["round_robin", "least_conn"]
BALANCES: tuple[Balance, ...] = ("round_robin", "least_conn")


def backend_of(count: int, balance: Balance = "round_robin", slot: int = 0) -> Backend:
    servers = tuple(f"127.0.0.1:{port}" for port in range(1, count + 1))
    return Backend(config.Backend(name="db", servers=servers, balance=balance), slot)


def picks(backend: Backend, count: int, tried: int = 0) -> list[int]:
    chosen = [backend.pick(tried) for _ in range(count)]
    return [backend.servers.index(server) for server in chosen if server is not None]


def test_round_robin_goes_around() -> None:
    assert picks(backend_of(3), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_workers_start_at_different_servers() -> None:
    assert [picks(backend_of(3, slot=slot), 2) for slot in range(4)] == [
        [0, 1],
        [1, 2],
        [2, 0],
        [0, 1],
    ]


def test_least_conn_takes_the_emptiest_and_ties_rotate() -> None:
    backend = backend_of(3, "least_conn")
    assert picks(backend, 4) == [0, 1, 2, 0]
    for server, connections in zip(backend.servers, (5, 1, 4), strict=True):
        server.figures.connections = connections
    assert picks(backend, 3) == [1, 1, 1]


@pytest.mark.parametrize("balance", BALANCES)
@given(count=st.integers(1, 70), slot=st.integers(0, 100), data=st.data())
def test_a_tried_server_is_never_picked_again_and_every_other_one_is_in_the_end(
    balance: Balance, count: int, slot: int, data: st.DataObject
) -> None:
    backend = backend_of(count, balance, slot)
    for server in backend.servers:
        server.figures.connections = data.draw(st.integers(0, 3))
    tried = data.draw(st.integers(0, (1 << count) - 1))
    left = count - tried.bit_count()
    for _ in range(left):
        picked = backend.pick(tried)
        assert picked is not None
        assert not picked.bit & tried
        tried |= picked.bit
    assert backend.pick(tried) is None

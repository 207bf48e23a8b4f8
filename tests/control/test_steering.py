"""The kernel gives new connections to the slots that are allowed, whatever has closed before."""

import contextlib
import random
import socket
from collections.abc import Iterator

import pytest

from control.sockets import open_listener
from control.steering import Group, listens
from tests.control.test_sockets import free_address


class Bench:
    """A group of listening sockets by slot, and clients."""

    def __init__(self, own: contextlib.ExitStack, host: str = "127.0.0.1") -> None:
        self._own = own
        self._address = free_address(own, host)
        self.group = Group([])
        self.sockets: dict[int, socket.socket] = {}

    def open(self, slot: int) -> None:
        sock = self._own.enter_context(open_listener(self._address, "listener"))
        self.sockets[slot] = sock
        sock.listen(128)
        self.group.began(slot)

    def shut(self, slot: int) -> None:
        self.sockets[slot].shutdown(socket.SHUT_RD)

    def chosen(self, clients: int = 60, source: str = "") -> set[int]:
        """Return the slots that new connections have gone to, from an address if one is given."""
        with contextlib.ExitStack() as own:
            for _ in range(clients):
                to: tuple[str, int] = self._address.sockaddr[:2]  # type: ignore[assignment]
                own.enter_context(socket.create_connection(to, 20, (source, 0) if source else None))
            return {slot for slot in self.sockets if self._accept_all(slot)}

    def _accept_all(self, slot: int) -> int:
        accepted = 0
        while listens(self.sockets[slot]):
            try:
                self.sockets[slot].accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
        return accepted


@pytest.fixture
def bench() -> Iterator[Bench]:
    with contextlib.ExitStack() as own:
        yield Bench(own)


def test_only_allowed_slots_get_connections_and_then_all_do_again(bench: Bench) -> None:
    for slot in range(4):
        bench.open(slot)
    bench.group.steer(bench.sockets, {1, 3})
    assert bench.chosen() == {1, 3}
    bench.group.steer(bench.sockets, {0, 1, 2, 3})
    assert bench.chosen(200) == {0, 1, 2, 3}
    bench.group.steer(bench.sockets, set())
    assert bench.chosen(200) == {0, 1, 2, 3}, "with nobody allowed all are as good"


def test_the_last_moves_into_the_place_of_one_that_closes(bench: Bench, rng: random.Random) -> None:
    for slot in range(6):
        bench.open(slot)
    left = set(bench.sockets)
    for slot in rng.sample(sorted(left), 4):
        bench.group.steer(bench.sockets, left - {slot})
        assert bench.chosen() == left - {slot}
        bench.shut(slot)
        left.remove(slot)
        bench.group.steer(bench.sockets, left)
    assert bench.group.order is not None
    bench.open(9)
    bench.group.steer(bench.sockets, {9})
    assert bench.chosen() == {9}


def test_an_order_that_is_not_known_is_not_steered_by(bench: Bench) -> None:
    for slot in range(5):
        bench.open(slot)
    bench.group.steer(bench.sockets, {0, 1})
    bench.shut(0)
    bench.shut(2)  # in which order is anybody's guess
    bench.group.steer(bench.sockets, {1})
    assert bench.group.order is None
    assert bench.chosen(200) == {1, 3, 4}
    bench.shut(3)
    bench.shut(4)
    bench.group.steer(bench.sockets, {1})
    assert bench.group.order == [1], "one alone can be in one place only"


def test_a_program_that_is_out_of_date_loses_nobody(bench: Bench) -> None:
    for slot in range(3):
        bench.open(slot)
    bench.group.steer(bench.sockets, {2})
    bench.shut(0)
    assert bench.chosen() <= {1, 2}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_by_its_address_a_client_always_comes_to_the_same_slot(host: str) -> None:
    with contextlib.ExitStack() as own:
        bench = Bench(own, host)
        bench.group.by_source = True
        for slot in range(4):
            bench.open(slot)
            bench.group.steer(bench.sockets, {0, 1, 2, 3})
        assert len(bench.chosen()) == 1


def test_many_addresses_are_spread_evenly_and_each_stays_where_it_is(bench: Bench) -> None:
    bench.group.by_source = True
    for slot in range(4):
        bench.open(slot)
    bench.group.steer(bench.sockets, {0, 1, 2, 3})
    places = [bench.chosen(3, f"127.0.{i // 200}.{i % 200 + 1}") for i in range(400)]
    assert {len(place) for place in places} == {1}
    counts = [places.count({slot}) for slot in range(4)]
    assert min(counts) > 60, counts
    bench.group.steer(bench.sockets, {1, 3})
    assert bench.chosen(3, "127.0.0.1") | bench.chosen(3, "127.0.0.2") <= {1, 3}
    bench.group.steer(bench.sockets, {0, 1, 2, 3})
    assert bench.chosen(3, "127.0.1.7") == places[206]

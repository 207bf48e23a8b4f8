"""What one address may have: counted exactly, forgotten when nothing is left to remember."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.access import site_of
from aegis.figures import Figures
from workers.clients import Clients
from workers.kernel_pipes import KernelPipes
from workers.loop import Loop
from workers.slab import Slabs


class Clock(Loop):
    """A loop whose time the test moves; its wheel turns with it."""

    def __init__(self) -> None:
        figures = Figures(0, 1, "serving", [], [], 2)
        super().__init__(Slabs(2, 64, figures), KernelPipes(0, figures), figures)
        self.began = self.now

    def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:  # a wheel spans 51 s
            self.now = min(until, self.now + 10.0)
            self.wheel.advance(self.now)


def test_a_key_is_an_address_or_its_sixty_four_bits() -> None:
    assert site_of("10.0.0.1") == site_of("10.0.0.1") != site_of("10.0.0.2")
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:0:1") != site_of("2001:db8:0:1::1")
    assert site_of("::") != site_of("0.0.0.0")
    assert site_of("fe80::1%lo") == site_of("fe80::2")


def test_so_many_at_once_and_no_more() -> None:
    clients = Clients(3, 0.0, 0, Clock())
    assert [clients.admit(1) for _ in range(4)] == [None, None, None, "client_limit"]
    assert clients.admit(2) is None
    clients.left(1)
    assert [clients.admit(1), clients.admit(1)] == [None, "client_limit"]


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    clients = Clients(0, 2.0, 5, clock)
    assert [clients.admit(1) for _ in range(7)] == [None] * 5 + ["client_rate"] * 2
    clock.pass_by(1.0)
    assert [clients.admit(1) for _ in range(3)] == [None, None, "client_rate"]
    clock.pass_by(100.0)
    assert [clients.admit(1) for _ in range(6)] == [None] * 5 + ["client_rate"]


@pytest.mark.parametrize(("rate", "burst"), [(0.5, 1), (1.0, 1), (7.5, 7)])
def test_without_a_burst_it_is_what_a_second_brings(rate: float, burst: int) -> None:
    clients = Clients(0, rate, 0, Clock())
    assert Counter(clients.admit(1) for _ in range(20))[None] == burst


def test_who_is_refused_for_too_many_does_not_use_the_rate_up() -> None:
    clock = Clock()
    clients = Clients(1, 1.0, 2, clock)
    reasons = [clients.admit(1) for _ in range(5)]
    assert reasons == [None, *["client_limit"] * 4]
    clients.left(1)
    assert clients.admit(1) is None, "the second of two"


@given(seed=st.integers(0, 2**32), rate=st.sampled_from([0.5, 3.0, 50.0]), burst=st.integers(1, 9))
def test_over_any_time_no_more_come_than_burst_and_rate_allow(
    seed: int, rate: float, burst: int
) -> None:
    rng, clock = random.Random(seed), Clock()
    clients = Clients(0, rate, burst, clock)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(300):
        key = rng.choice([1, 2])
        if clients.admit(key) is None:
            times[key].append(clock.now)
            if rng.random() < 0.8:
                clients.left(key)
        clock.pass_by(rng.choice([0.0, 0.0, 0.01, 0.3]))
    for came in times.values():
        for i, first in enumerate(came):
            for j in range(i, len(came)):
                assert j - i + 1 <= burst + rate * (came[j] - first) + 1e-6


def test_who_has_left_is_forgotten_once_its_bucket_is_full() -> None:
    clock = Clock()
    clients = Clients(2, 1.0, 10, clock)
    for key in range(1000):
        assert clients.admit(key) is None
    assert len(clients) == 1000
    for key in range(500):
        clients.left(key)
    clock.pass_by(30.0)
    assert len(clients) == 500
    for key in range(500, 1000):
        clients.left(key)
    clock.pass_by(30.0)
    assert len(clients) == 0
    assert clients._idle == type(clients._idle)()


def test_who_comes_and_goes_all_the_time_is_remembered_once() -> None:
    clock = Clock()
    clients = Clients(0, 100.0, 1000, clock)
    for _ in range(500):
        assert clients.admit(1) is None
        clients.left(1)
        clock.pass_by(0.01)
    assert len(clients._idle) == 1
    clock.pass_by(60.0)
    assert len(clients) == 0


def test_without_a_rate_nobody_is_remembered() -> None:
    clients = Clients(2, 0.0, 0, Clock())
    assert clients.admit(1) is None
    clients.left(1)
    assert len(clients) == 0

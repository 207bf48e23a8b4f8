"""A seat and what becomes of processes that die; the clock is the test's, the processes are real.

`tick` and `reap` are told the time, so an hour passes without waiting for it.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from time import monotonic

import pytest

from aegis.limits import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    FLAPPING_DEATHS,
    FLAPPING_WINDOW_S,
    STABLE_AFTER_S,
    WORKER_START_DEADLINE_S,
)
from control.process import Process
from control.seat import Seat

SLEEPER = ["sleep", "1000"]


class Bench:
    """A seat whose processes run `command`."""

    def __init__(self) -> None:
        self.command = SLEEPER
        self.started: list[subprocess.Popen[bytes]] = []
        self.seat = Seat("worker 0", 0, self._spawn)
        self.now = monotonic()

    def _spawn(self, seat: Seat) -> Process:
        child = subprocess.Popen(self.command)
        self.started.append(child)
        return Process(child.pid, os.pidfd_open(child.pid), child)

    def tick(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.seat.tick(self.now, start=True)

    def current(self) -> Process:
        assert self.seat.current is not None
        return self.seat.current

    def die(self, number: signal.Signals | int = signal.SIGKILL) -> None:
        """Kill what sits there and let the seat find out."""
        process = self.current()
        os.kill(process.pid, number)
        assert process.wait(20)
        self.seat.reap(self.now, expected=False)

    def delay(self) -> float:
        """Return how long the seat waits until it starts the next one, in steps of 10 ms."""
        waited = 0.0
        while self.seat.current is None:
            self.tick(0.01)
            waited += 0.01
        return waited


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for process in made.seat.processes:
        process.close()
    for child in made.started:
        child.kill()
        child.wait()


def test_the_first_replacement_is_at_once(bench: Bench) -> None:
    bench.tick()
    first = bench.current().pid
    bench.die()
    assert bench.seat.state == "backoff"
    bench.tick()
    assert bench.current().pid != first
    assert (bench.seat.state, bench.seat.restarts) == ("running", 1)


def test_later_replacements_wait_twice_as_long_each_up_to_a_limit(bench: Bench) -> None:
    delays = []
    bench.tick()
    for _ in range(10):
        bench.die()
        delays.append(bench.delay())
    expected = [0.0] + [min(BACKOFF_MIN_S * 2**n, BACKOFF_MAX_S) for n in range(9)]
    assert delays == pytest.approx(expected, abs=0.02)


def test_many_deaths_in_a_short_time_are_flapping_and_one_fewer_is_not(bench: Bench) -> None:
    bench.tick()
    for _ in range(FLAPPING_DEATHS - 1):
        bench.die()
        bench.delay()
        assert bench.seat.state == "running"
    bench.die()
    assert bench.seat.state == "flapping"


def test_the_same_deaths_over_a_long_time_are_not_flapping(bench: Bench) -> None:
    bench.tick()
    for _ in range(2 * FLAPPING_DEATHS):
        bench.tick(FLAPPING_WINDOW_S / (FLAPPING_DEATHS - 1))
        bench.die()
        bench.delay()
        assert not bench.seat.flapping


def test_a_flapping_seat_is_still_tried_and_is_well_again_once_it_is_stable(bench: Bench) -> None:
    bench.tick()
    for _ in range(FLAPPING_DEATHS):
        bench.die()
        bench.delay()
    bench.current().serving_since = bench.now
    states = []
    for after_s in (STABLE_AFTER_S, 0.1):
        bench.tick(after_s)
        states.append(bench.seat.state)
    assert states == ["flapping", "running"]
    bench.die()
    assert bench.delay() < BACKOFF_MIN_S, "with a clean record the replacement is at once"


def test_a_start_that_fails_counts_as_a_death(bench: Bench) -> None:
    bench.command = ["/nonexistent/program"]
    bench.tick()
    assert bench.seat.current is None
    assert bench.seat.restarts == 1
    assert "cannot start" in bench.seat.last_exit
    bench.command = SLEEPER
    bench.tick()
    assert bench.seat.state == "running"


def test_an_end_that_was_asked_for_is_no_death(bench: Bench) -> None:
    bench.tick()
    process = bench.current()
    process.signal(signal.SIGTERM)
    assert process.wait(20)
    assert bench.seat.reap(bench.now, expected=True) == [process]
    assert (bench.seat.restarts, bench.seat.last_exit) == (0, "")


def test_the_end_of_a_retired_process_is_no_death(bench: Bench) -> None:
    bench.tick()
    process = bench.current()
    bench.seat.current = None
    bench.seat.retiring.append(process)
    process.signal(signal.SIGKILL)
    assert process.wait(20)
    assert bench.seat.reap(bench.now, expected=False) == [process]
    assert (bench.seat.restarts, bench.seat.processes) == (0, [])


def test_nothing_is_started_when_nothing_is_wanted(bench: Bench) -> None:
    bench.seat.tick(bench.now, start=False)
    assert bench.seat.current is None


def test_a_process_that_never_gets_ready_is_killed_and_replaced(bench: Bench) -> None:
    bench.tick()
    slow = bench.current()
    bench.now = slow.started
    bench.tick(WORKER_START_DEADLINE_S)
    assert not slow.wait(0)
    bench.tick(0.1)
    assert slow.wait(20)
    bench.seat.reap(bench.now, expected=False)
    bench.tick()
    assert bench.current().pid != slow.pid


@pytest.mark.parametrize("retired", [False, True])
def test_a_process_that_outlives_what_it_was_given_is_killed(bench: Bench, retired: bool) -> None:
    bench.tick()
    process = bench.current()
    process.serving_since = bench.now
    process.kill_at = bench.now + 1
    if retired:
        bench.seat.current = None
        bench.seat.retiring.append(process)
    bench.tick(1.0)
    assert not process.wait(0)
    bench.tick(0.1)
    assert process.wait(20)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["true"], "exit code 0"),
        (["false"], "exit code 1"),
        (["sh", "-c", "kill -9 $$"], "SIGKILL"),
    ],
)
def test_the_last_exit_says_how_it_ended(bench: Bench, command: list[str], words: str) -> None:
    bench.command = command
    bench.tick()
    assert bench.current().wait(20)
    bench.seat.reap(bench.now, expected=False)
    assert bench.seat.last_exit == f"pid {bench.started[0].pid} {_full(words)}"


def _full(words: str) -> str:
    return f"killed by {words}" if words.startswith("SIG") else words


def test_a_death_by_a_real_time_signal_without_a_name_is_survived(bench: Bench) -> None:
    bench.tick()
    bench.die(signal.SIGRTMIN + 1)
    assert str(signal.SIGRTMIN + 1) in bench.seat.last_exit


def test_every_process_is_forgotten_with_its_pidfd(bench: Bench) -> None:
    bench.tick()
    before = _open_fds()
    for _ in range(20):
        bench.die()
        bench.delay()
    assert _open_fds() == before


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

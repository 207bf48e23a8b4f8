"""What an exporter leaves to the next one, so that counters do not fall when it is killed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aegis import bus, metrics
from aegis.figures import Histogram
from aegis.lifecycle import Phase
from aegis.limits import FOLD_AFTER_S
from aegis.messages import SeatFigures, Supervision
from aegis.runtime import EXPORTER_LEDGER_FILE
from control.exporter.collector import all_series
from control.exporter.ledger import Ledger
from control.exporter.state import State
from tests.control.exporters import FRONT, Place, made_place
from tests.control.test_exporter_state import Clock, worker_figures
from tests.harness import wait_until


@pytest.fixture
def place() -> Iterator[Place]:
    with made_place() as place:
        yield place


def told(clock: Clock) -> Clock:
    """Tell of a worker that is gone and of one that lives."""
    for pid, phase in ((1, "stopped"), (2, "serving")):
        said: Phase = "stopped" if phase == "stopped" else "serving"
        figures = worker_figures(pid, phase=said, accepted=pid * 100)
        figures.turn_seconds = Histogram([pid] * 10, sum_s=0.5)
        clock.hear(figures)
    return clock


def test_the_next_one_knows_what_the_last_one_knew(tmp_path: Path) -> None:
    clock = told(Clock())
    Ledger(tmp_path).write(clock.state.snapshot())
    successor = State(clock.now)
    successor.restore(*Ledger(tmp_path).read())
    assert all_series(successor.snapshot(), clock.now) == clock.series
    figures = worker_figures(2, accepted=250)
    successor.receive(msgspec.msgpack.encode(figures), clock.now + 1)
    series = all_series(successor.snapshot(), clock.now + 1)
    assert series[metrics.SESSIONS, ("0", "front")] == (350,), "not counted beside its past"


def test_the_next_one_knows_how_many_exporters_had_died(tmp_path: Path) -> None:
    ledger, clock = Ledger(tmp_path), told(Clock())
    supervision = Supervision("serving", 1, [SeatFigures(-1, "running", 3)])
    clock.state.receive(msgspec.msgpack.encode(supervision), clock.now)
    ledger.write(clock.state.snapshot())
    for _ in range(2):  # the first one is gone before it has heard a controller
        successor = State(clock.now)
        successor.restore(*ledger.read())
        assert successor.snapshot().restarts_before == 3
        ledger.write(successor.snapshot())


def test_a_worker_that_died_meanwhile_keeps_what_it_had_counted(tmp_path: Path) -> None:
    clock = told(Clock())
    Ledger(tmp_path).write(clock.state.snapshot())
    successor = State(clock.now)
    successor.restore(*Ledger(tmp_path).read())
    later = clock.now + FOLD_AFTER_S + 1
    successor.receive(msgspec.msgpack.encode(Supervision("serving", 1, [])), later)
    successor.fold(later)
    assert successor.snapshot().processes == ()
    series = all_series(successor.snapshot(), later)
    assert series[metrics.SESSIONS, ("0", "front")] == (300,)


def test_a_file_that_is_foreign_or_broken_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = told(Clock())
    ledger = Ledger(tmp_path)
    ledger.write(clock.state.snapshot())
    path = tmp_path / EXPORTER_LEDGER_FILE
    good = path.read_bytes()
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    for content in (b"", b"\xc1", good[:100], good.replace(boot, boot[::-1])):
        path.write_bytes(content)
        assert ledger.read() == ({}, [], None)
    assert len(caplog.records) == 3, "another boot's is not worth a word"
    path.write_bytes(good.replace(b"aegis_sessions_total", b"aegis_something_else"))
    folded, processes, _ = ledger.read()
    assert (metrics.SESSIONS, ("0", "front")) not in folded[0]
    assert folded[0][metrics.BUS_ERRORS, ("0", "old")] == (0,)
    assert len(processes) == 1


def test_a_disk_that_is_full_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "missing")
    for _ in range(3):
        ledger.write(Clock().state.snapshot())
    assert len(caplog.records) == 1


def test_counters_go_on_when_the_exporter_and_a_worker_are_gone(place: Place) -> None:
    first = place.serving()
    sock = place.push_socket()
    bus.send(sock, worker_figures(1, phase="stopped", accepted=100))
    bus.send(sock, worker_figures(2, accepted=20))
    first.await_accepted(120)
    kept = place.directory / EXPORTER_LEDGER_FILE
    written = kept.stat().st_mtime_ns if kept.exists() else 0
    wait_until(lambda: kept.exists() and kept.stat().st_mtime_ns > written, "the next file")
    for number in (signal.SIGKILL, signal.SIGTERM):
        first.end(number)
        assert kept.exists()
        first = place.serving()  # which answers once all that lives has had time to speak
        assert first.series()["aegis_sessions_total", FRONT] == 120
    bus.send(place.push_socket(), worker_figures(2, accepted=21))
    first.await_accepted(121)


def test_the_file_goes_with_the_last_worker(place: Place) -> None:
    exporter = place.serving()
    kept = place.directory / EXPORTER_LEDGER_FILE
    wait_until(kept.exists, "the file")
    bus.send(place.push_socket(), worker_figures(1, accepted=1))
    exporter.await_accepted(1)
    bus.send(place.push_socket(), worker_figures(1, phase="stopped", accepted=2))
    exporter.await_accepted(2)
    assert exporter.end() == 0
    assert not kept.exists()
    assert not kept.with_suffix(".new").exists()

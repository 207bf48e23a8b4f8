"""What an exporter leaves to the next one of its charts and events."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest

from aegis import bus
from aegis.limits import HISTORY_S
from aegis.messages import SeatFigures, Supervision
from aegis.runtime import EXPORTER_HISTORY_FILE
from control.exporter.memory import Kept, Memory
from control.exporter.picture import Event
from tests.control.exporters import Exporter, Place, made_place
from tests.control.test_exporter_state import worker_figures
from tests.harness import wait_until

FORM = ["1", "connect"]
WALL = 1_700_000_000.0


def raw(*ats: float) -> msgspec.Raw:
    return msgspec.Raw(
        msgspec.json.encode([[at, [1, 2.5, None], [[None] * 3], [[0, 1, 2, 3]]] for at in ats])
    )


@pytest.fixture
def place() -> Iterator[Place]:
    with made_place() as place:
        yield place


def test_what_is_older_than_the_charts_go_back_or_yet_to_come_is_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path, FORM)
    assert memory.read(WALL) == Kept()
    events = [Event(WALL - 5, "phase", "good", "was"), Event(WALL + 9, "phase", "good", "will be")]
    memory.write(raw(WALL - HISTORY_S, WALL - 5, WALL + 9), events)
    kept = Memory(tmp_path, FORM).read(WALL)
    assert [point[0] for point in kept.points] == [WALL - 5]
    assert kept.events == events[:1]
    memory.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_version_or_of_nonsense_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(tmp_path, FORM)
    memory.write(raw(WALL), [])
    assert Memory(tmp_path, ["2", "connect"]).read(WALL) == Kept()
    assert caplog.records == []
    for content in (b"", b"[]", b'{"points":[[1]]}', b"\xff", b"[" * 100_000):
        (tmp_path / EXPORTER_HISTORY_FILE).write_bytes(content)
        assert memory.read(WALL) == Kept()
    assert len(caplog.records) == 5
    Memory(tmp_path / "missing", FORM).write(raw(), [])


def told(exporter: Exporter) -> list[str]:
    return [event["text"] for event in json.loads(exporter.ask("/status.json").text)["events"]]


def first_point(place: Place) -> float:
    """Return the oldest instant in the file."""
    path = place.directory / EXPORTER_HISTORY_FILE
    kept: Any = json.loads(path.read_bytes()) if path.exists() else {}
    return kept["points"][0][0] if kept.get("points") else 0.0


def test_charts_and_events_go_on_when_the_exporter_is_killed_or_replaced(place: Place) -> None:
    sock, begun = place.push_socket(), time()
    exporter = place.serving()

    def drained() -> bool:
        bus.send(sock, Supervision("drained", 1, [SeatFigures(0, "running", 0)]))
        return "Aegis is drained" in told(exporter)

    bus.send(sock, Supervision("serving", 1, [SeatFigures(0, "running", 0)]))
    bus.send(sock, worker_figures(1))
    wait_until(lambda: '"phase": "serving"' in exporter.ask("/status.json").text, "the controller")
    wait_until(drained, "an event")
    assert exporter.end() == 0
    first = first_point(place)
    assert begun - 1 < first < time()
    for number in (signal.SIGKILL, signal.SIGTERM):
        exporter = place.serving()
        assert told(exporter).count("Aegis is drained") == 1
        bus.send(place.push_socket(), worker_figures(1))
        exporter.end(number)
        assert first_point(place) == first


def test_with_no_worker_left_nothing_is_kept(place: Place) -> None:
    exporter = place.serving()
    wait_until((place.directory / EXPORTER_HISTORY_FILE).exists, "the file")
    assert exporter.end() == 0
    assert not (place.directory / EXPORTER_HISTORY_FILE).exists()

"""What `aegis-ctl top` makes of a picture: order, width, height, and numbers with units."""

import pytest
from rich.console import Console

from control.ctl.top_screen import SORTS, Shown, rate, screen, seconds, share, size
from control.exporter.picture import (
    Backend,
    Event,
    Finding,
    Lane,
    Pool,
    Quantiles,
    Server,
    Traffic,
)


def lane(slot: int, **more: object) -> Lane:
    fields: dict[str, object] = {
        "slot": slot, "pid": 100 + slot, "cpu": slot, "phase": "serving", "state": "running",
        "retired": False, "restarts": 0, "epoch": 3, "heard_s": 0.5, "load": 0.1,
        "lag_s": 0.001, "sessions": 1, "sessions_per_s": 1.0, "memory_bytes": 40_000_000,
        "slabs": 256, "slabs_used": 0, "slab_shortages_per_s": 0.0,
    }  # fmt: skip
    return Lane(**(fields | more))  # type: ignore[arg-type]


def picture(lanes: list[Lane], events: int = 0) -> Shown:
    times = Quantiles("connect"), Quantiles("answer", 1.0, 0.002, 0.125)
    server = Server("10.0.0.5:6379", "down", 0.0, "ECONNREFUSED", 7, 8.0, 9.0, *times)
    pool = Pool("resp", {"idle": 2, "alone": 1}, 0.0, None, 41, {}, 0.0, {}, 0.0, {})
    return Shown(
        at=0.0, version="1", phase="serving", epoch=3, unhealthy="", not_ready="",
        findings=[Finding("server", "bad", "Server 10.0.0.5:6379 of db is down: ECONNREFUSED")],
        total=Traffic("", 123_456, 7_890.0, None, 1e6, 2e9),
        latency=[Quantiles("connect", 1.0, 0.001, 0.25, 0.5)],
        workers=lanes,
        listeners=[Traffic("front", 5, 6.0, None, 7.0, 8.0, {"connect_failed": 4.0})],
        backends=[Backend("db", 32, 32, 12, 1.5, [server], [pool])],
        events=[Event(i, "restart", "bad", f"event {i}") for i in range(events)],
    )  # fmt: skip


def shown(now: Shown, sort: str = "slot", width: int = 140, height: int | None = None) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(screen(now, sort, width, height))
    return captured.get().splitlines()


def workers_of(lines: list[str]) -> list[str]:
    start = next(i for i, line in enumerate(lines) if line.startswith("worker"))
    return [line.split()[0] for line in lines[start + 1 : lines.index("", start)]]


def test_what_stands_out_comes_first_and_every_part_is_there() -> None:
    lines = shown(picture([lane(0)], events=2))
    assert "123,456 sessions · 7,890 new/s" in lines[0]
    assert "from clients 1 MB/s · from servers 2 GB/s · connect p99 250 ms" in lines[0]
    assert lines[1] == "! Server 10.0.0.5:6379 of db is down: ECONNREFUSED"
    whole = "\n".join(lines)
    for word in ("connect_failed 4/s", "db/10.0.0.5:6379", "2 idle 1 alone", " 41 ", "1.5 s"):
        assert word in whole
    assert " 2 ms " in whole, "the server's median"
    assert " 125 ms " in whole, "the server's p99"
    assert whole.index("event 1") < whole.index("event 0"), "the newest first"


@pytest.mark.parametrize(
    ("sort", "first"),
    [("slot", "0"), ("load", "2"), ("lag", "2"), ("sessions", "1"), ("rate", "1"),
     ("memory", "2")],
)  # fmt: skip
def test_workers_are_sorted_as_asked(sort: str, first: str) -> None:
    lanes = [
        lane(0),
        lane(1, sessions=50, sessions_per_s=9.0),
        lane(2, load=0.9, lag_s=0.5, memory_bytes=90_000_000),
    ]
    assert workers_of(shown(picture(lanes), sort))[0] == first
    assert sort in SORTS


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 250])
def test_no_line_is_wider_than_the_terminal_and_the_first_column_is_whole(width: int) -> None:
    lines = shown(picture([lane(0), lane(1)]), width=width)
    assert max(map(len, lines)) <= width
    assert workers_of(lines) == ["0", "1"]
    assert ("memory" in "\n".join(lines)) == (width >= 100)


def test_in_a_low_terminal_workers_are_cut_and_said_to_be() -> None:
    now = picture([lane(slot, load=slot / 100) for slot in range(64)], events=50)
    lines = shown(now, "load", height=30)
    assert len(lines) <= 30
    assert workers_of(lines)[0] == "63"
    assert any(line.endswith("more by load") for line in lines)
    assert not any("event" in line for line in lines), "there is no room"
    assert len(shown(picture([lane(0)], events=50), height=30)) <= 30


def test_a_flapping_worker_and_a_name_like_markup_are_shown_as_they_are() -> None:
    now = picture([lane(0, state="flapping", pid=0)])
    now.listeners[0].name = "[red]"
    whole = "\n".join(shown(now))
    assert "flapping" in whole
    assert "[red]" in whole


def test_numbers_have_their_units() -> None:
    assert [rate(x) for x in (None, 0.0, 0.1234, 12.34, 1234.5)] == [
        "-", "0", "0.123", "12.3", "1,234",
    ]  # fmt: skip
    assert [seconds(x) for x in (None, 0.0, 0.000_25, 0.0123, 2.0)] == [
        "-", "0", "250 µs", "12.3 ms", "2 s",
    ]  # fmt: skip
    assert [size(x, "/s") for x in (None, 0, 999, 1500, 2.5e9)] == [
        "-", "0 B/s", "999 B/s", "1.5 kB/s", "2.5 GB/s",
    ]  # fmt: skip
    assert share(0.123) == "12%"

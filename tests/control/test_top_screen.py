"""What `aegis-ctl top` makes of a picture: order, width, height, and numbers with units."""

import re

import msgspec
import pytest
from rich.console import Console

from control.ctl.top import _whole
from control.ctl.top_screen import SORTS, Shown, rate, screen, seconds, share, size
from control.ctl.top_table import Block, lines_of
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
    assert ("memory" in "\n".join(lines)) == (width >= 80)


def test_in_a_low_terminal_workers_are_cut_and_said_to_be() -> None:
    now = picture([lane(slot, load=slot / 100) for slot in range(64)], events=50)
    lines = shown(now, "load", height=30)
    assert len(lines) <= 30
    assert workers_of(lines)[0] == "63"
    assert any(line.endswith("more workers by load") for line in lines)
    assert not any("event" in line for line in lines), "there is no room"
    assert len(shown(picture([lane(0)], events=50), height=30)) <= 30


def crowd() -> Shown:
    """More of everything than a terminal has lines, and the trouble last."""
    now = picture([lane(slot) for slot in range(16)], events=8)
    now.listeners = [Traffic(f"listener{i}", 5, 6.0, None, 7e5, 8e6) for i in range(10)]
    now.listeners[9].closed_per_s = {"connect_failed": 4.0}
    (backend,) = now.backends
    well = msgspec.structs.replace(
        backend.servers[0], health="up", error="", errors_per_s=0.0, connect=Quantiles("c", p99=0.2)
    )
    now.backends = [
        msgspec.structs.replace(backend, name=f"backend{i}", waiting=0, servers=[])
        for i in range(8)
    ]
    now.backends[7].waiting = 12
    now.backends[7].pools[0].requests_per_s = 5678.0
    now.backends[7].servers = [
        msgspec.structs.replace(well, address=f"10.0.0.{i}:6379") for i in range(30)
    ] + backend.servers
    now.findings *= 9
    return now


@pytest.mark.parametrize(("width", "height"), [(60, 14), (80, 24), (100, 30)])
def test_every_table_gives_way_alike_says_so_and_keeps_what_is_in_trouble(
    width: int, height: int
) -> None:
    lines = shown(crowd(), width=width, height=height - 1)
    assert len(lines) <= height - 1
    whole = "\n".join(lines)
    for rows in ("workers by slot", "listeners", "backends", "servers"):
        assert re.search(f"^… [0-9]+ (more )?{rows}$", whole, re.MULTILINE), rows
    assert re.search("^! … [0-9]+ more$", whole, re.MULTILINE)
    first = [lines[at + 1] for at, line in enumerate(lines) if line.startswith(("server", "backe"))]
    assert first[0].startswith("backend7")
    assert re.search(" 12 .* 5,678", first[0]), "who waits, and requests where they are known"
    servers = next(at for at, line in enumerate(lines) if line.startswith("server "))
    assert " down " in lines[servers + 1]
    if height > 14:
        listeners = next(at for at, line in enumerate(lines) if line.startswith("listener "))
        assert lines[listeners + 1].startswith("listener9")
    assert "requests/s" not in lines[3], "no listener knows them"


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (60, "server health conn p99 ans p50 ans p99 err/s"),
        (80, "server health conn p99 ans p50 ans p99 err/s last error"),
        (140, "server health weight connections connects/s connect p99 answer p50 answer p99 "
              "errors/s last error"),
    ],
)  # fmt: skip
def test_no_heading_of_the_servers_is_cut(width: int, headings: str) -> None:
    now = crowd()
    for backend in now.backends:
        backend.name = f"cache-{backend.name[-1]}"
    lines = shown(now, width=width)
    at = next(at for at, line in enumerate(lines) if line.startswith("server "))
    assert lines[at].split() == headings.split()
    assert ("ECONNREFUSED" in lines[at + 1]) == ("last error" in headings)
    assert lines[at + 1].split()[0].endswith(".5:6379"), "the end of a name tells it from others"


def test_a_terminal_with_room_for_all_leaves_nothing_out() -> None:
    lines = shown(crowd(), height=200)
    assert not any(line.startswith("…") for line in lines)
    assert any("event 0" in line for line in lines)


@pytest.mark.parametrize("height", range(1, 40))
def test_there_are_never_more_lines_than_were_given(height: int) -> None:
    blocks = [Block(str(n), [], [None] * n) for n in (0, 1, 2, 30)]
    lines = lines_of(blocks, height)
    assert sum(lines) <= max(height, len(blocks))
    assert sum(lines) == height or height < 12 or height > 37, "none is left unused"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_without_the_exporter_old_numbers_are_dim_and_the_footer_is_whole(width: int) -> None:
    trouble = "the exporter at 127.0.0.1:8082 does not answer ([Errno 111] refused); --exporter"
    console = Console(width=width, height=24, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(_whole(picture([lane(0)]), "slot", trouble, width, 24), height=24)
    *above, foot = captured.get().rstrip().splitlines()
    assert "exporter at 127.0.0.1:8082 does not answer · q quit" in foot
    assert "as of" in foot or width < 80
    spans = [
        part for line in above for part in re.findall("\x1b\\[([0-9;]*)m[^\x1b]*[a-z0-9]", line)
    ]
    assert spans
    assert all("2" in codes.split(";") for codes in spans if codes not in {"", "0"})


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

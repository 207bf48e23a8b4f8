"""What is measured: a row is a load, its size in a full and in a quick run, and its figures.

Every figure of a row has a name, under which it is kept in the data file; `COLUMNS` says what each
is. `cpu` is `user` and `system` together.
"""

from collections.abc import Callable
from typing import NamedTuple

from ops.bench import ab_load, idle, redis_load, stream_load
from ops.bench.processes import LOAD_CPU, PROXY_CPU
from ops.bench.scene import Scene
from ops.bench.servers import Family

Figures = dict[str, float]


class Column(NamedTuple):
    """One figure of a row."""

    name: str
    heading: str
    decimals: int


class Kind(NamedTuple):
    """Rows that are told in the same columns."""

    unit: str
    """Of what CPU is spent, for axis and prose."""
    main: str
    """The figure a row's plot shows, and its ratios compare; less is better."""
    columns: tuple[Column, ...]


def _cpu(unit: str, decimals: int) -> tuple[Column, ...]:
    return (
        Column("cpu", f"proxy CPU, {unit}", decimals),
        Column("user", "user", decimals),
        Column("system", "system", decimals),
        Column("server", f"server CPU, {unit}", decimals),
    )


_LATENCY = (Column("p50_ms", "p50 ms", 2), Column("p99_ms", "p99 ms", 2))
_TAIL = (*_LATENCY, Column("p999_ms", "p99.9 ms", 2), Column("max_ms", "max ms", 2))
_LAG = (Column("lag_p99_ms", "load late by p99 ms", 2), Column("lag_max_ms", "max ms", 2))

REQUESTS = Kind(
    "µs a request",
    "cpu",
    (
        Column("rate", "requests/s", 0),
        *_cpu("µs/request", 2),
        *_LATENCY,
        Column("max_ms", "max ms", 1),
    ),
)
BULK = Kind("s a GB", "cpu", (Column("rate", "GB/s", 2), *_cpu("s/GB", 3)))
MEMORY = Kind(
    "bytes a session",
    "bytes",
    (
        Column("bytes", "bytes/session", 0),
        Column("server_connections", "connections to the server", 0),
        *_cpu("µs/session opened", 1)[:3],
    ),
)
OPEN_LOOP = Kind("µs a request", "p99_ms", (*_TAIL, *_cpu("µs/request", 2), *_LAG))
MIX = Kind("s a GB", "p99_ms", (*_TAIL, Column("rate", "bulk GB/s", 2), *_cpu("s/GB", 3), *_LAG))


class Row(NamedTuple):
    """A load."""

    name: str
    title: str
    family: Family
    kind: Kind
    run: Callable[[Scene, bool, float], Figures]
    """Of a scene, whether it is a quick run, and a deadline in seconds."""
    full_s: float
    quick_s: float
    """About how long one measurement takes, beside the start of the processes."""
    without: frozenset[str] = frozenset()
    """Peers for which the row means nothing."""
    server_cpu: int = LOAD_CPU
    """The server's core."""


def _redis(name: str, title: str, full: redis_load.Size, quick: int, full_s: float) -> Row:
    def run(scene: Scene, is_quick: bool, deadline_s: float) -> Figures:
        size = full._replace(requests=quick) if is_quick else full
        return redis_load.run(scene, size, deadline_s)

    return Row(name, title, "resp", REQUESTS, run, full_s, 0.8)


def _round_trips(clients: int, requests: int, full_s: float) -> Row:
    return _redis(
        f"rt-{clients}",
        f"Round trips: redis-benchmark, SET and GET, {clients:,} connections",
        redis_load.Size(requests, clients),
        max(10_000, clients * 3),
        full_s,
    )


def _ab(name: str, title: str, full: ab_load.Size, quick: int, full_s: float) -> Row:
    def run(scene: Scene, is_quick: bool, deadline_s: float) -> Figures:
        size = full._replace(requests=quick) if is_quick else full
        return ab_load.run(scene, size, deadline_s)

    return Row(name, title, "http", REQUESTS, run, full_s, 0.8)


def _bulk(streams: int, direction: str) -> Row:
    full = stream_load.Bulk(4.0, streams, direction)
    way = {"down": "server to client", "up": "client to server"}[direction]

    def run(scene: Scene, is_quick: bool, deadline_s: float) -> Figures:
        size = full._replace(gigabytes=0.5) if is_quick else full
        return stream_load.run_bulk(scene, size, deadline_s)

    title = f"Bulk: {streams} stream{'s' * (streams > 1)}, {way}"
    return Row(f"bulk-{streams}-{direction}", title, "stream", BULK, run, 3.5, 0.6)


def _open_loop(name: str, title: str, kind: Kind, full: stream_load.OpenLoop) -> Row:
    def run(scene: Scene, is_quick: bool, deadline_s: float) -> Figures:
        size = full._replace(seconds=1.0) if is_quick else full
        return stream_load.run_open_loop(scene, size, deadline_s)

    return Row(name, title, "resp", kind, run, full.seconds + 0.5, 1.5)


def _idle(full: int, quick: int) -> Row:
    def run(scene: Scene, is_quick: bool, deadline_s: float) -> Figures:
        return idle.run(scene, idle.Size(quick if is_quick else full), deadline_s)

    title = f"Idle sessions: memory of {full:,}, each after one request"
    return Row("idle", title, "resp", MEMORY, run, 4.0, 1.5, without=frozenset({"direct"}))


ROWS: tuple[Row, ...] = (
    _round_trips(10, 100_000, 4.5),
    _round_trips(100, 100_000, 4.0),
    _round_trips(1_000, 100_000, 4.0),
    _round_trips(5_000, 100_000, 8.0),
    _redis(
        "pipelined",
        "Round trips, pipelined 16: redis-benchmark, SET and GET, 100 connections",
        redis_load.Size(500_000, 100, pipeline=16),
        100_000,
        3.0,
    ),
    _redis(
        "churn",
        "Churn: redis-benchmark, a connection per GET, 100 at once",
        # Less than there are local ports: whoever is so fast that they run out would be punished.
        redis_load.Size(25_000, 100, reconnect=True),
        4_000,
        4.0,
    ),
    _ab(
        "ab",
        "HTTP round trips: `ab -k -n 100000 -c 200` against Chronos, 500,000 in five rounds",
        ab_load.Size(100_000, 200, keep_alive=True),
        8_000,
        8.0,
    ),
    _ab(
        "ab-churn",
        "HTTP churn: `ab -n 50000 -c 200` against Chronos, a connection per request",
        ab_load.Size(50_000, 200, keep_alive=False),
        3_000,
        3.0,
    ),
    # ab spends more on a connection than Aegis does: beside the server it is what is measured.
    _ab(
        "ab-churn-alone",
        "HTTP churn: `ab -n 200000 -c 200` on a core of its own, Chronos on the proxy's",
        ab_load.Size(200_000, 200, keep_alive=False),
        3_000,
        10.0,
    )._replace(server_cpu=PROXY_CPU),
    *(_bulk(streams, direction) for streams in (1, 50) for direction in ("down", "up")),
    _idle(5_000, 1_000),
    _open_loop(
        "mix",
        "Mix: 1,000 requests/s on 20 connections beside 4 streams of 4 MB values",
        MIX,
        stream_load.OpenLoop(5.0, 20, 1_000.0, bulk_streams=4),
    ),
    _open_loop(
        "open-loop",
        "Open loop: 8,400 requests/s evenly spaced on 200 connections, latency from when due",
        OPEN_LOOP,
        stream_load.OpenLoop(6.0, 200, 8_400.0),
    ),
)

BY_NAME = {row.name: row for row in ROWS}


def chosen(words: list[str]) -> list[Row]:
    """Return the rows of these names, in their order; all for no word.

    A word that is no row's name stands for those that begin with it: `bulk`, `bulk-1`, `rt`.

    Raises:
        ValueError: a word is neither.
    """
    names: set[str] = set()
    for word in words:
        found = {word} & BY_NAME.keys() or {n for n in BY_NAME if n.startswith(f"{word}-")}
        if not found:
            raise ValueError(f"no row {word!r}; there are: {', '.join(BY_NAME)}")
        names |= found
    return [row for row in ROWS if not words or row.name in names]

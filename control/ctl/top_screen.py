"""What `aegis-ctl top` shows of a picture, for a terminal of any size. Pure.

header, findings │ workers │ listeners │ backends with pools │ servers │ events
                                                                         as many as fit
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from control.exporter.picture import Event, Lane, Picture, Server

_STYLES = {"bad": "bold red", "warn": "yellow", "good": "green", "info": ""}
_HEALTH = {
    "up": "green",
    "failing": "yellow",
    "refused": "bold red",
    "down": "bold red",
    "ejected": "bold red",
    "drain": "yellow",
    "maint": "yellow",
    "unknown": "dim",
}
_FEWEST_ROWS = 3
"""Of the workers, however low the terminal is."""

SORTS: dict[str, Callable[[Lane], float]] = {
    "slot": lambda lane: lane.slot,
    "load": lambda lane: -lane.load,
    "lag": lambda lane: -lane.lag_s,
    "sessions": lambda lane: -lane.sessions,
    "rate": lambda lane: -lane.sessions_per_s,
    "memory": lambda lane: -lane.memory_bytes,
}


class Shown(Picture):
    """A picture as /status.json has it."""

    events: list[Event] = msgspec.field(default_factory=list)


class Column(NamedTuple):
    """One column; in a terminal of less than `width` columns it is left out."""

    title: str
    width: int
    cell: Callable[[Any], str]


def _phase(lane: Lane) -> str:
    if lane.state not in {"running", None}:
        return f"[bold red]{lane.state}[/]"
    return "retired" if lane.retired else lane.phase


_WORKERS = [
    Column("worker", 0, lambda w: str(w.slot)),
    Column("pid", 90, lambda w: str(w.pid or "-")),
    Column("core", 80, lambda w: str(w.cpu) if w.cpu >= 0 else "-"),
    Column("phase", 0, _phase),
    Column("load", 0, lambda w: share(w.load)),
    Column("lag", 0, lambda w: seconds(w.lag_s)),
    Column("sessions", 0, lambda w: f"{w.sessions:,}"),
    Column("new/s", 60, lambda w: rate(w.sessions_per_s)),
    Column("memory", 100, lambda w: size(w.memory_bytes)),
    Column("slabs", 100, lambda w: f"{w.slabs_used}/{w.slabs}"),
    Column("restarts", 80, lambda w: "-" if w.restarts is None else str(w.restarts)),
]
_LISTENERS = [
    Column("listener", 0, lambda t: escape(t.name)),
    Column("sessions", 0, lambda t: f"{t.sessions:,}"),
    Column("new/s", 0, lambda t: rate(t.sessions_per_s)),
    Column("requests/s", 70, lambda t: rate(t.requests_per_s)),
    Column("from clients", 0, lambda t: size(t.from_clients_bytes_per_s, "/s")),
    Column("from servers", 0, lambda t: size(t.from_servers_bytes_per_s, "/s")),
    Column("ends otherwise", 90, lambda t: _most(t.closed_per_s)),
]
_BACKENDS = [
    Column("backend", 0, lambda b: escape(b.name)),
    Column("connections", 0, lambda b: f"{b.open:,}"),
    Column("busy", 0, lambda b: f"{b.busy:,}"),
    Column("waiting", 0, lambda b: _alarming(f"{b.waiting:,}", b.waiting)),
    Column("longest wait", 0, lambda b: seconds(b.longest_wait_s) if b.waiting else "-"),
    Column("in flight", 90, lambda b: f"{sum(pool.in_flight for pool in b.pools):,}"),
    Column("pipes", 80, lambda b: ", ".join(_pipes(pool.pipes) for pool in b.pools) or "-"),
    Column("pins/s", 100, lambda b: rate(sum(pool.pins_per_s for pool in b.pools))),
    Column("lost/s", 100, lambda b: rate(sum(pool.losses_per_s for pool in b.pools))),
]
_SERVERS = [
    Column("server", 0, lambda s: escape(f"{s[0]}/{s[1].name or s[1].address}")),
    Column("health", 0, lambda s: f"[{_HEALTH[s[1].health]}]{s[1].health}[/]"),
    Column("weight", 100, lambda s: _weight(s[1].weight)),
    Column("connections", 80, lambda s: f"{s[1].connections:,}"),
    Column("connects/s", 80, lambda s: rate(s[1].connects_per_s)),
    Column("connect p99", 0, lambda s: seconds(s[1].connect.p99)),
    Column("answer p50", 100, lambda s: seconds(s[1].answer.p50)),
    Column("answer p99", 60, lambda s: seconds(s[1].answer.p99)),
    Column("errors/s", 70, lambda s: _alarming(rate(s[1].errors_per_s), s[1].errors_per_s)),
    Column("last error", 90, lambda s: s[1].error or "-"),
]


def screen(now: Shown, sort: str, width: int, height: int | None = None) -> RenderableType:
    """Return what to show; `height` None shows everything."""
    servers: list[tuple[str, Server]] = [(b.name, s) for b in now.backends for s in b.servers]
    below = [
        _table(_LISTENERS, now.listeners, width),
        _table(_BACKENDS, now.backends, width),
        _table(_SERVERS, servers, width),
    ]
    head = [_header(now), *(_finding(finding.severity, finding.text) for finding in now.findings)]
    lanes = sorted(now.workers, key=SORTS[sort])
    room = len(lanes)
    if height is not None:
        others = len(head) + sum(len(table.rows) + 2 for table in below) + 3
        room = max(_FEWEST_ROWS, height - others)
    parts: list[RenderableType] = [*head, Text(), _table(_WORKERS, lanes[:room], width)]
    if room < len(lanes):
        parts.append(Text(f"… {len(lanes) - room} more by {sort}", style="dim"))
        room -= 1
    for table in below:
        parts += [Text(), table]
    left = len(now.events) if height is None else room - len(lanes) - 2
    if now.events and left > 0:
        parts += [Text(), *(_event(event) for event in now.events[-left:][::-1])]
    return Group(*parts)


def _header(now: Shown) -> Text:
    total = now.total
    parts = [
        f"aegis {now.phase}",
        f"{total.sessions:,} sessions",
        f"{rate(total.sessions_per_s)} new/s",
        *([f"{rate(total.requests_per_s)} requests/s"] if total.requests_per_s is not None else []),
        f"from clients {size(total.from_clients_bytes_per_s, '/s')}",
        f"from servers {size(total.from_servers_bytes_per_s, '/s')}",
        *(f"{q.name} p99 {seconds(q.p99)}" for q in now.latency if q.p99 is not None),
    ]
    return Text(" · ".join(parts), style="bold", overflow="ellipsis", no_wrap=True)


def _finding(severity: str, text: str) -> Text:
    return Text(f"! {text}", style=_STYLES[severity], overflow="ellipsis", no_wrap=True)


def _event(event: Event) -> Text:
    at = datetime.fromtimestamp(event.at).astimezone()
    text = f"{at:%H:%M:%S} {event.text}"
    return Text(text, style=_STYLES[event.severity], overflow="ellipsis", no_wrap=True)


def _table(columns: list[Column], rows: list[Any], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [column for column in columns if width >= column.width]
    for column in shown:
        text = column.title in {"listener", "backend", "server", "phase", "health", "last error"}
        table.add_column(
            column.title, justify="left" if text else "right", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(column.cell(row) for column in shown))
    return table


def _weight(weight: float | None) -> str:
    return "-" if weight is None else f"{weight:.3g}"


def _pipes(pipes: dict[str, int]) -> str:
    return " ".join(f"{count} {state}" for state, count in pipes.items() if count) or "none"


def _most(per_s: dict[str, float]) -> str:
    worst = sorted(per_s, key=lambda reason: -per_s[reason])[:2]
    return ", ".join(f"{reason} {rate(per_s[reason])}/s" for reason in worst) or "-"


def _alarming(text: str, value: float) -> str:
    return f"[bold red]{text}[/]" if value else text


# --- numbers ---------------------------------------------------------------------------------


def rate(per_s: float | None) -> str:
    """Return a rate with three digits or in whole numbers."""
    if per_s is None:
        return "-"
    return f"{per_s:,.0f}" if per_s >= 100 or not per_s else f"{per_s:.3g}"


def share(part: float) -> str:
    """Return a share in percent."""
    return f"{part:.0%}"


def seconds(value: float | None) -> str:
    """Return a duration with its unit."""
    if value is None:
        return "-"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return "0"


def size(value: float | None, per: str = "") -> str:
    """Return a number of bytes with its unit, decimal."""
    if value is None:
        return "-"
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}{per}"
    return f"{value:.0f} B{per}"

"""What `aegis-ctl top` shows of a picture, for a terminal of any size. Pure.

header, findings │ workers │ listeners │ backends with pools │ servers │ events
                   └──────── of each a fair part of the lines ────────┘  what is left
"""

from collections.abc import Callable
from datetime import datetime

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from control.ctl.top_table import Block, Column, lines_of, table_of
from control.exporter.picture import Backend, Event, Lane, Picture, Server

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
_SPACED = 20
"""Lines from which a terminal has some to spare between tables."""

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


def _phase(lane: Lane) -> str:
    if lane.state not in {"running", None}:
        return f"[bold red]{lane.state}[/]"
    return "retired" if lane.retired else lane.phase


def _longest_wait(backend: Backend) -> str:
    return seconds(backend.longest_wait_s) if backend.waiting else "-"


def _requests(backend: Backend) -> float | None:
    """Return requests per second, None where no pool counts them."""
    rates = [pool.requests_per_s for pool in backend.pools if pool.requests_per_s is not None]
    return sum(rates) if rates else None


def _all_pipes(backend: Backend) -> str:
    return ", ".join(_pipes(pool.pipes) for pool in backend.pools) or "-"


def _pipes(pipes: dict[str, int]) -> str:
    return " ".join(f"{count} {state}" for state, count in pipes.items() if count) or "none"


_WORKERS = [
    Column("worker", 0, lambda w: str(w.slot)),
    Column("pid", 90, lambda w: str(w.pid or "-")),
    Column("core", 80, lambda w: str(w.cpu) if w.cpu >= 0 else "-"),
    Column("phase", 0, _phase, text=True),
    Column("load", 0, lambda w: share(w.load)),
    Column("lag", 0, lambda w: seconds(w.lag_s)),
    Column("sessions", 0, lambda w: f"{w.sessions:,}"),
    Column("new/s", 60, lambda w: rate(w.sessions_per_s)),
    Column("memory", 100, lambda w: size(w.memory_bytes)),
    Column("slabs", 101, lambda w: f"{w.slabs_used}/{w.slabs}"),
    Column("restarts", 81, lambda w: "-" if w.restarts is None else str(w.restarts)),
]
_LISTENERS = [
    Column("listener", 0, lambda t: escape(t.name), text=True),
    Column("sessions", 0, lambda t: f"{t.sessions:,}"),
    Column("new/s", 0, lambda t: rate(t.sessions_per_s)),
    Column("from clients", 50, lambda t: size(t.from_clients_bytes_per_s, "/s"), "clients"),
    Column("from servers", 51, lambda t: size(t.from_servers_bytes_per_s, "/s"), "servers"),
    Column("ends otherwise", 90, lambda t: _most(t.closed_per_s), "other ends", text=True),
]
_BACKENDS = [
    Column("backend", 0, lambda b: escape(b.name), text=True),
    Column("connections", 1, lambda b: f"{b.open:,}", "conns"),
    Column("busy", 2, lambda b: f"{b.busy:,}"),
    Column("waiting", 0, lambda b: _alarming(f"{b.waiting:,}", b.waiting)),
    Column("longest wait", 3, _longest_wait, "longest"),
    Column("requests/s", 70, lambda b: rate(_requests(b)), "req/s"),
    Column("in flight", 90, lambda b: f"{sum(pool.in_flight for pool in b.pools):,}"),
    Column("pins/s", 100, lambda b: rate(sum(pool.pins_per_s for pool in b.pools))),
    Column("lost/s", 101, lambda b: rate(sum(pool.losses_per_s for pool in b.pools))),
    Column("pipes", 80, _all_pipes, text=True),
]
_SERVERS = [
    Column("server", 0, lambda s: escape(f"{s[0]}/{s[1].name or s[1].address}"), text=True),
    Column("health", 0, lambda s: f"[{_HEALTH[s[1].health]}]{s[1].health}[/]", text=True),
    Column("weight", 120, lambda s: _weight(s[1].weight)),
    Column("connections", 100, lambda s: f"{s[1].connections:,}", "conns"),
    Column("connects/s", 101, lambda s: rate(s[1].connects_per_s), "conn/s"),
    Column("connect p99", 3, lambda s: seconds(s[1].connect.p99), "conn p99"),
    Column("answer p50", 4, lambda s: seconds(s[1].answer.p50), "ans p50"),
    Column("answer p99", 2, lambda s: seconds(s[1].answer.p99), "ans p99"),
    Column("errors/s", 1, lambda s: _alarming(rate(s[1].errors_per_s), s[1].errors_per_s), "err/s"),
    Column("last error", 90, lambda s: escape(s[1].error) or "-", text=True),
]


def screen(now: Shown, sort: str, width: int, height: int | None = None) -> RenderableType:
    """Return what to show; `height` None shows everything."""
    servers: list[tuple[str, Server]] = [(b.name, s) for b in now.backends for s in b.servers]
    workers = Block("workers", _WORKERS, sorted(now.workers, key=SORTS[sort]), by=sort)
    # What is in trouble first, else in the configuration's order.
    listeners = Block(
        "listeners", _LISTENERS, sorted(now.listeners, key=lambda each: not each.closed_per_s)
    )
    backends = Block("backends", _BACKENDS, sorted(now.backends, key=lambda each: not each.waiting))
    block = Block("servers", _SERVERS, sorted(servers, key=lambda each: _calm(each[1])))
    blocks = [workers, listeners, backends, block]
    head = [_header(now), *_findings(now, height)]
    lines: list[int | None] = [None] * len(blocks)
    spaced = height is None or height >= _SPACED
    if height is not None:
        room = height - len(head) - spaced * len(blocks)
        giving_way = [listeners, backends, workers, block]
        given = dict(zip((b.name for b in giving_way), lines_of(giving_way, room), strict=True))
        lines = [given[each.name] for each in blocks]
        left = room - sum(given.values()) - 1
    else:
        left = len(now.events)
    parts: list[RenderableType] = [*head]
    for each, many in zip(blocks, lines, strict=True):
        parts += [*([Text()] if spaced else []), *table_of(each, width, many)]
    if now.events and left > 0:
        parts += [Text(), *(_event(event) for event in now.events[-left:][::-1])]
    return Group(*parts)


def _calm(server: Server) -> tuple[bool, bool]:
    """Sort servers that have trouble before others, and of those the ones in use first."""
    return server.health in {"up", "unknown"} and not server.errors_per_s, not server.connections


def _findings(now: Shown, height: int | None) -> list[Text]:
    lines = [_finding(finding.severity, finding.text) for finding in now.findings]
    most = len(lines) if height is None else max(2, height // 6)
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], Text(f"! … {len(lines) - most + 1} more", style="dim")]


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


def _weight(weight: float | None) -> str:
    return "-" if weight is None else f"{weight:.3g}"


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

"""aegis-ctl servers."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
import typer
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from aegis.runtime import default_runtime_dir
from aegis.status_messages import (
    BackendStatus,
    ServerStatus,
)
from control.ctl.client import fetch_status, need_controller
from control.options import (
    RuntimeDirOption,
)

_WIDTH = 120  # of a table with all columns
_STYLES = {"up": "green", "down": "bold red", "ejected": "bold red", "maint": "yellow"}


class _Column(NamedTuple):
    """One column; `status` shows those that are not only for `servers`."""

    title: str
    cell: Callable[[BackendStatus, ServerStatus], str]
    number: bool = False
    detail: bool = False


def servers(
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Show each server: health, weight, connections, what an operator has overridden."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    backends = fetch_status(directory).backends
    if json:
        encoded = msgspec.json.encode({"backends": msgspec.to_builtins(backends)})
        typer.echo(msgspec.json.format(encoded))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(servers_table(backends, details=console.width >= _WIDTH))
    for note in notes(backends):
        console.print(note, style="yellow", markup=False)


def servers_table(backends: list[BackendStatus], *, details: bool) -> Table:
    """Return a row for each server."""
    columns = [column for column in _COLUMNS if details or not column.detail]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column.number else "left"
        table.add_column(column.title, justify=justify, overflow="fold")
    for backend in backends:
        for server in backend.servers:
            table.add_row(*(column.cell(backend, server) for column in columns))
    return table


def notes(backends: list[BackendStatus]) -> list[str]:
    """Return what there is to say of whole backends."""
    said = []
    for backend in backends:
        if backend.panic:
            said.append(f"{backend.name}: so few servers are healthy that health is ignored")
        if backend.discovery:
            said.append(f"{backend.name}: the last look for servers failed: {backend.discovery}")
        if not backend.servers:
            said.append(f"{backend.name}: no server is known yet")
    return said


def _health(_: BackendStatus, server: ServerStatus) -> str:
    word = server.health if server.admin == "ready" else server.admin
    style = _STYLES.get(word, "")
    return f"[{style}]{word}[/]" if style else word


def _weight(_: BackendStatus, server: ServerStatus) -> str:
    if server.effective_weight in {0.0, float(server.weight)}:
        return f"{server.weight}"
    return f"{server.effective_weight:.2f} of {server.weight}"


def _connections(_: BackendStatus, server: ServerStatus) -> str:
    most = f" of {server.max_connections:,}" if server.max_connections else ""
    return f"{server.connections:,}{most}"


def _checks(_: BackendStatus, server: ServerStatus) -> str:
    made = sum(server.checks_total.values())
    return f"{made - server.checks_total.get('failed', 0):,}/{made:,}" if made else "-"


def _since(_: BackendStatus, server: ServerStatus) -> str:
    if not server.since:
        return "-"
    return f"{datetime.fromtimestamp(server.since).astimezone():%H:%M:%S}"


def _notes(_: BackendStatus, server: ServerStatus) -> str:
    said = ["backup"] if server.backup else []
    said += [f"{word} overridden" for word in server.overridden]
    if server.health == "ejected":
        said.append(f"{server.why}, for another {server.ejected_for_s:.0f} s")
    elif server.health == "down" and server.why:
        said.append(server.why)
    return escape(", ".join(said))


def _address(_: BackendStatus, server: ServerStatus) -> str:
    return "" if server.address == server.name else escape(server.address)


_COLUMNS = (
    _Column("server", lambda b, s: escape(f"{b.name}/{s.name}")),
    _Column("address", _address, detail=True),
    _Column("health", _health),
    _Column("since", _since, detail=True),
    _Column("weight", _weight, number=True),
    _Column("open", _connections, number=True),
    _Column("total", lambda _, s: f"{s.connects_total:,}", number=True),
    _Column("errors", lambda _, s: f"{s.connect_errors_total:,}", number=True),
    _Column("failures", lambda _, s: f"{sum(s.failures_total.values()):,}", True, True),
    _Column("checks", _checks, number=True, detail=True),
    _Column("notes", _notes),
)

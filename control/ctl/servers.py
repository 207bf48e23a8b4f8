"""aegis-ctl servers."""

from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aegis.messages import BackendStatus, ServerStatus
from aegis.runtime import default_runtime_dir
from control.ctl.client import fetch_status, need_controller
from control.main import RuntimeDirOption

_NUMBERS = {"weight", "connections", "total", "errors", "failures", "checks"}
_STYLES = {"up": "green", "down": "bold red", "ejected": "bold red", "maint": "yellow"}


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
    console.print(servers_table(backends))
    for note in notes(backends):
        console.print(note, style="yellow", markup=False)


def servers_table(backends: list[BackendStatus]) -> Table:
    """Return a row for each server."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "backend", "server", "address", "health", "weight", "connections", "total", "errors",
        "failures", "checks", "override", "since", "why",
    ):  # fmt: skip
        right = title in _NUMBERS
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for backend in backends:
        for server in backend.servers:
            table.add_row(escape(backend.name), *(escape(cell) for cell in _cells(server)[:2]),
                          _health(server), *(escape(cell) for cell in _cells(server)[2:]))
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


def _health(server: ServerStatus) -> str:
    word = server.health if server.admin == "ready" else server.admin
    style = _STYLES.get(word, "")
    return f"[{style}]{word}[/]" if style else word


def _cells(server: ServerStatus) -> list[str]:
    """Return the cells of a row but for the backend and the health."""
    weight = f"{server.weight}"
    if server.effective_weight not in {0.0, float(server.weight)}:
        weight = f"{server.effective_weight:.2f} of {server.weight}"
    checks = server.checks_total
    since = datetime.fromtimestamp(server.since).astimezone() if server.since else None
    why = server.why
    if server.health == "ejected":
        why = f"{why}, for another {server.ejected_for_s:.0f} s"
    return [
        server.name + (" (backup)" if server.backup else ""),
        server.address,
        weight,
        f"{server.connections:,}" + (f"/{server.max_connections:,}" if server.max_connections else ""),
        f"{server.connects_total:,}",
        f"{server.connect_errors_total:,}",
        f"{sum(server.failures_total.values()):,}",
        f"{checks.get('failed', 0):,} of {sum(checks.values()):,} failed" if any(checks.values()) else "-",
        ", ".join(server.overridden) or "-",
        f"{since:%H:%M:%S}" if since is not None else "-",
        why or "-",
    ]

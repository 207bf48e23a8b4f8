"""aegis-ctl status."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from aegis.runtime import default_runtime_dir
from aegis.status_messages import (
    Status,
    WorkerStatus,
)
from control.ctl.client import bar, fetch_status, is_as_wanted, need_controller, until_cut
from control.ctl.servers import notes, servers_table
from control.options import (
    RuntimeDirOption,
)

_NUMBERS = {"cpu", "sessions", "slabs", "restarts", "total", "connections", "errors"}


def status(
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Show phase, workers, listeners and servers."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    now = fetch_status(directory)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(now))))
    else:
        _print(now)


def _print(now: Status) -> None:
    console = Console(highlight=False)
    controller = now.controller
    console.print(
        f"aegis is [bold]{now.phase}[/]: controller pid {controller.pid} since "
        f"{controller.started}, epoch {now.epoch}, {controller.config}"
    )
    if now.phase != "serving":
        console.print(_progress(now))
    if now.exporter is not None:
        console.print(
            f"exporter {now.exporter.state}: pid {now.exporter.pid or '-'}, "
            f"http://{now.exporter.bind}/metrics, {now.exporter.restarts} restart(s)"
        )
    workers = _table("slot", "pid", "cpu", "phase", "sessions", "slabs", "restarts", "last exit")
    for worker in now.workers:
        workers.add_row(*_worker_cells(worker))
    listeners = _table("listener", "bind", "backend", "protocol", "pooling", "sessions", "total")
    for row in now.listeners:
        listeners.add_row(
            row.name, row.bind, row.backend, row.protocol, row.pooling,
            f"{row.sessions:,}", f"{row.sessions_total:,}",
        )  # fmt: skip
    for table in (workers, listeners, servers_table(now.backends, details=False)):
        console.print()
        console.print(table)
    for note in notes(now.backends):
        console.print(note, style="yellow", markup=False)


def _progress(now: Status) -> str:
    """Return how far the proxy is on its way to serving, or to having nothing left."""
    current = [worker for worker in now.workers if not worker.retired]
    there = {"starting": "serving", "draining": "drained", "stopping": "stopped"}
    goal = there.get(now.phase, now.phase)
    done = sum(worker.phase == goal for worker in current)
    left = f"{sum(worker.sessions for worker in now.workers):,} session(s) left{until_cut(now)}"
    return f"{bar(done, len(current))} {done} of {len(current)} worker(s) {goal}, {left}"


def _worker_cells(worker: WorkerStatus) -> list[str]:
    phase = worker.phase if is_as_wanted(worker) else f"{worker.phase} ({worker.state})"
    return [
        str(worker.slot),
        str(worker.pid or "-"),
        str(worker.cpu),
        f"{phase} (retired)" if worker.retired else phase,
        f"{worker.sessions:,}",
        str(worker.slabs_used),
        str(worker.restarts),
        worker.last_exit or "-",
    ]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column in {
            "cpu",
            "sessions",
            "slabs",
            "restarts",
            "total",
            "connections",
            "errors",
        }
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table

"""aegis-ctl drain."""

from pathlib import Path
from typing import Annotated

import typer

from aegis.errors import AegisError
from aegis.limits import MAX_TIMEOUT_S
from aegis.messages import (
    Drain,
)
from aegis.runtime import default_runtime_dir
from aegis.status_messages import (
    Status,
)
from control.ctl.client import command, need_controller, wait_until
from control.ctl.usage import seconds
from control.options import (
    RuntimeDirOption,
)

TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds(MAX_TIMEOUT_S),
        help="How long sessions may take to finish; default: drain_timeout_s of the configuration.",
    ),
]


ListenerOption = Annotated[
    str | None, typer.Option("--listener", metavar="NAME", help="Only this listener.")
]
ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="BACKEND/SERVER", help="Only this server.")
]


def drain(
    timeout: TimeoutOption = None,
    listener: ListenerOption = None,
    server: ServerOption = None,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Refuse new sessions and let the others finish; `start` serves again."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    if listener is not None and server is not None:
        raise typer.BadParameter("a listener or a server, one at a time", param_hint="--server")
    if listener is not None or server is not None:
        _drain_part(directory, Drain(timeout, listener, server))
        return
    epoch = command(directory, Drain(timeout))
    status = wait_until(
        directory, epoch, "draining", lambda s: s.phase not in {"draining", "starting"}
    )
    if status.phase != "drained":
        raise AegisError(f"the drain was called off: aegis is {status.phase}")
    cut = sum(worker.cut for worker in status.workers) + status.departed_cut
    cuts = [each for worker in status.workers for each in worker.cuts]
    for each in cuts + status.departed_cuts:
        typer.echo(f"cut: {each.client} -> {each.listener} -> {each.server or 'no server'}")
    typer.echo(f"aegis is drained; {cut} session(s) cut at a deadline since it started")


def _drain_part(directory: Path, request: Drain) -> None:
    """Drain a listener or a server and wait until nobody uses it."""
    epoch = command(directory, request)
    name = request.listener or request.server
    backend_name, _, server = (request.server or "").partition("/")

    def is_empty(status: Status) -> bool:
        rows = [row.sessions for row in status.listeners if row.name == request.listener]
        for backend in status.backends:
            rows += [
                row.connections
                for row in backend.servers
                if backend.name == backend_name and server in {row.name, row.address}
            ]
        return not any(rows)

    wait_until(directory, epoch, f"draining {name}", is_empty)
    typer.echo(f"{name} is drained")

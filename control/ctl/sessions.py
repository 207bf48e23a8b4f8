"""aegis-ctl sessions, aegis-ctl session kill."""

from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aegis import bus
from aegis.errors import AegisError
from aegis.limits import MAX_SESSIONS_LISTED, STALE_S, TICK_S
from aegis.messages import Refused
from aegis.runtime import default_runtime_dir
from aegis.session_messages import (
    FetchSessions,
    KillSession,
    ListSessions,
    SessionList,
    SessionRow,
)
from control.ctl.client import command, need_controller, wait_until
from control.ctl.usage import Choices, whole_number
from control.options import (
    RuntimeDirOption,
)

_WIDTH = 140  # of a table that nobody's terminal bounds

session = typer.Typer(cls=Choices, help="End a single session.", no_args_is_help=True)


def sessions(
    listener: Annotated[
        str, typer.Option("--listener", metavar="NAME", help="Only of this listener.")
    ] = "",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", parser=whole_number(1, MAX_SESSIONS_LISTED), help="At most N."
        ),
    ] = 100,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Show the sessions, the oldest first."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    found = _gather(directory, ListSessions(limit, listener))
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    if found.rows:
        console.print(_table(found.rows))
    console.print(f"{len(found.rows):,} of {found.total:,} session(s)")
    for pid in found.silent:
        console.print(f"worker with pid {pid} does not answer", style="yellow")


@session.command()
def kill(
    name: Annotated[str, typer.Argument(metavar="ID", help="As `aegis-ctl sessions` shows it.")],
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Reset a session's client and server, or end its share of pipes."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    if not _gather(directory, ListSessions(1, session=name)).rows:
        raise AegisError(
            f"no session {name}: IDs have the form PID-FD-TIME, and `aegis-ctl sessions` lists them"
        )
    epoch = command(directory, KillSession(name))
    wait_until(directory, epoch, f"killing session {name}", lambda _: True)
    typer.echo(f"session {name} is killed")


def _gather(directory: Path, request: ListSessions) -> SessionList:
    """Ask all workers, and wait until each has told, or is too late."""
    number = command(directory, request)
    until = monotonic() + STALE_S
    while True:
        reply = bus.ask(directory, FetchSessions(number))
        if isinstance(reply, Refused):
            raise AegisError(reply.why)
        if not isinstance(reply, SessionList):
            raise AegisError(f"unexpected reply: {reply}")
        if not reply.silent or monotonic() > until:
            return reply
        sleep(TICK_S / 5)


def _table(rows: list[SessionRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "worker", "listener", "client", "server", "state"):
        table.add_column(title, overflow="fold")
    for title in ("age", "from client", "from server"):
        table.add_column(title, justify="right")
    for row in rows:
        counts = ["-", "-"] if row.bytes is None else [f"{count:,}" for count in row.bytes]
        table.add_row(
            row.id,
            f"{row.worker}",
            escape(row.listener),
            escape(row.client),
            escape(row.server),
            row.state,
            f"{row.age_s:,.1f} s",
            *counts,
        )
    return table

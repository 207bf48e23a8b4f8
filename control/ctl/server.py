"""aegis-ctl server ready | drain | maint | weight."""

from typing import Annotated

import typer

from aegis.errors import AegisError
from aegis.lifecycle import Admin
from aegis.limits import MAX_WEIGHT
from aegis.messages import (
    SetServer,
)
from aegis.runtime import default_runtime_dir
from aegis.status_messages import (
    ServerStatus,
    Status,
)
from control.ctl.client import command, need_controller, wait_until
from control.ctl.usage import NEGATIVES, Choices, whole_number
from control.options import (
    RuntimeDirOption,
)

server = typer.Typer(
    cls=Choices,
    help="Take a server out, let it come back, or change its weight; kept until it is undone, "
    "over reloads and upgrades.",
    no_args_is_help=True,
)
ServerArgument = Annotated[
    str, typer.Argument(metavar="BACKEND/SERVER", help="The server by its name or address.")
]


@server.command()
def ready(name: ServerArgument, runtime_dir: RuntimeDirOption = None) -> None:
    """Let a server have sessions again."""
    _set_admin(name, "ready", runtime_dir)


@server.command()
def drain(name: ServerArgument, runtime_dir: RuntimeDirOption = None) -> None:
    """Give it no new sessions and let those it has finish, however long they take."""
    _set_admin(name, "drain", runtime_dir)


@server.command()
def maint(name: ServerArgument, runtime_dir: RuntimeDirOption = None) -> None:
    """Give it no new sessions and check it no more: it is down, whatever it says."""
    _set_admin(name, "maint", runtime_dir)


def _weight(text: str) -> int:
    """Return the number, -1 for what is configured."""
    if text == "default":
        return -1
    try:
        return whole_number(0, MAX_WEIGHT)(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(f'{error.message}, or "default"') from None


@server.command(context_settings=NEGATIVES)
def weight(
    name: ServerArgument,
    weight: Annotated[
        int,
        typer.Argument(
            metavar="N",
            parser=_weight,
            help=f'A number from 0 to {MAX_WEIGHT}, or "default": as configured.',
        ),
    ],
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Give it N parts of new sessions in place of what the configuration says."""
    found = _set(SetServer(name, weight=weight), runtime_dir)
    typer.echo(f"{name} has weight {found.weight}")


def _set_admin(name: str, admin: Admin, runtime_dir: RuntimeDirOption) -> None:
    found = _set(SetServer(name, admin=admin), runtime_dir)
    left = f"; it has {found.connections} connection(s)" if admin != "ready" else ""
    typer.echo(f"{name} is set to {admin}{left}")


def _set(request: SetServer, runtime_dir: RuntimeDirOption) -> ServerStatus:
    """Ask for it and wait until every worker knows; returns the server as it is then."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    epoch = command(directory, request)
    status = wait_until(directory, epoch, f"setting {request.server}", lambda _: True)
    found = find(status, request.server)
    if found is None:
        raise AegisError(f"{request.server} has gone meanwhile")
    return found


def find(status: Status, name: str) -> ServerStatus | None:
    """Return the server that is called BACKEND/SERVER."""
    backend_name, _, server_name = name.partition("/")
    for backend in status.backends:
        for each in backend.servers if backend.name == backend_name else ():
            if server_name in {each.name, each.address}:
                return each
    return None

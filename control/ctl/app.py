"""The command line of aegis-ctl: exit code 0 done, 1 not done (with why), 2 usage."""

import sys
from typing import Annotated

import typer

from aegis.errors import AegisError
from control.ctl.check import check
from control.ctl.drain import drain
from control.ctl.elsewhere import ControllerOption, KeysOption
from control.ctl.keys import keys
from control.ctl.limits import limits
from control.ctl.reload import reload
from control.ctl.scale import scale
from control.ctl.server import server
from control.ctl.servers import servers
from control.ctl.sessions import session, sessions
from control.ctl.start import start
from control.ctl.status import status
from control.ctl.stop import stop
from control.ctl.top import top
from control.ctl.upgrade import upgrade
from control.ctl.usage import NEGATIVES

app = typer.Typer(
    name="aegis-ctl",
    help="Run and steer Aegis, the proxy that shields databases.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
CHANGING = (start, drain, stop, reload, scale, upgrade)
SEEING = (status, servers, limits, sessions, top, check, keys)
for command in CHANGING + SEEING:
    app.command(context_settings=NEGATIVES if command is scale else None)(command)
app.add_typer(server, name="server")
app.add_typer(session, name="session")


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
    controller: ControllerOption = None,
    keys: KeysOption = None,
) -> None:
    del controller, keys  # their callbacks have noted them
    if show_version:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and asked for seldom

        typer.echo(f"aegis {version('aegis-proxy')}")
        raise typer.Exit


def main() -> None:
    """Entry point: errors that have an explanation are one, not a traceback."""
    try:
        app()
    except AegisError as error:
        typer.echo(f"aegis-ctl: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""aegis-ctl reload."""

from typing import Annotated

import typer

from aegis.messages import Reload
from aegis.runtime import default_runtime_dir
from control.ctl.client import command, need_controller
from control.ctl.replaced import wait_until_replaced
from control.options import (
    RuntimeDirOption,
)


def reload(
    force: Annotated[
        bool, typer.Option("--force", help="Replace every worker although nothing has changed.")
    ] = False,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Read the configuration file again; replace what it has changed, losing no connection."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    epoch = command(directory, Reload(force))
    status = wait_until_replaced(directory, "reloading", lambda s: s.epoch >= epoch)
    typer.echo(f"aegis is {status.phase} with {status.controller.config}")

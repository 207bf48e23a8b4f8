"""aegis-ctl scale."""

from typing import Annotated

import typer

from aegis.limits import MAX_WORKERS
from aegis.messages import Scale
from aegis.runtime import default_runtime_dir
from control.ctl.client import command, need_controller
from control.ctl.replaced import wait_until_replaced
from control.ctl.usage import whole_number
from control.options import (
    RuntimeDirOption,
)


def scale(
    workers: Annotated[
        int, typer.Argument(metavar="N", parser=whole_number(1, MAX_WORKERS), help="How many.")
    ],
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Have N workers until `workers` changes in the file; those too many finish first."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    epoch = command(directory, Scale(workers))
    status = wait_until_replaced(directory, "scaling", lambda s: s.epoch >= epoch)
    finishing = sum(worker.retired for worker in status.workers)
    typer.echo(
        f"aegis is {status.phase} with {workers} worker(s)"
        + (f", {finishing} more finish their sessions" if finishing else "")
    )

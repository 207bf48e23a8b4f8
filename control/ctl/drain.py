"""aegis-ctl drain."""

from typing import Annotated

import typer

from aegis.errors import AegisError
from aegis.messages import Drain
from aegis.runtime import default_runtime_dir
from control.ctl.client import command, need_controller, wait_until
from control.main import RuntimeDirOption

TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0,
        help="How long sessions may take to finish; default: drain_timeout_s of the configuration.",
    ),
]


def drain(timeout: TimeoutOption = None, runtime_dir: RuntimeDirOption = None) -> None:
    """Refuse new sessions and let the others finish; `start` serves again."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    epoch = command(directory, Drain(timeout))
    status = wait_until(
        directory, epoch, "draining", lambda s: s.phase not in {"draining", "starting"}
    )
    if status.phase != "drained":
        raise AegisError(f"the drain was called off: aegis is {status.phase}")
    cut = sum(worker.cut for worker in status.workers)
    typer.echo(f"aegis is drained; {cut} session(s) cut at a deadline since it started")

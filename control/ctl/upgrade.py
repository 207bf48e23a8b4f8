"""aegis-ctl upgrade."""

import subprocess
import sys

import typer

from aegis.errors import AegisError
from aegis.messages import Upgrade
from aegis.runtime import default_runtime_dir
from control.ctl.client import command, fetch_status, need_controller
from control.ctl.elsewhere import only_here
from control.ctl.replaced import wait_until_replaced
from control.options import (
    RuntimeDirOption,
)


def upgrade(runtime_dir: RuntimeDirOption = None) -> None:
    """Run the code that is on disk now, this command's, in place of what runs."""
    only_here("upgrade")
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    _check_that_it_runs()
    upgrades = fetch_status(directory).controller.upgrades
    command(directory, Upgrade(sys.executable))
    status = wait_until_replaced(directory, "upgrading", lambda s: s.controller.upgrades > upgrades)
    typer.echo(f"aegis is {status.phase} (pid {status.controller.pid}), all of it replaced")


def _check_that_it_runs() -> None:
    """Import what is about to be executed; a broken installation must not get that far."""
    modules = "import control.main, control.exporter.main, workers.worker"
    result = subprocess.run(
        [sys.executable, "-P", "-c", modules], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise AegisError(f"the new code does not run: {result.stderr.strip().splitlines()[-1]}")

"""aegis-ctl check."""

from pathlib import Path
from typing import Annotated

import typer

from aegis.config_file import load_config
from control.advice import advice
from control.options import (
    RuntimeDirOption,
)


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Say everything that is wrong with a configuration file; starts nothing."""
    del runtime_dir  # every command takes it, so that scripts need not know which needs it
    config = load_config(file)

    from control.cores import usable_cores  # noqa: PLC0415 - psutil, which few commands need

    for each in advice(config, config.worker_count(len(usable_cores()))):
        typer.echo(f"{file}: warning: {each}", err=True)
    typer.echo(
        f"{file}: good: {len(config.listeners)} listener(s), {len(config.backends)} backend(s)"
    )

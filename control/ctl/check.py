"""aegis-ctl check."""

from pathlib import Path
from typing import Annotated

import typer

from aegis.config_file import load_config


def check(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Say everything that is wrong with a configuration file; starts nothing."""
    config = load_config(file)
    typer.echo(
        f"{file}: good: {len(config.listeners)} listener(s), {len(config.backends)} backend(s)"
    )

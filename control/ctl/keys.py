"""aegis-ctl keys."""

from pathlib import Path
from typing import Annotated

import typer

from aegis.curve import make_keys
from control.options import (
    RuntimeDirOption,
)


def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    operator: Annotated[
        str | None,
        typer.Option("--operator", metavar="NAME", help="Only a key for one more operator."),
    ] = None,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Make the CURVE keys that `[bus]` over TCP needs; those that are there stay."""
    del runtime_dir  # every command takes it, so that scripts need not know which needs it
    made = make_keys(directory, operator)
    typer.echo(f"made in {directory}: {', '.join(made) or 'nothing, all keys are there'}")

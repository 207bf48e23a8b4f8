"""Options that several of our commands have."""

import os
from pathlib import Path
from typing import Annotated

import typer

from aegis.logs import FORMAT_VARIABLE, LOG_FORMATS

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration file.")
]
RuntimeDirOption = Annotated[
    Path | None,
    typer.Option(
        "--runtime-dir",
        metavar="DIR",
        envvar="AEGIS_RUNTIME_DIR",
        help="Directory of the bus and of who is alive.",
    ),
]
NoExporterOption = Annotated[
    bool, typer.Option("--no-exporter", help="Leave the exporter to whoever runs aegis-exporter.")
]


def _choose_format(chosen: str | None) -> str | None:
    if chosen is not None:
        if chosen not in LOG_FORMATS:
            raise typer.BadParameter(f"{chosen!r}: {' or '.join(LOG_FORMATS)}")
        os.environ[FORMAT_VARIABLE] = chosen  # for the processes that we start as well
    return chosen


LogFormatOption = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        envvar=FORMAT_VARIABLE,
        callback=_choose_format,
        help="text or json, in place of log.format of the configuration.",
    ),
]

"""Start a controller: configuration, runtime directory, claim, then the loop."""

import os
import resource
import sys
from pathlib import Path
from typing import Annotated

import typer

from aegis.config_file import find_config, load_config
from aegis.errors import AegisError
from aegis.logs import FORMAT_VARIABLE, LOG_FORMATS, configure_logging
from aegis.runtime import Claim, default_runtime_dir, drop_claim, open_runtime_dir, take_claim
from control.controller import Controller

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


def run_controller(config_file: Path, runtime_dir: Path, *, with_exporter: bool) -> None:
    """Serve in the foreground until stopped.

    Raises:
        AegisError: it could not start; nothing is left behind then.
    """
    config = load_config(config_file)
    runtime_dir = open_runtime_dir(runtime_dir)
    claim = Claim("controller", os.getpid())
    take_claim(runtime_dir, claim)
    try:
        configure_logging(config.log.format)
        _raise_fd_limit()
        Controller(config, config_file, runtime_dir, with_exporter=with_exporter).run()
    finally:
        drop_claim(runtime_dir, claim)


def _raise_fd_limit() -> None:
    """Allow as many fds as the hard limit does; workers inherit it. A session takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _main(
    config: ConfigOption = None,
    runtime_dir: RuntimeDirOption = None,
    no_exporter: NoExporterOption = False,
    log_format: LogFormatOption = None,
) -> None:
    """Run the controller of an Aegis in the foreground; `aegis-ctl` talks to it."""
    del log_format  # its callback has done it
    try:
        run_controller(
            config or find_config(),
            runtime_dir or default_runtime_dir(),
            with_exporter=not no_exporter,
        )
    except AegisError as error:
        print(f"aegis-controller: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of aegis-controller."""
    typer.run(_main)


if __name__ == "__main__":
    main()

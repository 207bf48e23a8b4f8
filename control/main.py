"""Start a controller: configuration, runtime directory, claim, then the loop."""

import logging
import os
import resource
import sys
from pathlib import Path
from typing import Annotated

import typer

from aegis.config_file import find_config, load_config
from aegis.errors import AegisError
from aegis.limits import FEW_FDS
from aegis.logs import configure_logging
from aegis.runtime import Claim, default_runtime_dir, drop_claim, open_runtime_dir, take_claim
from control.advice import advice
from control.controller import Controller
from control.cores import usable_cores
from control.handover import receive
from control.options import ConfigOption, LogFormatOption, NoExporterOption, RuntimeDirOption
from control.privileges import account_of
from control.slots import received
from control.systemd import inherited_sockets

log = logging.getLogger(__name__)


def run_controller(config_file: Path, runtime_dir: Path, *, with_exporter: bool) -> None:
    """Serve in the foreground until stopped.

    Raises:
        AegisError: it could not start; nothing is left behind then.
    """
    config = load_config(config_file)
    account = account_of(config)
    runtime_dir = open_runtime_dir(runtime_dir, owner=account.uid if account else None)
    claim = Claim("controller", os.getpid())
    claim_fd = take_claim(runtime_dir, claim)
    try:
        configure_logging(config.log.format)
        _raise_fd_limit()
        for each in advice(config, config.worker_count(len(usable_cores()))):
            log.warning("%s", each)
        Controller(
            config,
            config_file,
            runtime_dir,
            claim_fd,
            inherited_sockets(),
            with_exporter=with_exporter,
        ).run()
    finally:
        drop_claim(runtime_dir, claim)


def run_upgraded(fd: int) -> None:
    """Go on as the controller whose program we have replaced.

    Raises:
        AegisError: that is not possible; its workers go on serving without a controller.
    """
    handover = receive(fd)
    config = handover.configuration()
    configure_logging(config.log.format)
    config_file, runtime_dir = Path(handover.config_file), Path(handover.runtime_dir)
    try:
        Controller(
            config,
            config_file,
            runtime_dir,
            handover.claim_fd,
            {text: received(fd) for text, fd in handover.inherited.items()},
            with_exporter=handover.exporter is not None,
        ).run(handover)
    finally:
        drop_claim(runtime_dir, Claim("controller", os.getpid()))


def _raise_fd_limit() -> None:
    """Allow as many fds as the hard limit does; workers inherit it. A session takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < FEW_FDS:
        log.warning(
            "only %d fds, about %d sessions, in each worker: raise LimitNOFILE= of the service, "
            "or `ulimit -Hn`",
            hard,
            hard // 2,
        )


def _main(
    config: ConfigOption = None,
    runtime_dir: RuntimeDirOption = None,
    no_exporter: NoExporterOption = False,
    log_format: LogFormatOption = None,
    handover: Annotated[int | None, typer.Option("--handover", hidden=True)] = None,
) -> None:
    """Run the controller of an Aegis in the foreground; `aegis-ctl` talks to it."""
    del log_format  # its callback has done it
    try:
        if handover is not None:
            run_upgraded(handover)
            return
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

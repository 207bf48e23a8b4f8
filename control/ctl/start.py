"""aegis-ctl start."""

import contextlib
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import typer

from aegis.config import config_digest
from aegis.config_file import find_config, load_config
from aegis.errors import AegisError, BusError
from aegis.limits import KILL_AFTER_S, TICK_S, WORKER_START_DEADLINE_S
from aegis.messages import Resume, Stop
from aegis.runtime import default_runtime_dir, living, open_runtime_dir
from control.ctl.client import (
    Progress,
    command,
    controller_claim,
    fetch_status,
    need_controller,
    wait_until,
)
from control.ctl.drain import ListenerOption, ServerOption
from control.ctl.elsewhere import elsewhere
from control.options import (
    ConfigOption,
    LogFormatOption,
    NoExporterOption,
    RuntimeDirOption,
)
from control.privileges import account_of

LOG_FILE = "aegis.log"


def start(
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all workers serve; log to a file.")
    ] = False,
    no_exporter: NoExporterOption = False,
    log_format: LogFormatOption = None,
    *,
    listener: ListenerOption = None,
    server: ServerOption = None,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Serve; after a drain, serve again."""
    del log_format  # its callback has done it
    directory = runtime_dir or default_runtime_dir()
    if listener is not None or server is not None:
        need_controller(directory)
        epoch = command(directory, Resume(listener, server))
        wait_until(directory, epoch, "starting", lambda s: s.epoch >= epoch)
        typer.echo(f"{listener or server} is not drained any more")
    elif elsewhere().requests or controller_claim(directory) is not None:
        _resume(directory, config)
    elif detach:
        _detach(directory, config or find_config(), no_exporter=no_exporter)
    else:
        # What only the controller needs would take every command a quarter of a second to import.
        from control.main import run_controller  # noqa: PLC0415

        run_controller(config or find_config(), directory, with_exporter=not no_exporter)


def _resume(directory: Path, config: Path | None) -> None:
    """Serve again, unless that would quietly ignore another configuration."""
    running = fetch_status(directory).controller
    if config is not None and config_digest(load_config(config)) != running.digest:
        raise AegisError(
            f"aegis runs in {directory} (pid {running.pid}) with another configuration, "
            f"{running.config}; change that file and `reload`, or stop it first"
        )
    epoch = command(directory, Resume())
    wait_until(directory, epoch, "starting", lambda s: s.phase == "serving")
    typer.echo(f"aegis is serving (pid {running.pid})")


def _detach(directory: Path, config: Path, *, no_exporter: bool) -> None:
    account = account_of(load_config(config))  # its errors belong on this terminal
    log_file = open_runtime_dir(directory, account.uid if account else None) / LOG_FILE
    arguments = ["--config", str(config.absolute()), "--runtime-dir", str(directory.absolute())]
    orphans = [claim for claim in living(directory) if claim.role == "worker"]
    with log_file.open("ab") as log:
        already = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "control.main", *arguments]
            + (["--no-exporter"] if no_exporter else []),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    try:
        _wait_for_serving(directory, child, log_file, already)
    except (AegisError, KeyboardInterrupt) as error:
        if orphans and child.poll() is None:  # they serve, and have a controller now
            raise AegisError(
                f"{error or 'interrupted'}; aegis (pid {child.pid}) goes on with the "
                f"{len(orphans)} worker(s) it has found"
            ) from None
        _give_up(directory, child)
        raise
    typer.echo(f"aegis is serving (pid {child.pid}); log: {log_file}")


def _wait_for_serving(
    directory: Path, child: subprocess.Popen[bytes], log_file: Path, already: int
) -> None:
    deadline = monotonic() + WORKER_START_DEADLINE_S
    with Progress("starting") as progress:
        while True:
            if child.poll() is not None:
                said = log_file.read_bytes()[already:].decode(errors="replace").strip()
                why = said.rpartition("aegis-controller: ")[2] or f"exit code {child.returncode}"
                raise AegisError(why)
            claim = controller_claim(directory)
            status = None
            if claim is not None and claim.pid == child.pid:
                with contextlib.suppress(BusError):  # it may be about to give up
                    status = fetch_status(directory, timeout_s=1.0)
            if status is not None:
                if status.phase == "serving":
                    return
                progress.show(status)
                flapping = [w for w in status.workers if w.state == "flapping"]
                if flapping or monotonic() > deadline:
                    late = flapping or [w for w in status.workers if w.phase != "serving"]
                    names = ", ".join(f"worker {w.slot} ({w.last_exit or w.phase})" for w in late)
                    raise AegisError(f"not all workers serve: {names}; see {log_file}")
            elif monotonic() > deadline:
                raise AegisError(f"the controller does not answer; see {log_file}")
            sleep(TICK_S)


def _give_up(directory: Path, child: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind."""
    if child.poll() is None:
        try:
            command(directory, Stop(now=True))
            child.wait(2 * KILL_AFTER_S)
        except (BusError, subprocess.TimeoutExpired):
            child.kill()

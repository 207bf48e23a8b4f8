"""aegis-ctl stop."""

import contextlib
import signal
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import typer

from aegis.errors import AegisError, BusError
from aegis.limits import KILL_AFTER_S, TICK_S
from aegis.messages import Stop
from aegis.runtime import Claim, default_runtime_dir, living, open_process, remove_sockets
from control.ctl.client import Progress, command, controller_claim, fetch_status
from control.ctl.drain import TimeoutOption
from control.ctl.elsewhere import elsewhere
from control.options import (
    RuntimeDirOption,
)
from control.process import Process
from control.servers_file import ServersFile


def stop(
    now: Annotated[bool, typer.Option("--now", help="Cut sessions instead of waiting.")] = False,
    timeout: TimeoutOption = None,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Drain, then end every process; returns when all is gone."""
    directory = runtime_dir or default_runtime_dir()
    if elsewhere().requests:
        _stop_elsewhere(directory, Stop(now, timeout))
        return
    controller = controller_claim(directory)
    if controller is not None:
        _stop_controller(directory, controller, Stop(now, timeout))
    if orphans := [c for c in living(directory) if c.supervised]:
        _stop_orphans(directory, orphans, now=now, timeout_s=timeout)
        typer.echo("aegis has stopped (its controller had died before)")
    elif controller is not None:
        typer.echo("aegis has stopped")
    else:
        with contextlib.suppress(OSError):  # no such directory
            remove_sockets(directory)  # of a controller that was killed when it had no workers
            ServersFile(directory).remove()
        typer.echo(f"aegis is not running in {directory}")


def _stop_controller(directory: Path, claim: Claim, request: Stop) -> None:
    pidfd = open_process(directory, claim)
    if pidfd is None:
        return
    process = Process(claim.pid, pidfd, None)
    command(directory, request)
    with Progress("stopping") as progress:
        while not process.wait(TICK_S):
            if controller_claim(directory) == claim:
                with contextlib.suppress(BusError):  # gone between the two questions
                    progress.show(fetch_status(directory, timeout_s=1.0))
    process.close()


def _stop_elsewhere(directory: Path, request: Stop) -> None:
    """Stop an Aegis whose processes cannot be seen from here: it is gone when it is silent."""
    command(directory, request)
    with Progress("stopping") as progress, contextlib.suppress(BusError):
        while True:
            progress.show(fetch_status(directory, timeout_s=KILL_AFTER_S))
            sleep(TICK_S)
    typer.echo("aegis has stopped, or cannot be reached any more")


def _stop_orphans(
    directory: Path, orphans: list[Claim], *, now: bool, timeout_s: float | None
) -> None:
    """End what a dead controller left: SIGTERM drains, a second one cuts, SIGKILL if that hangs."""
    processes = {}
    for claim in orphans:
        pidfd = open_process(directory, claim)
        if pidfd is not None:
            processes[claim] = Process(claim.pid, pidfd, None)
    start = monotonic()
    longest = max((claim.drain_timeout_s for claim in orphans), default=0.0)
    cut_at = start + (0.0 if now else longest if timeout_s is None else timeout_s)
    steps = [
        (start, signal.SIGTERM),
        (cut_at, signal.SIGTERM),
        (cut_at + KILL_AFTER_S, signal.SIGKILL),
    ]
    while left := [process for process in processes.values() if not process.wait(0)]:
        while steps and monotonic() >= steps[0][0]:
            _, number = steps.pop(0)
            for process in left:
                process.signal(number)
        if monotonic() > cut_at + 2 * KILL_AFTER_S:
            raise AegisError(f"still alive: {', '.join(f'pid {p.pid}' for p in left)}")
        sleep(TICK_S)
    for process in processes.values():
        process.close()
    for path in {path for claim in orphans for path in claim.unix_paths}:
        Path(path).unlink(missing_ok=True)
    living(directory)  # removes the claims' files
    ServersFile(directory).remove()
    remove_sockets(directory)

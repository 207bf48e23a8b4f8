"""The exporter's process: telemetry in, HTTP out, nothing that anybody waits for.

    workers, controller ──PUSH──▶ main thread: State ──Snapshot──▶ HTTP threads ──▶ scrapers
                                               └─▶ Hud, once a second ─▶ browsers

The controller runs it on a listening socket that outlives it (--fd); anyone else lets it bind
metrics.bind. It may be killed at any moment: the workers' next telemetry has all that it knew, and
what processes had counted that are dead by then is in a file (ledger.py).
"""

import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from math import ceil
from pathlib import Path
from time import monotonic, time
from typing import Annotated

import msgspec
import typer
import zmq

from aegis.addresses import parse_address
from aegis.config import Log
from aegis.config_file import find_config, load_config
from aegis.errors import AegisError
from aegis.limits import HEARTBEAT_S
from aegis.logs import configure_logging
from aegis.runtime import (
    Claim,
    default_runtime_dir,
    drop_claim,
    open_runtime_dir,
    take_claim,
)
from control.exporter.hud import Hud
from control.exporter.receiver import Receiver
from control.exporter.server import Server
from control.exporter.session_log import SessionLog, Written
from control.exporter.web import Site
from control.sockets import open_listener, probe

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file, for metrics.bind."),
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
FdOption = Annotated[int | None, typer.Option("--fd", hidden=True)]
LogOption = Annotated[str | None, typer.Option("--log", hidden=True)]

log = logging.getLogger(__name__)


def run_exporter(
    config_file: Path | None, runtime_dir: Path, fd: int | None, conf: Log | None
) -> None:
    """Serve until SIGTERM or SIGINT; SIGUSR1 reopens the session log.

    Args:
        config_file: None looks for one.
        runtime_dir: made if it is missing.
        fd: a bound socket to listen on, instead of the configuration's address.
        conf: the log's part of the configuration, when `fd` spares reading the file.

    Raises:
        AegisError: it could not start.
    """
    wakeup, signals = socket.socketpair()
    with wakeup, signals:
        _watch_signals(wakeup)
        address = None
        if fd is None:
            config = load_config(config_file or find_config())
            address, conf = config.metrics.bind, config.log
        conf = conf or Log()
        configure_logging(conf.format)
        runtime_dir = open_runtime_dir(runtime_dir)
        claim = Claim("exporter", os.getpid(), supervised=fd is not None)
        take_claim(runtime_dir, claim)
        try:
            sock = _inherited(fd) if fd is not None else _bound(str(address))
            with sock:
                _serve(sock, runtime_dir, signals, conf)
        finally:
            drop_claim(runtime_dir, claim)


def _watch_signals(wakeup: socket.socket) -> None:
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # the wake-up byte is what counts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # see control/process.py


def _bound(text: str) -> socket.socket:
    address = parse_address(text)
    probe(address, "metrics")
    return open_listener(address, "metrics")


def _inherited(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise AegisError(f"--fd {fd}: {error.strerror}") from None


def _serve(sock: socket.socket, runtime_dir: Path, signals: socket.socket, conf: Log) -> None:
    receiver = Receiver(runtime_dir)
    session_log = None
    try:
        if conf.sessions:
            session_log = SessionLog(runtime_dir, conf)
            session_log.start()
        snapshot = receiver.receive()
        hud = Hud(snapshot)
        site = Site(snapshot, hud)
        server = Server(sock, site)
        server.start()
        log.info("exporter: HUD and /metrics on %s port %d", server.server_name, server.server_port)
        poller = zmq.Poller()
        poller.register(receiver.socket, zmq.POLLIN)
        poller.register(signals.fileno(), zmq.POLLIN)
        try:
            next_tick = now = monotonic()
            while True:
                if signals.fileno() in dict(poller.poll(ceil((next_tick - now) * 1000))):
                    if set(signals.recv(256)) != {signal.SIGUSR1}:
                        break
                    if session_log is not None:
                        session_log.reopen()
                written = session_log.counts if session_log is not None else Written()
                site.snapshot = replace(receiver.receive(), session_log=written)
                now = monotonic()
                if now >= next_tick:
                    next_tick = max(next_tick + HEARTBEAT_S, now + HEARTBEAT_S / 2)
                    hud.see(site.snapshot, now, time())
                    receiver.save(site.snapshot)
                if not server.running:
                    raise AegisError("the HTTP thread has ended")
        finally:
            server.stop()
            hud.streams.close()
    finally:
        if session_log is not None:
            session_log.stop()
        receiver.close()


def _main(
    config: ConfigOption = None,
    runtime_dir: RuntimeDirOption = None,
    fd: FdOption = None,
    log_settings: LogOption = None,
) -> None:
    """Show the workers' telemetry over HTTP on metrics.bind: the HUD and Prometheus metrics."""
    try:
        conf = msgspec.json.decode(log_settings, type=Log) if log_settings else None
        run_exporter(config, runtime_dir or default_runtime_dir(), fd, conf)
    except (AegisError, OSError) as error:
        print(f"aegis-exporter: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of aegis-exporter."""
    typer.run(_main)

"""The exporter's process: telemetry in, HTTP out, nothing that anybody waits for.

    workers, controller ──PUSH──▶ main thread: State ──Snapshot──▶ HTTP threads ──▶ scrapers
                                               └─▶ Hud, once a second ─▶ browsers

The controller runs it on a listening socket that outlives it (--fd) and tells it the configuration
on its standard input; anyone else lets it read the file and bind metrics.bind. It may be killed at
any moment: the workers' next telemetry has all that it knew, what processes had counted that are
dead by then is in a file (ledger.py), and so are the charts and events (memory.py).
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
from aegis.config import Config
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
from control.exporter.state import Snapshot
from control.exporter.web import Site
from control.options import RuntimeDirOption
from control.sockets import open_listener, probe

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file, for metrics.bind."),
]
FdOption = Annotated[int | None, typer.Option("--fd", hidden=True)]

log = logging.getLogger(__name__)


def run_exporter(config: Config, runtime_dir: Path, fd: int | None) -> None:
    """Serve until SIGTERM or SIGINT; SIGUSR1 reopens the session log.

    Args:
        config: says where, what of sessions, and how to reach workers elsewhere.
        runtime_dir: made if it is missing.
        fd: a bound socket to listen on, instead of the configuration's address.

    Raises:
        AegisError: it could not start.
    """
    wakeup, signals = socket.socketpair()
    with wakeup, signals:
        _watch_signals(wakeup)
        configure_logging(config.log.format)
        runtime_dir = open_runtime_dir(runtime_dir)
        claim = Claim("exporter", os.getpid(), supervised=fd is not None)
        take_claim(runtime_dir, claim)
        try:
            with _inherited(fd) if fd is not None else _bound(config.metrics.bind) as sock:
                _serve(sock, runtime_dir, signals, config)
        finally:
            drop_claim(runtime_dir, claim)


def _watch_signals(wakeup: socket.socket) -> None:
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # the wake-up byte is what counts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # see control/process.py


def _bound(text: str) -> socket.socket:
    if not text:
        raise AegisError("metrics.bind is empty: there is to be no exporter")
    address = parse_address(text)
    probe(address, "metrics")
    return open_listener(address, "metrics")


def _inherited(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise AegisError(f"--fd {fd}: {error.strerror}") from None


def _serve(sock: socket.socket, runtime_dir: Path, signals: socket.socket, config: Config) -> None:
    receiver = Receiver(runtime_dir, config.bus)
    session_log = None
    try:
        if config.log.sessions:
            session_log = SessionLog(runtime_dir, config.log, config.bus)
            session_log.start()
        snapshot = receiver.receive()
        hud = Hud(snapshot, runtime_dir)
        site = Site(snapshot, hud)
        server = Server(sock, site)
        server.start()
        log.info("exporter: HUD and /metrics on %s port %d", server.server_name, server.server_port)
        poller = zmq.Poller()
        for source in (*receiver.inbox.sources, signals.fileno()):
            poller.register(source, zmq.POLLIN)
        try:
            next_tick = now = monotonic()
            while True:
                if signals.fileno() in dict(poller.poll(ceil((next_tick - now) * 1000))):
                    if set(signals.recv(256)) != {signal.SIGUSR1}:
                        break
                    if session_log is not None:
                        session_log.reopen()
                site.snapshot = _with_own(receiver, session_log)
                now = monotonic()
                if now >= next_tick:
                    next_tick = max(next_tick + HEARTBEAT_S, now + HEARTBEAT_S / 2)
                    hud.see(site.snapshot, now, time())
                    receiver.save(site.snapshot)
                if not server.running:
                    raise AegisError("the HTTP thread has ended")
        finally:
            server.stop()
            hud.close(keep=bool(site.snapshot.processes))
    finally:
        if session_log is not None:
            session_log.stop()
        receiver.close()


def _with_own(receiver: Receiver, session_log: SessionLog | None) -> Snapshot:
    """Return what is known by now, with what this exporter counts itself."""
    snapshot = receiver.receive()
    inboxes = [receiver.inbox] + ([session_log.inbox] if session_log is not None else [])
    return replace(
        snapshot,
        ignored={inbox.name: inbox.ignored for inbox in inboxes},
        session_log=session_log.counts if session_log is not None else Written(),
    )


def _main(
    config: ConfigOption = None, runtime_dir: RuntimeDirOption = None, fd: FdOption = None
) -> None:
    """Show the workers' telemetry over HTTP on metrics.bind: the HUD and Prometheus metrics."""
    try:
        if fd is not None:
            conf = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Config)
        else:
            conf = load_config(config or find_config())
        run_exporter(conf, runtime_dir or default_runtime_dir(), fd)
    except (AegisError, OSError, msgspec.MsgspecError) as error:
        print(f"aegis-exporter: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of aegis-exporter."""
    typer.run(_main)

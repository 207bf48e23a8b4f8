"""The controller: keeps what is wanted, tells the workers, hears them, answers aegis-ctl.

    aegis-ctl, signals ─▶ goal ──Desired, PUB──▶ workers ──Report, PUSH──▶ supervisor ─▶ Status

One thread, one poll loop; nothing in it waits for anyone. Every change is a new epoch, and the
whole desired state is published again each heartbeat, so whoever missed it hears it then.
"""

import logging
import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import zmq

from aegis import bus
from aegis.addresses import parse_address
from aegis.config import Config
from aegis.errors import AegisError
from aegis.lifecycle import Goal, ProxyPhase
from aegis.limits import HEARTBEAT_S, KILL_AFTER_S, STALE_S, TICK_S
from aegis.messages import (
    Accepted,
    ControllerStatus,
    Desired,
    Refused,
    Reply,
    Report,
    Request,
    Resume,
    SeatFigures,
    StatusRequest,
    Stop,
    Supervision,
)
from aegis.runtime import living, open_process, remove_sockets
from control.cores import usable_cores
from control.process import Process, spawn_exporter
from control.seat import Seat
from control.sockets import open_listener, probe, remove_unix_files
from control.status import build_status, proxy_phase
from control.supervisor import Supervisor

_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode

log = logging.getLogger(__name__)


class Controller:
    """One proxy. `run` needs the controller's claim on the runtime directory."""

    def __init__(
        self, config: Config, config_file: Path, runtime_dir: Path, *, with_exporter: bool
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._runtime_dir = runtime_dir
        self._started = datetime.now(UTC)
        self._epoch = 1
        self._deadline = 0.0
        self._has_served = False
        self._next_heartbeat = 0.0
        self._supervisor = Supervisor(config, usable_cores(), str(runtime_dir), self._changed)
        self._exporter = Seat("exporter", -1, self._spawn_exporter) if with_exporter else None
        self._metrics: socket.socket | None = None
        self._context = zmq.Context()
        self._wakeup, self._signals = socket.socketpair()

    def run(self) -> None:
        """Serve until stopped; leaves no process, socket or file behind.

        Raises:
            AegisError: an address cannot be bound; nothing has been started then.
        """
        orphans = self._end_orphaned_exporters()
        if not orphans:
            remove_sockets(self._runtime_dir)
        if self._exporter is not None:
            address = parse_address(self._config.metrics.bind)
            probe(address, "metrics")
            self._metrics = open_listener(address, "metrics")
        self._open_bus()
        try:
            self._adopt(orphans)
            self._supervisor.open_sockets()
            self._watch_signals()
            while not self._finished():
                self._turn()
            remove_unix_files(self._config)
        finally:
            self._supervisor.close()
            if self._metrics is not None:
                self._metrics.close()
            self._context.destroy(linger=0)
            self._wakeup.close()
            self._signals.close()
            living(self._runtime_dir)  # removes the claims of workers that were killed
            remove_sockets(self._runtime_dir)

    def _probe_drained(self) -> None:
        """A drained TCP listener does not listen: another Aegis of ours may do so there by now."""
        for listener in self._config.listeners:
            address = parse_address(listener.bind)
            if not address.is_unix:
                probe(address, f'listener "{listener.name}"')

    # --- start ---------------------------------------------------------------------------------

    def _end_orphaned_exporters(self) -> dict[int, Process]:
        """Return the workers a controller before us left behind, by pid; end its exporter.

        The exporter holds nothing that the workers' next telemetry does not bring back.
        """
        workers = {}
        for claim in living(self._runtime_dir):
            if claim.role == "controller" or not claim.supervised:
                continue
            pidfd = open_process(self._runtime_dir, claim)
            if pidfd is None:
                continue
            process = Process(claim.pid, pidfd, None)
            if claim.role == "worker":
                workers[claim.pid] = process
                continue
            process.signal(signal.SIGTERM)
            if not process.wait(KILL_AFTER_S):
                process.signal(signal.SIGKILL)
                process.wait(KILL_AFTER_S)
            process.close()
        return workers

    def _open_bus(self) -> None:
        directory = self._runtime_dir
        self._commands = bus.bind(self._context, zmq.PUB, directory, "commands")
        self._reports = bus.bind(self._context, zmq.PULL, directory, "reports")
        self._requests = bus.bind(self._context, zmq.ROUTER, directory, "requests")
        self._telemetry = bus.connect(self._context, zmq.PUSH, directory, "telemetry")

    def _adopt(self, orphans: dict[int, Process]) -> None:
        """Take in the orphans once each has applied what we publish; a silent one is retired."""
        deadline = monotonic() + STALE_S
        heard: dict[int, Report] = {}
        while orphans.keys() - heard.keys() and monotonic() < deadline:
            self._publish()
            self._reports.poll(TICK_S * 1000)
            for report in self._receive_reports():
                if report.controller == os.getpid():  # else it is older than we are
                    heard[report.figures.pid] = report
        for pid, process in orphans.items():
            self._supervisor.adopt(process, heard.get(pid))
        self._supervisor.adopted()

    def _watch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)  # the wake-up byte is what counts
        self._poller = zmq.Poller()
        for source in (self._signals.fileno(), self._reports, self._requests):
            self._poller.register(source, zmq.POLLIN)

    def _spawn_exporter(self, seat: Seat) -> Process:
        del seat
        assert self._metrics is not None
        process = spawn_exporter(
            self._config_file, self._runtime_dir, self._metrics.fileno(), self._config.log
        )
        process.serving_since = process.started  # its socket listens, so it is reachable
        return process

    # --- loop ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        for source, _ in self._poller.poll(int(TICK_S * 1000)):
            if source is self._requests:
                self._answer()
            elif source is self._reports:
                for report in self._receive_reports():
                    self._supervisor.heard(report)
                self._supervisor.share(self._epoch)
            else:
                for number in self._signals.recv(256):
                    if number == signal.SIGUSR1:
                        self._reopen_logs()
                    elif number != signal.SIGCHLD:  # which is only there to wake us
                        name = signal.Signals(number).name
                        log.info("%s", name, extra={"event": "signal", "signal": name})
                        self._stop(Stop(now=self._supervisor.goal == "stopped"))
        now = monotonic()
        self._supervisor.tick(now)
        if self._exporter is not None:
            self._exporter.reap(now, expected=self._exporter_may_go())
            self._exporter.tick(now, start=not self._exporter_may_go())
        self._has_served |= self._phase() == "serving"
        if now >= self._next_heartbeat:
            self._publish()
            self._next_heartbeat = now + HEARTBEAT_S

    def _reopen_logs(self) -> None:
        """Pass SIGUSR1 on to who has the session log's file."""
        if self._exporter is not None and self._exporter.current is not None:
            self._exporter.current.signal(signal.SIGUSR1)

    def _finished(self) -> bool:
        if not self._exporter_may_go():
            return False
        if self._exporter is None or self._exporter.current is None:
            return True
        process = self._exporter.current
        if process.kill_at is None:
            process.signal(signal.SIGTERM)
            process.kill_at = monotonic() + KILL_AFTER_S
        return False

    def _exporter_may_go(self) -> bool:
        return self._supervisor.goal == "stopped" and not self._supervisor.processes

    def _receive_reports(self) -> list[Report]:
        reports = []
        while True:
            try:
                reports.append(_decode_report(self._reports.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return reports
            except bus.UNREADABLE as error:
                log.warning("report not understood: %s", error)

    def _publish(self) -> None:
        supervisor = self._supervisor
        bus.send(
            self._commands,
            Desired(
                controller=os.getpid(),
                epoch=self._epoch,
                goal=supervisor.goal,
                deadline=self._deadline,
                shares=supervisor.shares.of(p.pid for p in supervisor.processes),
                retired=supervisor.retired,
            ),
        )
        seats = supervisor.seats + ([self._exporter] if self._exporter is not None else [])
        figures = [SeatFigures(seat.slot, seat.state, seat.restarts) for seat in seats]
        bus.send(self._telemetry, Supervision(self._phase(), self._epoch, figures))

    def _phase(self) -> ProxyPhase:
        return proxy_phase(self._supervisor, has_served=self._has_served)

    # --- requests ------------------------------------------------------------------------------

    def _answer(self) -> None:
        while True:
            try:
                frames: list[Any] = self._requests.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                reply = self._handle(_decode_request(frames[-1]))
            except bus.UNREADABLE as error:
                reply = Refused(f"request not understood: {error}")
            self._requests.send_multipart([*frames[:-1], msgspec.msgpack.encode(reply)])

    def _handle(self, request: Request) -> Reply:
        goal = self._supervisor.goal
        if isinstance(request, StatusRequest):
            return self._status()
        if isinstance(request, Stop):
            return self._stop(request)
        if goal == "stopped":
            return Refused("aegis is stopping")
        if isinstance(request, Resume):
            try:
                if self._phase() == "drained":
                    self._probe_drained()
            except AegisError as error:
                return Refused(str(error))
            return self._set_goal("serving", None)
        return self._set_goal("drained", request.timeout_s)

    def _stop(self, request: Stop) -> Accepted:
        return self._set_goal("stopped", 0.0 if request.now else request.timeout_s)

    def _set_goal(self, goal: Goal, timeout_s: float | None) -> Accepted:
        """Move to a goal; the one that is set already keeps its deadline unless told another."""
        if goal != self._supervisor.goal or timeout_s is not None:
            log.info("goal: %s", goal, extra={"event": "goal", "goal": goal})
            timeout_s = self._config.drain_timeout_s if timeout_s is None else timeout_s
            self._supervisor.goal = goal
            self._deadline = 0.0 if goal == "serving" else monotonic() + timeout_s
            for process in self._supervisor.processes if goal == "stopped" else []:
                process.kill_at = self._deadline + KILL_AFTER_S
            self._changed()
        return Accepted(self._epoch)

    def _changed(self) -> int:
        """Publish a new epoch at the end of this turn; returns it."""
        self._epoch += 1
        self._next_heartbeat = 0.0
        return self._epoch

    def _status(self) -> Reply:
        controller = ControllerStatus(
            pid=os.getpid(),
            started=self._started.isoformat(timespec="seconds"),
            config=str(self._config_file),
            digest=self._supervisor.digest,
        )
        phase = self._phase()
        status = build_status(self._supervisor, self._exporter, controller, phase, self._epoch)
        if phase not in {"draining", "stopping"}:
            return status
        return msgspec.structs.replace(status, cut_in_s=max(0.0, self._deadline - monotonic()))

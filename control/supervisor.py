"""Desired against actual, for processes: every slot has a worker, the exporter's seat an exporter.

A worker that died, one that a controller before us left behind with another configuration, and one
that someone sent SIGTERM are the same case: the slot wants a successor on the same sockets.

    orphans ──adopt──▶ seats ◀──spawn, reap── tick()      retired (pid → deadline) ─▶ Desired
"""

import logging
import os
import socket
from collections.abc import Callable
from time import monotonic

from aegis.addresses import parse_address
from aegis.config import Config, config_digest
from aegis.errors import AegisError
from aegis.figures import BackendFigures
from aegis.lifecycle import Goal
from aegis.limits import KILL_AFTER_S
from aegis.messages import Boot, Report
from control.process import Process, spawn_worker
from control.seat import Seat
from control.shares import Need, Shares
from control.sockets import SlotSockets, addresses_of, close_all, open_slots, probe, take_over

log = logging.getLogger(__name__)


class Supervisor:
    """The workers' seats and sockets. `changed` is called when `retired` has a new entry."""

    def __init__(
        self, config: Config, cores: list[int], runtime_dir: str, changed: Callable[[], int]
    ) -> None:
        """One seat per worker; worker `i` is pinned to `cores[i % len(cores)]`."""
        count = len(cores) if config.workers == "auto" else config.workers
        self.config = config
        self.digest = config_digest(config)
        self.goal: Goal = "serving"
        self.retired: dict[int, float] = {}
        self.cpus = [cores[slot % len(cores)] for slot in range(count)]
        self.seats = [Seat(f"worker {slot}", slot, self._spawn) for slot in range(count)]
        self._runtime_dir = runtime_dir
        self._sockets: dict[int, SlotSockets] = {}
        self.shares = Shares(config)
        self._changed = changed
        self._held: set[str] = set()  # addresses that we, or workers before us, have

    # --- sockets -------------------------------------------------------------------------------

    def open_sockets(self) -> None:
        """Bind what has not been taken over from an adopted worker.

        A slot whose worker keeps its sockets to itself is left out until that worker is gone: a
        socket of ours beside it would collect connections that nobody accepts.

        Raises:
            AegisError: an address cannot be bound.
        """
        slots = {s.slot: self._sockets.setdefault(s.slot, {}) for s in self.seats if not s.current}
        for listener in self.config.listeners:
            address = parse_address(listener.bind)
            if slots and address.text not in self._held:
                probe(address, f'listener "{listener.name}"')
                self._held.add(address.text)
        open_slots(self.config, slots, self._sockets.values())

    def _spawn(self, seat: Seat) -> Process:
        try:
            self.open_sockets()  # a slot whose worker kept them to itself has none so far
        except AegisError as error:
            raise OSError(str(error)) from None
        fds = {name: sock.fileno() for name, sock in self._sockets[seat.slot].items()}
        shares = self.shares.for_new_worker(len(self.seats), self._needs())
        process = spawn_worker(
            Boot(
                slot=seat.slot,
                cpu=self.cpus[seat.slot],
                workers=len(self.seats),
                controller=os.getpid(),
                runtime_dir=self._runtime_dir,
                config=self.config,
                shares=shares,
                goal=self.goal,
                listeners=fds,
            )
        )
        self.shares.set(process.pid, shares)
        return process

    # --- connections ---------------------------------------------------------------------------

    def share(self, epoch: int) -> None:
        """Move connections to the workers whose clients wait; `epoch` is the one now in force."""
        if self.shares.move(self._needs(), epoch + 1):
            self._changed()

    def _needs(self) -> dict[str, dict[int, Need]]:
        """What each living worker has and wants of each backend, as it has last reported."""
        needs: dict[str, dict[int, Need]] = {b.name: {} for b in self.config.backends}
        for process in self.processes:
            report = process.report
            ours = report is not None and report.controller == os.getpid()
            applied = report.epoch if report is not None and ours else 0
            reported = {f.backend: f for f in report.figures.backends} if report is not None else {}
            for name, of_backend in needs.items():
                granted, believed = self.shares.need(name, process.pid, applied)
                figures = reported.get(name, BackendFigures(name))
                of_backend[process.pid] = Need(
                    granted, believed, figures.open, figures.busy, figures.waiting
                )
        return needs

    # --- processes -----------------------------------------------------------------------------

    @property
    def processes(self) -> list[Process]:
        """Every worker process there is."""
        return [process for seat in self.seats for process in seat.processes]

    def adopt(self, process: Process, report: Report | None) -> None:
        """Take in a worker of a controller before us; without a report it is only let finish."""
        slot = -1 if report is None else report.figures.slot
        seat = self.seats[slot] if 0 <= slot < len(self.seats) else None
        process.report = report
        if report is not None:
            opened = {figures.backend: figures.open for figures in report.figures.backends}
            self.shares.adopt(process.pid, opened, self._changed())
        if report is None or seat is None:
            self.seats[0].retiring.append(process)
            self.retire(process)
            return
        self._held |= addresses_of(process.pidfd, report.fds)
        sockets = take_over(process.pidfd, report.fds, self.config)
        if slot in self._sockets:
            close_all(sockets)
        else:
            self._sockets[slot] = sockets
        fit = report.config == self.digest and report.figures.phase in {"serving", "drained"}
        if fit and seat.current is None:
            fields = {"event": "adopted", "seat": seat.name, "of_pid": process.pid}
            log.info("%s: adopted pid %d", seat.name, process.pid, extra=fields)
            process.serving_since = monotonic()
            seat.current = process
        else:
            seat.retiring.append(process)  # until its successor serves it goes on, see `_judge`

    def adopted(self) -> None:
        """Retire what shares a slot with an adopted worker that serves; nobody else would."""
        for seat in self.seats:
            if seat.current is not None:
                for process in seat.retiring:
                    if process.pid not in self.retired:
                        self.retire(process)

    def heard(self, report: Report) -> None:
        """Note a worker's report."""
        for seat in self.seats:
            for process in seat.processes:
                if process.pid == report.figures.pid:
                    process.report = report
                    if process is seat.current:
                        self._judge(seat, process, report)

    def _judge(self, seat: Seat, process: Process, report: Report) -> None:
        phase = report.figures.phase
        if process.serving_since is None and phase in {"serving", "drained"}:
            process.serving_since = monotonic()
            fields = {"event": "ready", "seat": seat.name, "of_pid": process.pid, "phase": phase}
            log.info("%s: pid %d is %s", seat.name, process.pid, phase, extra=fields)
            for predecessor in seat.retiring:
                if predecessor.pid not in self.retired:
                    self.retire(predecessor)
        leaving = not report.fds  # it was sent SIGTERM, or told by a controller before us
        if leaving and self.goal != "stopped":
            fields = {"event": "leaves", "seat": seat.name, "of_pid": process.pid}
            log.info("%s: pid %d leaves its slot", seat.name, process.pid, extra=fields)
            seat.current = None
            seat.retiring.append(process)
            self.retire(process)

    def retire(self, process: Process) -> None:
        """Let a worker finish and exit; its slot is somebody else's."""
        deadline = monotonic() + self.config.drain_timeout_s
        self.retired[process.pid] = deadline
        process.kill_at = deadline + KILL_AFTER_S
        self._changed()

    def tick(self, now: float) -> None:
        """Reap, replace, kill."""
        for seat in self.seats:
            for process in seat.reap(now, expected=self.goal == "stopped"):
                self.retired.pop(process.pid, None)
                self.shares.forget(process.pid)
                self._steer_away(seat)
            seat.tick(now, start=self.goal != "stopped")

    def _steer_away(self, seat: Seat) -> None:
        """Give a flapping slot's new connections to the others, if there are any.

        Its sockets stop listening until a worker serves on them; those queued are reset, and the
        next ones hash to the sockets that listen.
        """
        others = any(o.current is not None for o in self.seats if o is not seat)
        if not (seat.flapping and others and self.goal == "serving"):
            return
        for sock in self._sockets.get(seat.slot, {}).values():
            # One that does not listen must not be shut down: see Listener.refuse.
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if sock.family != socket.AF_UNIX and listens:
                try:
                    sock.shutdown(socket.SHUT_RD)
                except OSError as error:  # ENOTCONN: it did not listen
                    log.debug("%s: %s", seat.name, error)

    def close(self) -> None:
        """Close the sockets; connections still queued there are reset."""
        for sockets in self._sockets.values():
            close_all(sockets)

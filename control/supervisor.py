"""Desired against actual, for processes: every slot has a worker of the configuration in force.

A worker that died, one that a controller before us left behind, one that someone sent SIGTERM, one
that hangs, and one that a reload or an upgrade has outdated are the same case: the slot wants a
successor on the same sockets. Who lives is retired only once the successor serves.

    orphans ──adopt──▶ seats ◀──spawn, reap── tick()      retired (pid → deadline) ─▶ Desired
                         └──fewer slots──▶ leaving ──steered away, emptied──▶ gone
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from time import monotonic

from aegis.addresses import parse_address
from aegis.config import Config, config_digest, worker_digest
from aegis.errors import AegisError
from aegis.figures import Figures
from aegis.inbox import Why
from aegis.lifecycle import Goal
from aegis.limits import HUNG_AFTER_S, HUNG_KILL_S, KILL_AFTER_S, MAX_WORKERS, STEER_SETTLE_S
from aegis.messages import Boot, Report
from control.certificates import examine
from control.needs import holders_of, needs_of, opened_by, session_limits
from control.process import Process, spawn_worker
from control.seat import Seat
from control.servers import Servers
from control.shares import Shares
from control.slots import Slots

log = logging.getLogger(__name__)


class Supervisor:
    """The workers' seats. `changed` is called when what the workers are told has changed."""

    def __init__(
        self,
        config: Config,
        cores: list[int],
        runtime_dir: str,
        *,
        slots: Slots,
        servers: Servers,
        changed: Callable[[], int],
    ) -> None:
        """One seat per worker; worker `i` is pinned to `cores[i % len(cores)]`."""
        self.config = config
        self.digest = config_digest(config)
        self.generation = 0
        self.goal: Goal = "serving"
        self.closed: set[str] = set()
        """Listeners that refuse new clients although the rest serves."""
        self.retired: dict[int, float] = {}
        self.closing: dict[int, list[str]] = {}
        self.seats: list[Seat] = []
        self.leaving: list[Seat] = []
        self.servers = servers
        self.shares = Shares(servers.limits | session_limits(config))
        self.tls = ""
        """Fingerprint of the certificates and keys that are in force."""
        self.slots = slots
        self._members: set[int] = set()
        self._reaped: deque[int] = deque(maxlen=MAX_WORKERS)  # their last words may still come
        self._leave_at: dict[Seat, float] = {}
        self._wanted = worker_digest(config)
        self._cores = cores
        self._runtime_dir = runtime_dir
        self._changed = changed
        self.resize(self.count_of(config))

    def count_of(self, config: Config) -> int:
        """Return how many workers a configuration asks for on this machine."""
        return config.worker_count(len(self._cores))

    def cpu_of(self, slot: int) -> int:
        """Return the core of a slot's worker."""
        return self._cores[slot % len(self._cores)]

    # --- what is wanted ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open what has not been taken over from an adopted worker.

        A slot whose worker keeps its sockets to itself is left out until it is to be replaced: a
        socket of ours beside it would collect connections that nobody accepts.

        Raises:
            AegisError: an address cannot be bound, or a certificate cannot be used.
        """
        self.tls = examine(self.config, served=bool(self.processes))
        self.slots.prepare(self.config, self._open_slots(len(self.seats)))

    def reconfigure(self, config: Config, count: int, *, force: bool = False) -> None:
        """Want another configuration or number of workers; only what differs is replaced.

        Raises:
            AegisError: an address cannot be bound, or a certificate cannot be used; nothing has
                changed then.
        """
        tls = examine(config)
        self._take_back(count)
        self.slots.prepare(config, self._open_slots(count))
        self.config, self.tls = config, tls
        self.digest = config_digest(config)
        self._wanted = worker_digest(config)
        self.generation += force
        self.servers.reconfigure(config)
        self.limit()
        self.closed &= {listener.name for listener in config.listeners}
        self.resize(count)
        self._changed()

    def _open_slots(self, count: int) -> list[int]:
        busy = [s.slot for s in self.seats if s.slot < count and s.current and s.current.private]
        return [slot for slot in range(count) if slot not in busy]

    def resize(self, count: int) -> None:
        """Want so many slots, whose sockets are prepared."""
        for slot in range(len(self.seats), count):
            self.seats.append(Seat(f"worker {slot}", slot, self._spawn))
        while len(self.seats) > count:
            self._let_go(self.seats.pop())

    def _take_back(self, count: int) -> None:
        """Make room on slots that are being given up and are wanted again."""
        for seat in list(self.leaving):
            if seat.slot >= count:
                continue
            goes_on = all(process.pid not in self.retired for process in seat.processes)
            if seat.slot == len(self.seats) and goes_on:
                self.leaving.remove(seat)
                self.seats.append(seat)
            else:
                self.slots.drop(seat.slot)  # its worker shuts them down; new ones are opened

    def _let_go(self, seat: Seat) -> None:
        """Give up a slot: nobody new is sent there, and what waits there is accepted first."""
        log.info("%s leaves", seat.name)
        steered = any(self._accepts(process) for process in seat.processes)
        self._leave_at[seat] = monotonic() + (STEER_SETTLE_S if steered else 0.0)
        self.leaving.append(seat)

    def is_outdated(self, process: Process) -> bool:
        """Whether a worker is not what is wanted now."""
        return process.digest != self._wanted or process.generation < self.generation

    @property
    def replacing(self) -> bool:
        """Whether a worker goes on that a reload or an upgrade has outdated."""
        return any(self.is_outdated(p) and p.pid not in self.retired for p in self.processes)

    # --- starting ------------------------------------------------------------------------------

    def _spawn(self, seat: Seat) -> Process:
        try:
            self.slots.prepare(self.config, [seat.slot])  # if its worker kept them to itself
        except AegisError as error:
            raise OSError(str(error)) from None
        if self.goal == "serving":
            self.open_doors(seat)
        shares = self.shares.for_new_worker(
            len(self.seats), needs_of(self.processes, self.shares, self.retired)
        )
        process = spawn_worker(
            Boot(
                slot=seat.slot,
                cpu=self.cpu_of(seat.slot),
                workers=len(self.seats),
                controller=os.getpid(),
                generation=self.generation,
                runtime_dir=self._runtime_dir,
                config=self.config,
                servers=self.servers.wishes,
                shares=shares,
                tls=self.tls,
                elsewhere=self.slots.elsewhere(self.config, seat.slot),
                goal=self.goal,
                drained_listeners=sorted(self.closed),
                listeners=self.slots.fds(self.config, seat.slot),
            )
        )
        process.digest, process.generation = self._wanted, self.generation
        process.binds = {each.name: parse_address(each.bind).text for each in self.config.listeners}
        self.shares.set(process.pid, shares)
        return process

    def open_doors(self, seat: Seat) -> None:
        """Let connections queue on a slot, whose worker will accept them."""
        wanted = [each for each in self.config.listeners if each.name not in self.closed]
        self.slots.listen(wanted, seat.slot)

    # --- connections ---------------------------------------------------------------------------

    def members_changed(self) -> bool:
        """Whether processes have come or gone since this was asked last."""
        before, self._members = self._members, {process.pid for process in self.processes}
        return before != self._members

    def share(self, epoch: int) -> None:
        """Move connections to the workers whose clients wait; `epoch` is the one now in force."""
        if self.shares.move(needs_of(self.processes, self.shares, self.retired), epoch + 1):
            self._changed()

    def limit(self) -> None:
        """Go by the limits that there are now."""
        limits = self.servers.limits | session_limits(self.config)
        if limits != self.shares.limits:
            self.shares.reconfigure(limits, holders_of(self.figures), self._changed())

    # --- processes -----------------------------------------------------------------------------

    @property
    def every_seat(self) -> list[Seat]:
        """The slots that are wanted, then those that are being given up."""
        return self.seats + self.leaving

    @property
    def processes(self) -> list[Process]:
        """Every worker process there is."""
        return [process for seat in self.every_seat for process in seat.processes]

    @property
    def figures(self) -> list[Figures]:
        """What every worker process has reported last."""
        return [process.report.figures for process in self.processes if process.report is not None]

    def adopt(self, process: Process, report: Report | None) -> None:
        """Take in a worker of a controller before us; without a report it is only let finish."""
        process.report = report
        seat = self._seat_of(report)
        if report is None:
            seat.retiring.append(process)
            self.retire(process, [])
            return
        self.shares.adopt(process.pid, opened_by(report.figures), self._changed())
        process.digest, process.generation = report.config, report.generation
        binds = self.slots.adopt(seat.slot, process.pidfd, report.fds)
        process.private, process.binds = binds is None, binds or dict.fromkeys(report.fds, "")
        if process.private:
            self.slots.keep_away(self.config)
        fit = seat in self.seats and report.figures.phase in {"serving", "drained"}
        if fit and report.fds and not self.is_outdated(process) and seat.current is None:
            fields = {"event": "adopted", "seat": seat.name, "of_pid": process.pid}
            log.info("%s: adopted pid %d", seat.name, process.pid, extra=fields)
            process.serving_since = monotonic()
            seat.current = process
        else:
            seat.retiring.append(process)  # until its successor serves it goes on, see `_judge`

    def _seat_of(self, report: Report | None) -> Seat:
        slot = 0 if report is None else report.figures.slot
        for seat in self.every_seat:
            if seat.slot == slot:
                return seat
        seat = Seat(f"worker {slot}", slot, self._spawn)  # fewer are wanted now
        self._leave_at[seat] = monotonic() + STEER_SETTLE_S
        self.leaving.append(seat)
        return seat

    def adopted(self) -> None:
        """Retire what shares a slot with an adopted worker that serves; nobody else would."""
        for seat in self.seats:
            if seat.current is not None:
                self._retire_predecessors(seat)

    def heard(self, report: Report) -> Why | None:
        """Note a worker's report; returns why it is to be ignored, None when it is not."""
        pid = report.figures.pid
        found = [(seat, p) for seat in self.every_seat for p in seat.processes if p.pid == pid]
        if not found:
            return None if pid in self._reaped else "foreign"
        ((seat, process),) = found
        if process.report is not None and report.figures.turns < process.report.figures.turns:
            return "old"
        process.report = report
        process.heard_at = monotonic()
        if process.hung:
            self._woke_up(seat, process)
        if process is seat.current:
            self._judge(seat, process, report)
        return None

    def _judge(self, seat: Seat, process: Process, report: Report) -> None:
        phase = report.figures.phase
        if process.serving_since is None and phase in {"serving", "drained"}:
            process.serving_since = monotonic()
            fields = {"event": "ready", "seat": seat.name, "of_pid": process.pid, "phase": phase}
            log.info("%s: pid %d is %s", seat.name, process.pid, phase, extra=fields)
            self._retire_predecessors(seat)
        leaving = not report.fds  # it was sent SIGTERM, or told by a controller before us
        if leaving and self.goal != "stopped" and seat in self.seats:
            fields = {"event": "leaves", "seat": seat.name, "of_pid": process.pid}
            log.info("%s: pid %d leaves its slot", seat.name, process.pid, extra=fields)
            seat.replace()
            self.retire(process, [])

    def _retire_predecessors(self, seat: Seat) -> None:
        for process in seat.retiring:
            if process.pid not in self.retired:
                kept = set() if process.private else self.slots.of(seat.slot).keys()
                kept &= {parse_address(each.bind).text for each in self.config.listeners}
                self.retire(process, [n for n, text in process.binds.items() if text not in kept])

    def retire(self, process: Process, closing: list[str]) -> None:
        """Let a worker finish and exit; its slot is somebody else's, or nobody's."""
        deadline = monotonic() + self.config.hard_stop_s
        if process.report is not None and process.report.leaves_by:
            deadline = min(deadline, process.report.leaves_by)
        self.retired[process.pid] = deadline
        if closing:
            self.closing[process.pid] = closing
        hangs_until = monotonic() + HUNG_KILL_S
        process.kill_at = hangs_until if process.hung else deadline + KILL_AFTER_S
        self._changed()

    # --- time ----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Reap, replace, kill."""
        may_start = self.goal != "stopped"
        for seat in self.seats:
            self._reap(seat, now, expected=not may_start)
            current = seat.current
            if current is not None and current.serving_since is not None and may_start:
                if now > current.heard_at + HUNG_AFTER_S:
                    self._hangs(seat, current, now)
                elif self.is_outdated(current):
                    seat.replace()
            seat.tick(now, start=may_start)
        for seat in list(self.leaving):
            self._reap(seat, now, expected=True)
            seat.tick(now, start=False)
        self._leave(now)
        self.slots.steer({s.slot for s in self.seats if any(map(self._accepts, s.processes))})
        self._close_what_is_not_wanted()

    def _reap(self, seat: Seat, now: float, *, expected: bool) -> None:
        for process in seat.reap(now, expected=expected):
            self._reaped.append(process.pid)
            self.retired.pop(process.pid, None)
            self.closing.pop(process.pid, None)
            self.shares.forget(process.pid)
        others = any(o.current is not None for o in self.seats if o is not seat)
        if seat.flapping and others and not any(map(self._accepts, seat.processes)):
            self.slots.shut(seat.slot)

    def _accepts(self, process: Process) -> bool:
        """Whether new connections are served by this worker, as far as we know."""
        report = process.report
        serves = report is not None and report.figures.phase == "serving"
        return serves and not process.hung and process.pid not in self.retired

    def _hangs(self, seat: Seat, process: Process, now: float) -> None:
        log.error("%s (pid %d) has been silent for %g s", seat.name, process.pid, HUNG_AFTER_S)
        process.hung = True
        process.kill_at = now + HUNG_AFTER_S + HUNG_KILL_S  # sooner once its successor serves
        seat.replace()
        seat.restarts += 1
        seat.last_exit = f"pid {process.pid} hung"

    def _woke_up(self, seat: Seat, process: Process) -> None:
        """Let a worker that has a successor by now finish like any other."""
        log.warning("%s: pid %d is back; it leaves its slot", seat.name, process.pid)
        process.hung = False
        process.kill_at = None
        if process.pid in self.retired:
            self.retire(process, self.closing.get(process.pid, []))

    def was_away(self) -> None:
        """Note that we ourselves were stopped: no worker's silence counts."""
        for process in self.processes:
            process.heard_at = monotonic()

    def _leave(self, now: float) -> None:
        """Empty the slots that are given up, one at a time: see Group about the kernel's order."""
        for seat in list(self.leaving):
            if not seat.processes:
                self.leaving.remove(seat)
                del self._leave_at[seat]
                if all(other.slot != seat.slot for other in self.every_seat):
                    self.slots.drop(seat.slot)
        for seat in self.leaving:
            left = [process for process in seat.processes if process.pid not in self.retired]
            if left and now >= self._leave_at[seat]:
                for process in left:
                    own = [n for n, t in process.binds.items() if not self.slots.is_shared(t)]
                    self.retire(process, own)
                return

    def _close_what_is_not_wanted(self) -> None:
        wanted = {parse_address(listener.bind).text for listener in self.config.listeners}
        wanted.update(*(p.binds.values() for p in self.processes if p.pid not in self.retired))
        self.slots.keep_only(wanted)

    def close(self) -> None:
        """Close the sockets; connections still queued there are reset."""
        self.slots.close()

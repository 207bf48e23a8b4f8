"""The controller: keeps what is wanted, tells the workers, hears them, answers aegis-ctl.

    aegis-ctl, signals ─▶ Wanted ──Desired, PUB──▶ workers ──Report, PUSH──▶ supervisor ─▶ Status

One thread, one poll loop; nothing in it waits for anyone. Every change is a new epoch, and the
whole desired state is published again each heartbeat, so whoever missed it hears it then.
"""

import logging
import os
import select
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import msgspec

from aegis.config import Config
from aegis.errors import AegisError
from aegis.lifecycle import ProxyPhase
from aegis.limits import HEARTBEAT_S, STALE_S, TICK_S
from aegis.messages import (
    Refused,
    Reply,
    Report,
    Request,
    SeatFigures,
    StatusRequest,
    Stop,
    Supervision,
)
from aegis.runtime import living, remove_sockets
from aegis.session_messages import SessionRequest
from aegis.status_messages import (
    ControllerStatus,
    Status,
)
from control import privileges
from control.bus import ControllerBus
from control.cores import usable_cores
from control.departed import Departed
from control.exporter_seat import ExporterSeat
from control.handover import SIGNALS, Handover, become
from control.orphans import orphaned_workers
from control.process import Process
from control.requests import Requests
from control.seat import Seat
from control.server_states import server_states
from control.servers import Servers
from control.sessions import Sessions
from control.slots import Slots
from control.sockets import SlotSockets, remove_unix_files
from control.status import build_status, proxy_phase
from control.supervisor import Supervisor
from control.systemd import Notifier
from control.wanted import Wanted

log = logging.getLogger(__name__)


class Controller:
    """One proxy. `run` needs the controller's claim on the runtime directory."""

    def __init__(
        self,
        config: Config,
        config_file: Path,
        runtime_dir: Path,
        claim_fd: int,
        inherited: SlotSockets,
        *,
        with_exporter: bool,
    ) -> None:
        """Start nothing yet; `inherited` are sockets that systemd has opened."""
        self._config_file = config_file
        self._runtime_dir = runtime_dir
        self._claim_fd = claim_fd
        self._inherited = inherited
        self._started = datetime.now(UTC)
        self._epoch = 1
        self._first_epoch = 1
        self._upgrades = 0
        self._has_served = False
        self._next_heartbeat = 0.0
        self._last_turn = 0.0
        self._servers = Servers(config, runtime_dir, self._changed)
        self._supervisor = Supervisor(
            config,
            usable_cores(),
            str(runtime_dir),
            slots=Slots(inherited),
            servers=self._servers,
            changed=self._changed,
        )
        self._sessions = Sessions(lambda: self._supervisor.processes, self._changed)
        self._departed = Departed()
        self._wanted = Wanted(self._supervisor, self._sessions, self._changed)
        self._exporter = ExporterSeat(runtime_dir) if with_exporter else None
        self._bus = ControllerBus(runtime_dir)
        self._requests = Requests(
            self._supervisor,
            self._wanted,
            self._exporter,
            self._bus,
            config_file=config_file,
            epoch=lambda: self._epoch,
        )
        self._notifier = Notifier()
        self._wakeup, self._signals = socket.socketpair()

    def run(self, handover: Handover | None = None) -> None:
        """Serve until stopped; leaves no process, socket or file behind.

        Args:
            handover: what the program that we were before an upgrade has left.

        Raises:
            AegisError: an address cannot be bound; nothing has been started then.
        """
        config = self._supervisor.config
        account = privileges.account_of(config)
        if account is not None:
            privileges.give_directory(self._runtime_dir, account)
            privileges.become(account)
        privileges.withhold_from_children()
        if handover is not None:
            self._take(handover)
        orphans = orphaned_workers(self._runtime_dir)
        if not orphans:
            remove_sockets(self._runtime_dir)
        try:
            if self._exporter is not None:
                self._exporter.use(config, self._exporter.open(config))
            self._bus.open(config.bus)
            self._adopt(orphans)
            self._supervisor.prepare()
            self._watch_signals()
            self._servers.start()
            while not self._finished():
                self._turn()
            remove_unix_files(self._supervisor.config)
            self._servers.forget()
        finally:
            self._servers.close()
            self._supervisor.close()
            if self._exporter is not None:
                self._exporter.close()
            self._bus.close()
            self._wakeup.close()
            self._signals.close()
            living(self._runtime_dir)  # removes the claims of workers that were killed
            remove_sockets(self._runtime_dir)

    # --- start ---------------------------------------------------------------------------------

    def _adopt(self, orphans: dict[int, Process]) -> None:
        """Take in the orphans once each has applied what we publish; a silent one is retired."""
        deadline = monotonic() + STALE_S
        heard: dict[int, Report] = {}
        while orphans.keys() - heard.keys() and monotonic() < deadline:
            self._publish()
            self._bus.await_report(TICK_S)
            for report in self._bus.reports():
                # Else it is older than we are, or than our last upgrade.
                if report.controller == os.getpid() and report.epoch >= self._first_epoch:
                    heard[report.figures.pid] = report
        known = [report.generation for report in heard.values()]
        self._supervisor.generation = max([self._supervisor.generation, *known])
        for pid, process in orphans.items():
            self._supervisor.adopt(process, heard.get(pid))
        self._supervisor.adopted()

    def _watch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # the wake-up byte is what counts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked if we were executed

    # --- loop ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        heard = False
        ready = self._bus.wait((self._signals.fileno(), self._servers.background.fileno()), TICK_S)
        if self._signals.fileno() in ready:
            for number in self._signals.recv(256):
                self._signalled(signal.Signals(number))
        for report in self._bus.reports():
            heard = True
            if why := self._supervisor.heard(report):
                self._bus.ignore_report(why, report)
            else:
                self._sessions.heard(report)
                alive = {process.pid for process in self._supervisor.processes}
                self._departed.heard(report, alive, self._supervisor.goal)
        self._bus.answer(self._respond)
        now = monotonic()
        if now > self._last_turn + 10 * TICK_S:
            self._supervisor.was_away()
        self._last_turn = now
        if heard:
            self._servers.observe(self._supervisor.figures)
        if self._servers.tick(now):
            self._supervisor.limit()
        self._supervisor.tick(now)
        if heard or self._supervisor.members_changed():
            self._supervisor.share(self._epoch)
        if self._exporter is not None:
            self._exporter.tick(now, may_go=self._exporter_may_go())
        self._has_served |= self._phase() == "serving"
        if now >= self._next_heartbeat:
            self._publish()
            self._next_heartbeat = now + HEARTBEAT_S
        self._notify(now)
        if self._requests.upgrade_to:
            self._upgrade()

    def _signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:  # which is only there to wake us
            return
        log.info("%s", number.name, extra={"event": "signal", "signal": number.name})
        if number == signal.SIGUSR1:
            if self._exporter is not None:
                self._exporter.reopen_logs()
        elif number == signal.SIGHUP:
            reply = self._requests.reload(force=False)
            if isinstance(reply, Refused):
                log.error("reload: nothing has changed: %s", reply.why)
        else:
            self._requests.stop(Stop(now=self._supervisor.goal == "stopped"))

    def _notify(self, now: float) -> None:
        self._notifier.alive(now)
        if self._supervisor.goal == "stopped":
            self._notifier.stopping()
        elif self._requests.upgrade_to or self._supervisor.replacing:
            self._notifier.reloading()
        elif self._has_served:
            self._notifier.ready()

    def _finished(self) -> bool:
        if not self._exporter_may_go():
            return False
        return self._exporter is None or self._exporter.has_ended()

    def _exporter_may_go(self) -> bool:
        return self._supervisor.goal == "stopped" and not self._supervisor.processes

    def _publish(self) -> None:
        self._bus.command(self._wanted.desired(self._epoch))
        seats = self._supervisor.seats + ([self._exporter.seat] if self._exporter else [])
        figures = [
            SeatFigures(seat.slot, seat.state, seat.restarts, _applied(seat)) for seat in seats
        ]
        self._bus.tell(
            Supervision(
                self._phase(),
                self._epoch,
                figures,
                server_states(self._servers),
                since=self._wanted.since,
                workers=[process.pid for process in self._supervisor.processes],
                ignored=self._bus.ignored,
            )
        )

    def _phase(self) -> ProxyPhase:
        return proxy_phase(self._supervisor, has_served=self._has_served)

    def _changed(self) -> int:
        """Publish a new epoch at the end of this turn; returns it."""
        self._epoch += 1
        self._next_heartbeat = 0.0
        return self._epoch

    # --- requests ------------------------------------------------------------------------------

    def _respond(self, request: Request) -> Reply:
        if isinstance(request, StatusRequest):
            return self._status()
        if isinstance(request, SessionRequest):
            return self._sessions.handle(request)
        return self._requests.handle(request, drained=self._phase() == "drained")

    def _status(self) -> Status:
        controller = ControllerStatus(
            pid=os.getpid(),
            started=self._started.isoformat(timespec="seconds"),
            config=str(self._config_file),
            digest=self._supervisor.digest,
            upgrades=self._upgrades,
        )
        seat = self._exporter.seat if self._exporter is not None else None
        status = build_status(
            self._supervisor,
            self._wanted,
            self._departed,
            seat,
            controller,
            phase=self._phase(),
            epoch=self._epoch,
        )
        if status.phase not in {"draining", "stopping"}:
            return status
        left_s = max(0.0, self._wanted.deadline - monotonic())
        return msgspec.structs.replace(status, cut_in_s=left_s)

    # --- upgrade -------------------------------------------------------------------------------

    def _upgrade(self) -> None:
        """Become the new program once every worker that has been started is known to it."""
        executable = self._requests.upgrade_to
        now = monotonic()
        currents = [seat.current for seat in self._supervisor.seats]
        born = all(p is None or p.serving_since is not None for p in currents)
        if not born and now < self._requests.upgrade_by:
            return
        if select.select([self._signals], [], [], 0)[0]:
            return  # first things first
        self._requests.upgrade_to = ""
        if not born:
            log.error("no upgrade: a worker that is being started does not get ready")
            return
        log.info("becoming %s", executable)
        self._bus.close(linger_s=1.0)  # replies leave first; execve(2) ends ZeroMQ's threads
        slots, orders = self._supervisor.slots.hand_over()
        try:
            become(executable, self._handover(slots, orders))
        except AegisError as error:
            log.error("no upgrade: %s", error)
            self._bus.open(self._supervisor.config.bus)

    def _handover(
        self, slots: dict[int, dict[str, int]], orders: dict[str, list[int] | None]
    ) -> Handover:
        for sock in self._inherited.values():
            sock.set_inheritable(True)
        return Handover(
            config_file=str(self._config_file),
            runtime_dir=str(self._runtime_dir),
            config=msgspec.json.encode(self._supervisor.config),
            count=len(self._supervisor.seats),
            generation=self._supervisor.generation + 1,
            epoch=self._epoch + 1,
            upgrades=self._upgrades + 1,
            claim_fd=self._claim_fd,
            slots=slots,
            orders=orders,
            inherited={text: sock.fileno() for text, sock in self._inherited.items()},
            exporter=self._exporter.hand_over() if self._exporter is not None else None,
            goal=self._supervisor.goal,
            deadline=self._wanted.deadline,
            doors_close_at=self._wanted.doors_close_at,
            listeners=self._wanted.listeners,
        )

    def _take(self, handover: Handover) -> None:
        supervisor, wanted = self._supervisor, self._wanted
        supervisor.slots.receive(handover.slots, handover.orders)
        supervisor.resize(handover.count)
        supervisor.generation = handover.generation
        supervisor.goal = handover.goal
        wanted.take(handover)
        if self._exporter is not None and handover.exporter is not None:
            self._exporter.receive(*handover.exporter)
        self._upgrades = handover.upgrades
        self._epoch = self._first_epoch = handover.epoch
        self._has_served = True


def _applied(seat: Seat) -> int | None:
    """Return the last of our epochs that the seat's worker has told of."""
    report = seat.current.report if seat.current is not None else None
    return report.epoch if report is not None and report.controller == os.getpid() else None

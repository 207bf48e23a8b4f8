"""What aegis-ctl and signals ask of the controller, and what becomes of it."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from aegis.addresses import parse_address
from aegis.config import Config
from aegis.config_file import load_config
from aegis.errors import AegisError
from aegis.limits import KILL_AFTER_S, MAX_WORKERS, UPGRADE_PATIENCE_S
from aegis.messages import (
    Accepted,
    Drain,
    Refused,
    Reload,
    Reply,
    Request,
    Resume,
    Scale,
    SetServer,
    StatusRequest,
    Stop,
    Upgrade,
)
from aegis.session_messages import SessionRequest
from control.advice import advice
from control.bus import ControllerBus
from control.certificates import examine
from control.exporter_seat import ExporterSeat
from control.sockets import probe
from control.supervisor import Supervisor
from control.wanted import Wanted

log = logging.getLogger(__name__)


class Requests:
    """Turns each request into what is wanted, or refuses it and changes nothing."""

    def __init__(
        self,
        supervisor: Supervisor,
        wanted: Wanted,
        exporter: ExporterSeat | None,
        bus: ControllerBus,
        *,
        config_file: Path,
        epoch: Callable[[], int],
    ) -> None:
        self.upgrade_to = ""
        """Python to execute in our place, once that can be done."""
        self.upgrade_by = 0.0
        self._supervisor = supervisor
        self._wanted = wanted
        self._exporter = exporter
        self._bus = bus
        self._config_file = config_file
        self._epoch = epoch

    def handle(self, request: Request, *, drained: bool) -> Reply:
        """Answer; `drained` tells whether the whole proxy is."""
        assert not isinstance(request, StatusRequest | SessionRequest)
        if isinstance(request, Stop):
            return self.stop(request)
        if self._supervisor.goal == "stopped":
            return Refused("aegis is stopping")
        if self.upgrade_to:
            return Refused("aegis is being upgraded")
        if isinstance(request, Reload):
            return self.reload(force=request.force)
        if isinstance(request, Scale):
            return self._scale(request.workers)
        if isinstance(request, Upgrade):
            self.upgrade_to = request.executable
            self.upgrade_by = monotonic() + UPGRADE_PATIENCE_S
            return Accepted(self._epoch())
        if isinstance(request, Resume):
            return self._resume(request, drained=drained)
        if isinstance(request, SetServer):
            return self._done(self._supervisor.servers.set(request))
        return self._drain(request)

    def _done(self, why_not: str) -> Reply:
        return Refused(why_not) if why_not else Accepted(self._epoch())

    def stop(self, request: Stop) -> Accepted:
        """Drain and end everything."""
        self.upgrade_to = ""
        self._wanted.move_to("stopped", 0.0 if request.now else request.timeout_s)
        for process in self._supervisor.processes:
            process.kill_at = self._wanted.deadline + KILL_AFTER_S
        return Accepted(self._epoch())

    def reload(self, *, force: bool) -> Reply:
        """Read the file again; what it says of `workers` counts if that has changed in it."""
        supervisor = self._supervisor
        if supervisor.goal == "stopped":
            return Refused("aegis is stopping")
        try:
            config = load_config(self._config_file)
            running = supervisor.config
            if (config.user, config.group) != (running.user, running.group):
                raise AegisError(
                    f"{self._config_file}: user, group: cannot change while Aegis runs"
                )
            count = len(supervisor.seats)
            if config.workers != running.workers:
                count = supervisor.count_of(config)
            opened = self._exporter.open(config) if self._exporter is not None else None
            try:
                self._bus.use(config.bus)
                self._reconfigure(config, count, force=force)
            except AegisError:
                self._bus.use(running.bus)
                if opened is not None:
                    opened.close()
                raise
        except AegisError as error:
            return Refused(str(error))
        if self._exporter is not None:
            self._exporter.use(config, opened)
        return Accepted(self._epoch())

    def _reconfigure(self, config: Config, count: int, *, force: bool) -> None:
        supervisor = self._supervisor
        same = config == supervisor.config and examine(config) == supervisor.tls
        if same and count == len(supervisor.seats) and not force:
            log.info("reload: nothing has changed")
            return
        supervisor.reconfigure(config, count, force=force)
        self._wanted.reconfigured()
        for each in advice(config, count):
            log.warning("%s", each)
        log.info("configuration %s, %d worker(s)", supervisor.digest, count)

    def _scale(self, workers: int) -> Reply:
        if not 1 <= workers <= MAX_WORKERS:
            return Refused(f"workers: {workers}: allowed is 1 to {MAX_WORKERS}")
        try:
            if workers != len(self._supervisor.seats):
                self._supervisor.reconfigure(self._supervisor.config, workers)
        except AegisError as error:
            return Refused(str(error))
        return Accepted(self._epoch())

    def _resume(self, request: Resume, *, drained: bool) -> Reply:
        servers = self._supervisor.servers
        if request.server is not None:
            return self._done(servers.set(SetServer(request.server, admin="ready")))
        if request.listener is not None:
            why = self._wanted.resume_listener(request.listener)
            if why:
                return Refused(why)
        else:
            try:
                if drained:
                    self._probe_drained()
            except AegisError as error:
                return Refused(str(error))
            self._wanted.resume_all_listeners()
            servers.end_drains()
            self._wanted.move_to("serving", None)
        if self._supervisor.goal == "serving":
            for seat in self._supervisor.seats:
                self._supervisor.open_doors(seat)
        return Accepted(self._epoch())

    def _probe_drained(self) -> None:
        """A drained TCP listener does not listen: another Aegis of ours may do so there by now."""
        for listener in self._supervisor.config.listeners:
            address = parse_address(listener.bind)
            if not self._supervisor.slots.is_shared(address.text):
                probe(address, f'listener "{listener.name}"')

    def _drain(self, request: Drain) -> Reply:
        if request.listener is not None:
            return self._done(self._wanted.drain_listener(request.listener, request.timeout_s))
        if request.server is not None:
            default_s = self._supervisor.config.drain_timeout_s
            servers = self._supervisor.servers
            return self._done(servers.drain(request.server, request.timeout_s, default_s))
        self._wanted.move_to("drained", request.timeout_s)
        return Accepted(self._epoch())

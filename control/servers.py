"""All servers of all backends: who they are, how they do, and what the workers are to make of it.

    configuration ─┐                 ┌─ checks, look-ups (control/background.py)
    discovery ─────┼─▶ KnownBackend ◀┼─ failures that workers report (control/outliers.py)
    aegis-ctl ─────┘        │        └─ time: slow start, ends of ejections
                            ▼
          ServerWishes in Desired and Boot, limits for the shares, states for status and exporter

What a controller after us has to know is kept in a file (control/servers_file.py). One thread: the
controller's.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

from aegis.config import Config
from aegis.config_backend import servers_of
from aegis.figures import CONNECT_BOUNDS_S, Figures
from aegis.lifecycle import Admin
from aegis.limits import MAX_WEIGHT
from aegis.messages import ServerWishes, SetServer
from control.background import Background, Result
from control.discovery.finding import Find, Found
from control.health.checker import Check, Checked
from control.health.rise_fall import Before
from control.known_backend import KnownBackend
from control.known_server import KnownServer, Override
from control.outliers import Outliers
from control.servers_file import FoundBefore, Saved, ServersFile

log = logging.getLogger(__name__)


class Servers:
    """The table. `changed` is called when what the workers are told has changed."""

    def __init__(self, config: Config, runtime_dir: Path, changed: Callable[[], int]) -> None:
        """Begin with what a controller before us has left; nothing is checked before `start`."""
        self.wishes: ServerWishes = {}
        self.backends: dict[str, KnownBackend] = {}
        self.background = Background()
        self._config = config
        self._changed = changed
        self._outliers = Outliers()
        self._file = ServersFile(runtime_dir)
        self._saved = self._file.read()
        self._overrides = dict(self._saved.overrides)
        self._figures: list[Figures] = []  # as reported last
        self._rows: dict[str, int] = {}
        self._look_at = 0.0
        now = monotonic()
        self._use(config, now)
        for backend in self.backends.values():
            for server in backend.servers.values():
                if server.key in self._saved.down and backend.conf.health is not None:
                    server.up, server.checked = False, True
        self.wishes = self._wishes(now)

    # --- for the controller --------------------------------------------------------------------

    def start(self) -> None:
        """Begin to check and to look."""
        self._watch()

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration; servers that stay are as they were."""
        self._config = config
        self._use(config, monotonic())
        self._watch()
        self._publish(monotonic())

    @property
    def limits(self) -> dict[str, int]:
        """Backend, or BACKEND/ADDRESS → how many connections all workers together may have."""
        limits = {b.name: b.max_connections for b in self._config.backends if b.max_connections}
        for server in self._all():
            if server.conf.max_connections:
                limits[server.key] = server.conf.max_connections
        return limits

    def tick(self, now: float) -> bool:
        """Bring what is wanted up to date; True when `limits` may be others."""
        for result in self.background.results():
            self._take(result, now)
        if now < self._look_at:
            return False
        self._publish(now)
        return True

    def observe(self, figures: list[Figures]) -> None:
        """Take in what the workers report."""
        before, self._rows = self._rows, self._outliers.rows(figures)
        self._figures = figures
        if not (before or self._rows):
            return
        self._look_at = 0.0
        for backend in self.backends.values():
            for server in backend.servers.values() if backend.conf.health is not None else ():
                if server.up and self._rows.get(server.key, 0) > before.get(server.key, 0):
                    self.background.hurry(self._check(backend, server))

    def close(self) -> None:
        """End checks and look-ups; what a controller after us has to know stays."""
        self.background.close()

    def forget(self) -> None:
        """Leave nothing to a controller after us: Aegis was stopped."""
        self._file.remove()

    # --- operators -----------------------------------------------------------------------------

    def set(self, request: SetServer, cut_at: float = 0.0) -> str:
        """Override what the configuration says of a server; returns why not, empty when done.

        Args:
            request: what is wanted.
            cut_at: of a drain: instant at which what the server still has is cut; 0 = never.
        """
        server = self._find(request.server)
        if server is None:
            known = ", ".join(each.full_name for each in self._all()) or "none"
            return f'no server "{request.server}"; known servers: {known}'
        admin, weight = server.override.admin, server.override.weight
        if request.weight is not None:
            if not -1 <= request.weight <= MAX_WEIGHT:
                return f"weight: {request.weight}: allowed is 0 to {MAX_WEIGHT}"
            weight = request.weight if request.weight >= 0 else None
        if request.admin is not None:
            admin = request.admin
        else:
            cut_at = server.override.cut_at
        self._override(server, admin, weight, cut_at if admin == "drain" else 0.0)
        return ""

    def drain(self, server: str, timeout_s: float | None, default_s: float) -> str:
        """Drain a server; without a time of its own one that drains already keeps its deadline."""
        known = self._find(server)
        draining = known is not None and known.override.admin == "drain"
        if known is not None and draining and timeout_s is None and known.override.cut_at:
            return ""
        seconds = default_s if timeout_s is None else timeout_s
        return self.set(SetServer(server, admin="drain"), monotonic() + seconds)

    def end_drains(self) -> None:
        """Let all servers that drain have sessions again."""
        for server in list(self._all()):
            if server.override.admin == "drain":
                self._override(server, "ready", server.override.weight, 0.0)

    def _override(
        self, server: KnownServer, admin: Admin, weight: int | None, cut_at: float
    ) -> None:
        override = Override(admin, weight, cut_at)
        self.backends[server.backend].set(server, override, monotonic())
        self._overrides.pop(server.key, None)
        if override != Override():
            self._overrides[server.key] = override
        self._watch()
        self._publish(monotonic())

    # --- what comes in -------------------------------------------------------------------------

    def _take(self, result: Result, now: float) -> None:
        if isinstance(result, Found):
            self._found(result, now)
            return
        backend = self.backends.get(result.check.backend)
        server = backend.servers.get(result.check.address) if backend is not None else None
        if backend is None or server is None or self._check(backend, server) != result.check:
            return  # of what is not wanted any more
        if server.override.admin != "maint":
            self._checked(backend, server, result, now)

    def _checked(
        self, backend: KnownBackend, server: KnownServer, result: Checked, now: float
    ) -> None:
        before = server.health
        server.figures.checks["failed" if result.failure else "ok"] += 1
        server.figures.seconds.observe(result.seconds, CONNECT_BOUNDS_S)
        backend.checked(server, up=result.up, why=result.failure, now=now)
        if server.health != before:
            self._look_at = 0.0

    def _found(self, found: Found, now: float) -> None:
        backend = self.backends.get(found.find.backend)
        if backend is None or found.find != self._find_of(backend):
            return
        if found.failure and found.failure != backend.discovery:
            fields = {"event": "discovery_failed", "backend": backend.conf.name}
            text = "backend %s: its servers stay as they were: %s"
            log.warning(text, backend.conf.name, found.failure, extra=fields)
        backend.discovery = found.failure
        if found.servers:
            backend.use(found.servers, self._overrides, now)
            self._watch()
            self._look_at = 0.0

    # --- what is wanted ------------------------------------------------------------------------

    def _use(self, config: Config, now: float) -> None:
        before, self.backends = self.backends, {}
        for conf in config.backends:
            backend = before.get(conf.name)
            if backend is None:
                backend = KnownBackend(conf)
            was = backend.conf
            backend.reconfigured(conf)
            self.backends[conf.name] = backend
            if not conf.discover:
                backend.discovery = ""
                backend.use(servers_of(conf.servers), self._overrides, now)
            elif not backend.known or was.discover != conf.discover:
                saved = self._saved.found.get(conf.name)
                if saved is not None and saved.discover == conf.discover:
                    backend.use(saved.servers, self._overrides, now)
                elif conf.servers:
                    backend.use(servers_of(conf.servers), self._overrides, now)
        stay = {server.key for server in self._all()}
        found = tuple(f"{b.name}/" for b in config.backends if b.discover)
        self._overrides = {
            key: override
            for key, override in self._overrides.items()
            if key in stay or key.startswith(found)  # which may find it again
        }

    def _watch(self) -> None:
        """Tell the background what to check and to look for."""
        checks: dict[Check, Before] = {}
        for backend in self.backends.values():
            for server in backend.servers.values() if backend.conf.health is not None else ():
                if server.override.admin != "maint":
                    checks[self._check(backend, server)] = _held_for(server)
        finds = {find for b in self.backends.values() if (find := self._find_of(b)) is not None}
        self.background.want(checks, finds)

    def _publish(self, now: float) -> None:
        """Work out what is wanted, and keep what a controller after us has to know."""
        for backend in self.backends.values():
            returned = backend.judge(self._rows, now)
            self._outliers.forgive([server.key for server in returned], self._figures)
        wishes = self._wishes(now)
        self._look_at = min((b.next_change(now) for b in self.backends.values()), default=0.0)
        if wishes != self.wishes:
            self.wishes = wishes
            self._changed()
        found = {
            b.conf.name: FoundBefore(b.conf.discover, tuple(s.conf for s in b.servers.values()))
            for b in self.backends.values()
            if b.conf.discover and b.known
        }
        down = sorted(server.key for server in self._all() if server.health == "down")
        self._file.write(Saved(dict(self._overrides), found, down))

    def _wishes(self, now: float) -> ServerWishes:
        return {name: b.wishes(now) for name, b in self.backends.items() if b.known}

    # --- small things --------------------------------------------------------------------------

    def _all(self) -> Iterable[KnownServer]:
        return (s for backend in self.backends.values() for s in backend.servers.values())

    def _find(self, text: str) -> KnownServer | None:
        name, _, server = text.partition("/")
        backend = self.backends.get(name)
        return backend.find(server) if backend is not None else None

    def _check(self, backend: KnownBackend, server: KnownServer) -> Check:
        health = backend.conf.health
        assert health is not None
        return Check(backend.conf.name, server.conf.address, health, self._protocol(backend))

    def _protocol(self, backend: KnownBackend) -> str:
        health = backend.conf.health
        if health is None or health.type != "ping":
            return ""
        spoken = (
            listener.protocol
            for listener in self._config.listeners
            if listener.backend == backend.conf.name and listener.protocol != "raw"
        )
        return health.protocol or next(spoken, "")

    def _find_of(self, backend: KnownBackend) -> Find | None:
        conf = backend.conf
        return Find(conf.name, conf.discover, self._config.dns) if conf.discover else None


def _held_for(server: KnownServer) -> Before:
    if not server.checked:
        return "unchecked" if server.up else "added"
    return "up" if server.up else "down"

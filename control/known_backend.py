"""The servers of one backend as the controller knows them, and the rules that hold between them.

    use: what the configuration or discovery names ─▶ servers ─▶ wishes: what workers are told

    panic      fewer servers healthy than panic_threshold_percent: health is ignored
    ejection   never more than max_ejection_percent, and never the last that is usable
    slow start begins when a server may have sessions again, or is added

Instants are CLOCK_MONOTONIC seconds; `time()` is for people. Changes of state are events.
"""

import logging
from collections.abc import Iterable, Mapping
from time import time

from aegis.config_backend import Backend, Server
from aegis.limits import SLOW_START_STEPS, TICK_S
from aegis.messages import ServerWish
from control.known_server import KnownServer, Override

log = logging.getLogger(__name__)


class KnownBackend:
    """One backend; `known` is False as long as nobody has said which servers it has."""

    def __init__(self, conf: Backend) -> None:
        self.conf = conf
        self.servers: dict[str, KnownServer] = {}
        """By address, in the configuration's order."""
        self.known = False
        self.panic = False
        self.panics = 0
        """How often it has panicked."""
        self.discovery = ""
        """What was wrong with the last look for servers."""

    # --- which servers there are ---------------------------------------------------------------

    def use(self, servers: Iterable[Server], overrides: Mapping[str, Override], now: float) -> None:
        """Have exactly these servers.

        One that is added to others gets sessions once a check has succeeded, if there are checks,
        and then slowly.
        """
        before, self.servers = self.servers, {}
        for conf in servers:
            server = before.pop(conf.address, None)
            if server is None:
                server = KnownServer(self.conf.name, conf)
                server.override = overrides.get(server.key, Override())
                if self.known:
                    server.up = self.conf.health is None
                    server.warm_from = now
                    _event(server, "server_added", "server %s is added")
            server.conf = conf
            self.servers[conf.address] = server
        for server in before.values():
            _event(server, "server_removed", "server %s is removed")
        self.known = True

    def find(self, name: str) -> KnownServer | None:
        """Return the server of that name or address."""
        for server in self.servers.values():
            if name in {server.name, server.conf.address}:
                return server
        return None

    def reconfigured(self, conf: Backend) -> None:
        """Go by other rules; whom nobody checks any more is up."""
        self.conf = conf
        for server in self.servers.values():
            if conf.health is None:
                server.up, server.checked = True, False
            if conf.outlier_detection is None:
                server.ejected_until = 0.0

    # --- what becomes of them ------------------------------------------------------------------

    def set(self, server: KnownServer, override: Override, now: float) -> None:
        """Take an operator's word."""
        before, server.override = server.override, override
        if override == before:
            return
        weight = "" if override.weight is None else f", weight {override.weight}"
        _event(server, "server_set", "server %s is set to %s", f"{override.admin}{weight}")
        if override.admin == "maint":
            server.down_at = server.down_at or now
            server.ejected_until = 0.0
            server.up, server.checked = True, False
        elif server.up:
            server.down_at = 0.0
        if before.admin == "maint" and self.conf.health is not None:
            server.up = False  # as one that is added
        if before.admin != "ready" and override.admin == "ready":
            server.warm_from = now

    def checked(self, server: KnownServer, *, up: bool, why: str, now: float) -> None:
        """Take in what a server is held for after a check."""
        was_up, known = server.up, server.checked
        server.up, server.checked = up, True
        if up and not was_up:
            server.down_at = server.ejected_until = 0.0
            server.warm_from = now
        elif was_up and not up:
            server.down_at = now
            server.figures.downs += 1
        if up != was_up or not known:
            server.since, server.why = time(), "" if up else why
            if up:
                _event(server, "server_up", "server %s is up")
            else:
                _event(server, "server_down", "server %s is down: %s", why, level=logging.WARNING)

    def judge(self, failures: Mapping[str, int], now: float) -> list[KnownServer]:
        """Eject who has failed too often in a row, let return whose time is over.

        Args:
            failures: key -> failures in a row, over all workers.
            now: the instant.

        Returns:
            Those that returned; what they did before is forgiven.
        """
        returned = []
        for server in self.servers.values():
            if server.ejected_until and now >= server.ejected_until:
                server.ejected_until = 0.0
                server.returned_at = server.warm_from = now
                server.since = time()
                returned.append(server)
                _event(server, "server_returned", "server %s may have sessions again")
            elif self._may_eject(server, failures.get(server.key, 0)):
                self._eject(server, failures[server.key], now)
        return returned

    def _may_eject(self, server: KnownServer, failures: int) -> bool:
        rule = self.conf.outlier_detection
        if rule is None or failures < rule.consecutive_failures:
            return False
        if not (server.healthy and server.wanted):
            return False
        ejected = sum(1 for each in self.servers.values() if each.ejected_until)
        usable = sum(1 for each in self.servers.values() if each.healthy and each.wanted)
        allowed = len(self.servers) * rule.max_ejection_percent // 100
        return ejected < allowed and usable > 1

    def _eject(self, server: KnownServer, failures: int, now: float) -> None:
        rule = self.conf.outlier_detection
        assert rule is not None
        if now > server.returned_at + rule.max_ejection_s:
            server.ejections_lately = 0
        server.ejections_lately += 1
        seconds = min(rule.base_ejection_s * server.ejections_lately, rule.max_ejection_s)
        server.ejected_until = now + seconds
        server.since, server.why = time(), f"{failures} failures in a row"
        server.figures.ejections += 1
        text = "server %s is ejected for %g s: %s"
        _event(server, "server_ejected", text, seconds, server.why, level=logging.WARNING)

    # --- what is wanted ------------------------------------------------------------------------

    def wishes(self, now: float) -> list[ServerWish]:
        """Return what workers are to do with each server."""
        self._consider_panic()
        shut_down = self.conf.on_marked_down == "shutdown-sessions"
        wishes = []
        for server in self.servers.values():
            reset = shut_down and server.down_at > 0 and server.is_down(panic=self.panic)
            wishes.append(
                ServerWish(
                    address=server.conf.address,
                    weight=self.weight_of(server, now),
                    backup=server.conf.backup,
                    observed=self.conf.outlier_detection is not None,
                    cut_at=server.down_at if reset else server.override.cut_at,
                    reset=reset,
                )
            )
        return wishes

    def weight_of(self, server: KnownServer, now: float) -> int:
        """Return what is left of a server's weight, in WEIGHT_UNITs."""
        return server.effective_weight(now, self.conf.slow_start_s, panic=self.panic)

    def next_change(self, now: float) -> float:
        """Return the instant at which the time alone changes what is wanted."""
        slow_s = self.conf.slow_start_s
        at = float("inf")
        for server in self.servers.values():
            if server.ejected_until:
                at = min(at, server.ejected_until)
            if server.warm_from and now < server.warm_from + slow_s:
                at = min(at, now + max(TICK_S, slow_s / SLOW_START_STEPS))
        return at

    def _consider_panic(self) -> None:
        """See whether health is to be ignored.

        Backups do not count: where no other server is healthy they serve, if they can. Nor does
        a server that was added and never checked.
        """
        wanted = [each for each in self.servers.values() if each.wanted]
        ours = [s for s in wanted if not s.conf.backup and (s.checked or s.up)]
        healthy = sum(1 for server in ours if server.healthy)
        backups = any(server.conf.backup and server.healthy for server in wanted)
        few = 100 * healthy < self.conf.panic_threshold_percent * len(ours)
        panic = few and bool(healthy or not backups)
        if panic == self.panic:
            return
        self.panic = panic
        self.panics += panic
        name, fields = self.conf.name, {"event": "panic", "backend": self.conf.name, "panic": panic}
        if panic:
            text = "backend %s panics: %d of %d servers are healthy, and health is ignored"
            log.warning(text, name, healthy, len(ours), extra=fields)
        else:
            log.info("backend %s does not panic any more", name, extra=fields)


def _event(
    server: KnownServer, event: str, text: str, *more: object, level: int = logging.INFO
) -> None:
    fields = {"event": event, "backend": server.backend, "server": server.conf.address}
    log.log(level, text, server.full_name, *more, extra=fields)

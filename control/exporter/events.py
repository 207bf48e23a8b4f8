"""What has happened lately, concluded from what changes between one second and the next.

    picture n, picture n+1 ─▶ Watcher.look() ─▶ Event, Event …  kept for HISTORY_S

Nobody sends events: a message may be lost, a state is repeated. So an event means that a state is
another than a second ago, and one that comes and goes within a second is not seen. Pure; used by
one thread.
"""

from collections import deque
from collections.abc import Iterator

from aegis import metrics
from aegis.limits import HISTORY_S, MAX_EVENTS, STALE_S
from control.exporter.counts import total_of
from control.exporter.picture import Event, Lane, Picture, Severity
from control.exporter.rates import Table
from control.exporter.state import Snapshot

_PHASES: dict[str, Severity] = {
    "serving": "good",
    "draining": "warn",
    "drained": "warn",
    "stopping": "warn",
    "unknown": "warn",
}
_HEALTH: dict[str, tuple[Severity, str]] = {
    "up": ("good", "is up"),
    "failing": ("warn", "fails now and then"),
    "down": ("bad", "is down"),
    "ejected": ("bad", "is ejected"),
    "drain": ("warn", "gets no new sessions, by an operator's word"),
    "maint": ("warn", "is under maintenance"),
}


class _Slot:
    """What is remembered of one slot."""

    def __init__(self, pid: int, restarts: int) -> None:
        self.pid = pid
        """Of the newest process; 0 before the first."""
        self.restarts = restarts
        self.state: str | None = None
        self.gone = False
        """A death or a silence has been told, a successor or a return not yet."""
        self.replaced: tuple[int, float] | None = None
        """The pid before, when the slot has another and no death is known; and until when."""


class Watcher:
    """Compares; the first picture is what it compares the second with."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        """The oldest first."""
        self._phase = ""
        self._slots: dict[int, _Slot] = {}
        self._exporter_restarts: int | None = None
        self._health: dict[tuple[str, str], str] = {}
        self._lost = False
        self._cut: float | None = None

    def look(self, picture: Picture, snapshot: Snapshot, now: float) -> bool:
        """Take in a picture and what it was made from; whether `events` are others now."""
        wall = picture.at
        new = [
            *self._of_phase(picture),
            *self._of_exporter(snapshot),
            *self._of_slots(picture, now),
            *self._of_servers(picture),
            *self._of_sessions(snapshot),
        ]
        before = len(self.events)
        while self.events and wall - self.events[0].at > HISTORY_S:
            self.events.popleft()
        expired = len(self.events) < before
        self.events.extend(Event(wall, *rest) for rest in new)
        return expired or bool(new)

    def _of_phase(self, picture: Picture) -> Iterator[tuple[str, Severity, str]]:
        before, self._phase = self._phase, picture.phase
        if picture.phase == before:
            return
        severity = _PHASES.get(picture.phase, "info")
        if picture.phase == "unknown":
            if before:
                self._lost = True
                yield "controller", severity, "The controller is not heard any more"
            return
        if self._lost:
            self._lost = False
            yield "controller", "good", "The controller is heard again"
        yield "phase", severity, f"Aegis is {picture.phase}"

    def _of_exporter(self, snapshot: Snapshot) -> Iterator[tuple[str, Severity, str]]:
        seats = snapshot.supervision.seats if snapshot.supervision is not None else []
        restarts = next((seat.restarts for seat in seats if seat.slot < 0), None)
        if self._exporter_restarts is None and restarts:
            # It is told of an earlier life of ours, whose charts and events are lost.
            yield "exporter", "warn", f"The exporter died and is back, restart {restarts}"
        if restarts is not None:
            self._exporter_restarts = restarts

    # --- workers -------------------------------------------------------------------------------

    def _of_slots(self, picture: Picture, now: float) -> Iterator[tuple[str, Severity, str]]:
        lanes = picture.workers
        newest = {lane.slot: lane for lane in lanes if not lane.retired}
        for slot, lane in sorted(newest.items()):
            known = self._slots.get(slot)
            if known is None:
                self._slots[slot] = known = _Slot(lane.pid, lane.restarts)
                known.state = lane.state
                continue
            if not lane.pid and picture.phase == "stopping":
                continue  # it has said goodbye
            yield from self._of_slot(known, lane, lanes, now)

    def _of_slot(
        self, known: _Slot, lane: Lane, lanes: list[Lane], now: float
    ) -> Iterator[tuple[str, Severity, str]]:
        name = f"Worker {lane.slot}"
        if lane.restarts > known.restarts:
            # Its successor may have been heard before the controller told of the death.
            there = known.replaced is not None
            after = f"; pid {lane.pid} serves instead" if there else ""
            yield "restart", "bad", f"{name} died, restart {lane.restarts}{after}"
            known.restarts, known.gone, known.replaced = lane.restarts, not there, None
        if lane.state != known.state:
            if lane.state == "flapping":
                yield "restart", "bad", f"{name} is flapping: it dies again and again"
            elif known.state == "flapping":
                yield "restart", "good", f"{name} has stopped flapping"
            known.state = lane.state
        if lane.pid and lane.pid != known.pid:
            if known.gone:
                yield "worker", "good", f"{name} is back as pid {lane.pid}"
            elif known.pid:
                known.replaced = (known.pid, now + STALE_S)
            known.pid, known.gone = lane.pid, False
        elif not lane.pid and known.pid and not known.gone:
            yield "worker", "warn", f"{name} (pid {known.pid}) is silent"
            known.pid, known.gone = 0, True
        yield from self._of_successor(known, lane, lanes, now)

    def _of_successor(
        self, known: _Slot, lane: Lane, lanes: list[Lane], now: float
    ) -> Iterator[tuple[str, Severity, str]]:
        """Tell of a replacement once it is clear that nobody died: the old one drains, or left."""
        if known.replaced is None:
            return
        old, until = known.replaced
        predecessor = next((each for each in lanes if each.pid == old), None)
        if predecessor is not None and predecessor.phase == "serving" and now < until:
            return
        known.replaced = None
        left = f", {predecessor.sessions} sessions finish in the old one" if predecessor else ""
        yield "reload", "info", f"Worker {lane.slot} is replaced: pid {old} → {lane.pid}{left}"

    # --- servers and sessions ------------------------------------------------------------------

    def _of_servers(self, picture: Picture) -> Iterator[tuple[str, Severity, str]]:
        for backend in picture.backends:
            for server in backend.servers:
                key = (backend.name, server.address)
                before = self._health.get(key, "unknown")
                self._health[key] = server.health
                if server.health == before or (before == "unknown" and server.health == "up"):
                    continue
                if server.health == "unknown":
                    continue
                severity, what = _HEALTH[server.health]
                why = f": {server.error}" if server.health != "up" and server.error else ""
                name = f"Server {server.address} of {backend.name}"
                yield "server", severity, f"{name} {what}{why}"

    def _of_sessions(self, snapshot: Snapshot) -> Iterator[tuple[str, Severity, str]]:
        parts = [*snapshot.folded.values(), *(heard.counts for heard in snapshot.processes)]
        cut = Table(total_of(parts)).sum(metrics.SESSIONS_CUT)
        before, self._cut = self._cut, cut
        if before is not None and cut > before:
            many = "1 session was" if cut - before == 1 else f"{cut - before:.0f} sessions were"
            yield "sessions", "warn", f"{many} cut: the time to finish was over"

"""What has happened lately, concluded from what changes between one second and the next.

    picture n, picture n+1 ─▶ Watcher.look() ─▶ Event, Event …  kept for HISTORY_S

Nobody sends events: a message may be lost, a state is repeated. So an event means that a state is
another than it was, and one that comes and goes within a second is not seen. What only becomes
known is no change: an exporter that has just started hears the controller later than it sees, and
another controller counts anew. Pure; used by one thread.
"""

from collections import deque
from collections.abc import Iterator

from aegis import metrics
from aegis.limits import HISTORY_S, MAX_EVENTS, STALE_S
from control.exporter.counts import total_of
from control.exporter.picture import Event, Lane, Picture, Severity, name_of
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
    "refused": ("bad", "could not be connected to"),
    "down": ("bad", "is down"),
    "ejected": ("bad", "is ejected"),
    "drain": ("warn", "gets no new sessions, by an operator's word"),
    "maint": ("warn", "is under maintenance"),
}


class _Slot:
    """What is remembered of one slot."""

    def __init__(self, lane: Lane) -> None:
        self.pid = lane.pid
        """Of the newest process; 0 before the first."""
        self.restarts = lane.restarts
        """What the controller said last; None: it has not spoken yet."""
        self.state = lane.state
        """The same."""
        self.gone = False
        """A death or a silence has been told, a successor or a return not yet."""
        self.replaced: tuple[int, float] | None = None
        """The pid before, when the slot has another and no death is known; and until when."""


class Watcher:
    """Compares; the first picture is what it compares the second with."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        """The oldest first."""
        self._phase = "unknown"
        self._slots: dict[int, _Slot] = {}
        self._restarts: int | None = None
        """Of the exporter."""
        self._health: dict[tuple[str, str], str] = {}
        self._lost = False
        self._cut: float | None = None

    def look(self, picture: Picture, snapshot: Snapshot, now: float) -> bool:
        """Take in a picture and what it was made from; whether `events` are others now."""
        wall = picture.at
        told_by_others = (self._phase == "unknown") != (picture.phase == "unknown")
        new = [
            *self._of_phase(picture),
            *self._of_exporter(snapshot),
            *self._of_slots(picture, now),
            *self._of_servers(picture, told_by_others=told_by_others),
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
            self._lost = True
            yield "controller", severity, "The controller is not heard any more"
        elif self._lost:
            self._lost = False
            yield "controller", "good", "The controller is heard again"
            yield "phase", severity, f"Aegis is {picture.phase}"
        elif before != "unknown":
            yield "phase", severity, f"Aegis is {picture.phase}"

    def _of_exporter(self, snapshot: Snapshot) -> Iterator[tuple[str, Severity, str]]:
        restarts = snapshot.exporter_restarts
        if restarts is None:
            return
        # What the exporter before this one knew of: a reload replaces it, but does not count.
        before = snapshot.restarts_before if self._restarts is None else self._restarts
        if before is not None and restarts > before:
            yield "exporter", "warn", f"The exporter died and is back, restart {restarts}"
        self._restarts = restarts

    # --- workers -------------------------------------------------------------------------------

    def _of_slots(self, picture: Picture, now: float) -> Iterator[tuple[str, Severity, str]]:
        lanes = picture.workers
        newest = {lane.slot: lane for lane in lanes if not lane.retired}
        for slot, lane in sorted(newest.items()):
            known = self._slots.get(slot)
            if known is None:
                self._slots[slot] = _Slot(lane)
                continue
            if not lane.pid and picture.phase == "stopping":
                continue  # it has said goodbye
            yield from self._of_slot(known, lane, lanes, now)

    def _of_slot(
        self, known: _Slot, lane: Lane, lanes: list[Lane], now: float
    ) -> Iterator[tuple[str, Severity, str]]:
        name = f"Worker {lane.slot}"
        if lane.restarts is not None:  # else the controller is silent
            yield from self._of_seat(known, lane, name)
            known.restarts, known.state = lane.restarts, lane.state
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

    def _of_seat(self, known: _Slot, lane: Lane, name: str) -> Iterator[tuple[str, Severity, str]]:
        """Tell what the controller says otherwise than before, if it had spoken before."""
        if known.restarts is None or lane.restarts is None:
            return
        if lane.restarts > known.restarts:
            # Its successor may have been heard before the controller told of the death.
            there = known.replaced is not None
            after = f"; pid {lane.pid} serves instead" if there else ""
            yield "restart", "bad", f"{name} died, restart {lane.restarts}{after}"
            known.gone, known.replaced = not there, None
        if lane.state == known.state:
            return
        if lane.state == "flapping":
            yield "restart", "bad", f"{name} is flapping: it dies again and again"
        elif known.state == "flapping":
            yield "restart", "good", f"{name} has stopped flapping"

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

    def _of_servers(
        self, picture: Picture, *, told_by_others: bool
    ) -> Iterator[tuple[str, Severity, str]]:
        """`told_by_others`: the controller's word begins or ends to count, which is no news."""
        for backend in picture.backends:
            for server in backend.servers:
                key = (backend.name, server.address)
                if server.health == "unknown":
                    continue  # what it was last counts
                before = self._health.get(key, "unknown")
                self._health[key] = server.health
                if told_by_others or server.health == before:
                    continue
                if before == "unknown" and server.health == "up":
                    continue
                severity, what = _HEALTH[server.health]
                why = f": {server.error}" if server.health != "up" and server.error else ""
                name = name_of(backend, server)
                yield "server", severity, f"Server {name} {what}{why}"

    def _of_sessions(self, snapshot: Snapshot) -> Iterator[tuple[str, Severity, str]]:
        parts = [*snapshot.folded.values(), *(heard.counts for heard in snapshot.processes)]
        cut = Table(total_of(parts)).sum(metrics.SESSIONS_CUT)
        before, self._cut = self._cut, cut
        if before is not None and cut > before:
            many = "1 session was" if cut - before == 1 else f"{cut - before:.0f} sessions were"
            yield "sessions", "warn", f"{many} cut: the time to finish was over"

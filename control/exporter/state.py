"""What the exporter has heard: the last figures of every process, the dead ones' added up.

    telemetry ─▶ receive() ─▶ processes ──fold()──▶ folded       snapshot() ─▶ HTTP threads
                              (slot, pid)           slot

A slot's counter is the sum over all processes it has had, so it does not fall when one is replaced.
A process is folded into its slot's sum when `stopped` was its last word, or when it is silent and
the controller does not list it among the living. One that is silent and alive (SIGSTOP) keeps its
entry, so that its next figures replace the last ones instead of being counted beside them; memory
is bounded by the processes that live. Without a controller nobody is folded: nobody is born either.

Pure; used by one thread. A Snapshot is never changed once it is made.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from aegis.bus import UNREADABLE
from aegis.figures import Figures
from aegis.inbox import Why
from aegis.limits import FOLD_AFTER_S, MAX_WORKERS, STALE_S
from aegis.messages import Supervision, Telemetry
from control.exporter.counts import (
    Counts,
    counters,
    is_well_formed,
    states_are_well_formed,
    total_of,
)
from control.exporter.session_log import Written

_decode: Callable[[bytes], Telemetry] = msgspec.msgpack.Decoder(Telemetry).decode


@dataclass(frozen=True)
class Heard:
    """The last word of one process."""

    figures: Figures
    counts: Counts
    at: float


@dataclass(frozen=True)
class Snapshot:
    """All that is known at one moment; instants are monotonic."""

    started: float
    processes: tuple[Heard, ...] = ()
    folded: Mapping[int, Counts] = field(default_factory=dict)
    """Slot → counters of its processes that are gone."""
    heard_at: Mapping[int, float] = field(default_factory=dict)
    """Slot → instant at which any process of it was heard last."""
    supervision: Supervision | None = None
    supervision_at: float = 0.0
    ignored: Mapping[str, Mapping[Why, int]] = field(default_factory=dict)
    """Socket of the exporter → why → what it has ignored there."""
    restarts_before: int | None = None
    """Deaths of exporters that the one before this one knew of; None: there was none."""
    session_log: Written = field(default_factory=Written)
    """What this exporter has written of the session log."""

    def fresh(self, now: float) -> list[Heard]:
        """Return the processes that were heard lately."""
        return [heard for heard in self.processes if now - heard.at <= STALE_S]

    def controller(self, now: float) -> Supervision | None:
        """Return what the controller said if it was lately."""
        return self.supervision if now - self.supervision_at <= STALE_S else None

    @property
    def exporter_restarts(self) -> int | None:
        """Return how many exporters have died, as the controller said last."""
        seats = self.supervision.seats if self.supervision is not None else []
        return next((seat.restarts for seat in seats if seat.slot < 0), None)

    def slots(self, now: float) -> set[int]:
        """Return the slots that there are: the controller's, or without one all that were heard."""
        supervision = self.controller(now)
        if supervision is None:
            return set(self.heard_at)
        fresh = {heard.figures.slot for heard in self.fresh(now)}
        return fresh | {seat.slot for seat in supervision.seats if seat.slot >= 0}


class State:
    """Collects telemetry."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._processes: dict[tuple[int, int], Heard] = {}
        self._folded: dict[int, Counts] = {}
        self._heard_at: dict[int, float] = {}
        self._supervision: Supervision | None = None
        self._supervision_at = 0.0
        self._restarts_before: int | None = None
        self._gone: deque[tuple[int, int, float]] = deque(maxlen=MAX_WORKERS)  # folded lately

    def receive(self, data: bytes, now: float) -> Why | None:
        """Take in one message; returns why it is to be ignored, None when it is not."""
        try:
            message = _decode(data)
        except UNREADABLE:
            return "malformed"
        if isinstance(message, Supervision):
            if not states_are_well_formed(message):
                return "malformed"
            if self._supervision is not None and message.since < self._supervision.since:
                return "old"  # of a controller that is dead
            self._supervision, self._supervision_at = message, now
            return None
        return self._hear(message, now) if is_well_formed(message) else "malformed"

    def restore(
        self, folded: Mapping[int, Counts], heard: Iterable[Heard], restarts: int | None
    ) -> None:
        """Begin with what an exporter before this one knew; only before anything is received."""
        self._restarts_before = restarts
        self._folded = dict(folded)
        for each in heard:
            slot, pid = each.figures.slot, each.figures.pid
            self._processes[slot, pid] = each
            self._heard_at[slot] = max(self._heard_at.get(slot, 0.0), each.at)

    def fold(self, now: float) -> None:
        """Forget the processes that are silent and dead, all but what they have counted."""
        controller = self._supervision if now - self._supervision_at <= STALE_S else None
        for (slot, pid), heard in list(self._processes.items()):
            dead = controller is not None and pid not in controller.workers
            if dead and now - heard.at > FOLD_AFTER_S:
                self._fold(slot, pid)

    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return Snapshot(
            started=self._started,
            processes=tuple(self._processes.values()),
            folded=dict(self._folded),
            heard_at=dict(self._heard_at),
            supervision=self._supervision,
            supervision_at=self._supervision_at,
            restarts_before=self._restarts_before,
        )

    def _hear(self, figures: Figures, now: float) -> Why | None:
        slot, pid = figures.slot, figures.pid
        if (slot, pid, figures.started) in self._gone:
            return "old"
        last = self._processes.get((slot, pid))
        if last is not None and figures.started != last.figures.started:
            if figures.started < last.figures.started:
                return "old"
            self._fold(slot, pid)  # another process got the pid
        elif last is not None and figures.turns < last.figures.turns:
            return "old"  # a loop does not turn back
        self._heard_at[slot] = now
        self._processes[slot, pid] = Heard(figures, counters(figures), now)
        if figures.phase == "stopped":
            self._fold(slot, pid)
        return None

    def _fold(self, slot: int, pid: int) -> None:
        # A new dict: snapshots hold the old one.
        gone = self._processes.pop((slot, pid))
        self._gone.append((slot, pid, gone.figures.started))
        self._folded[slot] = total_of([self._folded.get(slot, {}), gone.counts])

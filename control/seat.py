"""A seat: what the supervisor keeps one process on, and how it replaces one that dies.

A worker's slot is a seat, the exporter has another. The first replacement is at once, later ones
back off; after a while of serving the record is clean again.

    running ──died──▶ backoff ──time is up: spawn──▶ running
                        │ FLAPPING_DEATHS within FLAPPING_WINDOW_S
                        └─▶ flapping: still tried, every BACKOFF_MAX_S
"""

import logging
import signal
from collections import deque
from collections.abc import Callable

from aegis.lifecycle import SeatState
from aegis.limits import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    FLAPPING_DEATHS,
    FLAPPING_WINDOW_S,
    STABLE_AFTER_S,
    WORKER_START_DEADLINE_S,
)
from control.process import Process

log = logging.getLogger(__name__)


class Seat:
    """One seat. `current` serves or starts; `retiring` have a successor and finish."""

    def __init__(self, name: str, slot: int, spawn: Callable[["Seat"], Process]) -> None:
        """`spawn` starts a process for this seat; an OSError from it counts as a death."""
        self.name = name
        self.slot = slot
        self.current: Process | None = None
        self.retiring: list[Process] = []
        self.restarts = 0
        self.last_exit = ""
        self._spawn = spawn
        self._deaths: deque[float] = deque(maxlen=FLAPPING_DEATHS)
        self._backoff_s = 0.0
        self._start_at = 0.0
        self._leaver: Process | None = None

    @property
    def state(self) -> SeatState:
        """Whether a process sits here, and if not, why."""
        if self.flapping:
            return "flapping"
        return "running" if self.current is not None else "backoff"

    @property
    def flapping(self) -> bool:
        """Whether the last deaths came too close together; over once a process is stable."""
        full = len(self._deaths) == FLAPPING_DEATHS
        return full and self._deaths[-1] - self._deaths[0] < FLAPPING_WINDOW_S

    @property
    def processes(self) -> list[Process]:
        """All that live, or have not been found dead yet."""
        return self.retiring + ([self.current] if self.current is not None else [])

    def tick(self, now: float, *, start: bool) -> None:
        """Start what is missing if `start`, clean the record of what is stable, kill what hangs."""
        process = self.current
        if process is None:
            if start and now >= self._start_at:
                self._start(now)
        elif process.serving_since is None:
            if now > process.started + WORKER_START_DEADLINE_S:
                log.error(
                    "%s (pid %d) does not get ready: killing it",
                    self.name,
                    process.pid,
                    extra=self._event("not_ready", of_pid=process.pid),
                )
                process.signal(signal.SIGKILL)
        elif now > process.serving_since + STABLE_AFTER_S and self._deaths:
            self._deaths.clear()
            self._backoff_s = 0.0
        for each in self.processes:
            if each.kill_at is not None and now > each.kill_at:
                log.warning(
                    "%s (pid %d) is overdue: killing it",
                    self.name,
                    each.pid,
                    extra=self._event("overdue", of_pid=each.pid),
                )
                each.kill_at = None
                each.signal(signal.SIGKILL)

    def reap(self, now: float, *, expected: bool) -> list[Process]:
        """Take out the processes that have ended; unless `expected`, note a death of `current`."""
        ended = [process for process in self.processes if process.ended]
        for process in ended:
            process.close()
            if process in self.retiring:
                self.retiring.remove(process)
                continue
            self.current = None
            if not expected and process is not self._leaver:
                self._died(f"pid {process.pid} {process.how_it_ended}", now)
        return ended

    def expect_end(self) -> None:
        """Note that who sits here was asked to go: its end is no death."""
        self._leaver = self.current

    def replace(self) -> None:
        """Free the seat for a successor; who sat there is retired when that serves."""
        if self.current is not None:
            self.retiring.append(self.current)
            self.current = None

    def _start(self, now: float) -> None:
        try:
            self.current = self._spawn(self)
        except OSError as error:
            self._died(f"cannot start: {error}", now)
            return
        pid = self.current.pid
        log.info("%s: started pid %d", self.name, pid, extra=self._event("started", of_pid=pid))

    def _died(self, how: str, now: float) -> None:
        self.last_exit = how
        self.restarts += 1
        self._deaths.append(now)
        self._start_at = now + self._backoff_s
        fields = self._event("died", how=how)
        log.error("%s: %s; next start in %.1f s", self.name, how, self._backoff_s, extra=fields)
        self._backoff_s = min(max(self._backoff_s * 2, BACKOFF_MIN_S), BACKOFF_MAX_S)
        if self.flapping:
            fields = self._event("flapping")
            log.error(
                "%s is flapping: %d deaths in a row", self.name, FLAPPING_DEATHS, extra=fields
            )

    def _event(self, event: str, **more: object) -> dict[str, object]:
        """Return the fields of an event of this seat, for the log."""
        return {"event": event, "seat": self.name, "restarts": self.restarts} | more

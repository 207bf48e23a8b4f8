"""How many sessions this worker may have of a number that is stated for the whole proxy.

    take ─▶ there is room: it is counted ─▶ … ─▶ release ─(turn's end: its socket is closed)─▶ room
      └─ none: wait, if some of the number is elsewhere ─▶ admitted when the share has grown,
                                                       └─▶ or turned away after SHARE_WAIT_S

The share is the controller's to move (control/shares.py): it moves to where clients wait, from
where it is not used. So who comes to a worker whose share is used up is not refused at once, but
only when in SHARE_WAIT_S none was to be had.
"""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from aegis.figures import LimitFigures
from aegis.lifecycle import CloseReason
from aegis.limits import MAX_WAITING_FOR_SHARE

if TYPE_CHECKING:
    from workers.loop import Loop


class Claimant(Protocol):
    """Somebody who waits for a place."""

    def go_on(self) -> None:
        """It has one now."""
        ...


class Quota:
    """One limit in one worker; `figures` are what it tells of itself."""

    __slots__ = ("_ended", "_loop", "_waiting", "figures", "limit", "reason", "whole")

    def __init__(self, name: str, whole: int, reason: CloseReason, loop: "Loop") -> None:
        """Begin with the whole of it; `reason` is why who finds no place is refused."""
        self.figures = LimitFigures(name)
        self.whole = self.limit = whole
        self.reason: CloseReason = reason
        self._loop = loop
        self._waiting: deque[Claimant] = deque()
        self._ended = 0  # in this turn

    def take(self) -> bool:
        """Take a place, if there is one and nobody waits for it."""
        if self.figures.open >= self.limit or self._waiting:
            return False
        self.figures.open += 1
        return True

    def wait(self, claimant: Claimant) -> bool:
        """Queue for a place, which is taken when `go_on` is called; False if that is in vain."""
        if self.limit >= self.whole or len(self._waiting) >= MAX_WAITING_FOR_SHARE:
            return False
        self._waiting.append(claimant)
        self.figures.waiting += 1
        return True

    def give_up(self, claimant: Claimant) -> bool:
        """Leave the queue; False if the claimant is not in it."""
        if claimant not in self._waiting:
            return False
        self._waiting.remove(claimant)
        self.figures.waiting -= 1
        return True

    def release(self) -> None:
        """Give a place back when this turn's sockets are closed."""
        if not self._ended:
            self._loop.after_closing(self)
        self._ended += 1

    def set_limit(self, limit: int) -> None:
        """Move the share; sessions above it go on until they end."""
        self.limit = limit
        self._invite()

    def flush(self) -> None:
        """Note that what ended in this turn is closed now."""
        self.figures.open -= self._ended
        self._ended = 0
        self._invite()

    def fail(self, error: Exception) -> None:
        """Let the worker die: a count that is wrong must be made anew."""
        raise error

    def _invite(self) -> None:
        while self._waiting and self.figures.open < self.limit:
            claimant = self._waiting.popleft()
            self.figures.waiting -= 1
            self.figures.open += 1
            claimant.go_on()

    @property
    def news(self) -> tuple[bool, bool, bool]:
        """What the controller moves shares by, and is told of at once."""
        figures = self.figures
        return figures.open > self.limit, figures.open < self.limit, bool(figures.waiting)

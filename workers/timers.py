"""A coarse timer wheel: arming, disarming and firing cost O(1), nothing is done per relayed byte.

    wheel:  │ 0 │ 1 │ 2 │ … │ 511 │   one set of items per tick of TICK_S
              ▲ advance() fires every bucket up to `now`

An item is *looked at*, not fired: `expire(now)` tells when it wants to be looked at again, or 0.0
when it is done. That makes the lazy idle timeout free: traffic only writes `active_at`, and an item
whose time has not come re-arms itself. It also lets a due time lie beyond the wheel's span: the
item is looked at once per span. Nothing fires early, because buckets are rounded up to the next
tick.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from aegis.limits import TICK_S, WHEEL_SLOTS

UNARMED, WATCHED = -1, -2

log = logging.getLogger(__name__)


class Expirable(Protocol):
    """What the wheel holds; `slot` belongs to the wheel."""

    slot: int

    def expire(self, now: float) -> float:
        """Act if it is time; return the next instant to be looked at, 0.0 for none."""
        ...

    def fail(self, error: Exception) -> None:
        """Clean up after an `expire` that raised."""
        ...


class Wheel:
    """The timers of one worker. Instants are CLOCK_MONOTONIC seconds."""

    __slots__ = ("_buckets", "_tick", "_watched", "due")

    def __init__(self, now: float) -> None:
        self._buckets: list[set[Expirable]] = [set() for _ in range(WHEEL_SLOTS)]
        self._watched: list[Expirable] = []  # unless their slot says otherwise by now
        self._tick = int(now / TICK_S)  # the last tick whose bucket has been fired
        self.due = (self._tick + 1) * TICK_S
        """Instant from which `advance` has something to look at."""

    def arm(self, item: Expirable, due: float) -> None:
        """Look at an unarmed item at `due` (the next tick if that has passed; may be infinite)."""
        farthest = self._tick + WHEEL_SLOTS - 1
        tick = int(due / TICK_S) + 1 if due < farthest * TICK_S else farthest
        slot = max(tick, self._tick + 1) % WHEEL_SLOTS
        item.slot = slot
        self._buckets[slot].add(item)

    def watch(self, item: Expirable) -> None:
        """Look at an unarmed item on the next tick: for who may well be gone by then.

        A session of a few milliseconds so costs an append, and no place on the wheel.
        """
        item.slot = WATCHED
        self._watched.append(item)

    def disarm(self, item: Expirable) -> None:
        """Forget an item; nothing happens when it is not armed."""
        if item.slot >= 0:
            self._buckets[item.slot].discard(item)
        item.slot = UNARMED

    def advance(self, now: float) -> None:
        """Look at every item of the ticks that have passed, once each."""
        target = int(now / TICK_S)
        missed = min(target - self._tick, WHEEL_SLOTS)
        for behind in range(missed - 1, -1, -1):
            self._tick = target - behind
            bucket = self._buckets[self._tick % WHEEL_SLOTS]
            while bucket:  # an item may disarm or close others of the same bucket
                self._look(bucket.pop(), now)
        watched, self._watched = self._watched, []
        for item in watched:
            if item.slot == WATCHED:
                self._look(item, now)
        self.due = (self._tick + 1) * TICK_S

    def _look(self, item: Expirable, now: float) -> None:
        item.slot = UNARMED
        try:
            due = item.expire(now)
        except Exception as error:
            log.exception("a timer failed")
            item.fail(error)
            return
        if due:
            self.arm(item, due)


class Alarm:
    """A function of the time, called at `due` and again whenever it returns an instant."""

    __slots__ = ("_action", "_due", "slot")

    def __init__(self, wheel: Wheel, due: float, action: Callable[[float], float]) -> None:
        """Arm at once; `action(now)` returns the next instant, 0.0 for none."""
        self.slot = UNARMED
        self._due = due
        self._action = action
        wheel.arm(self, due)

    def expire(self, now: float) -> float:
        """Call the action if its time has come."""
        if now < self._due:
            return self._due
        self._due = self._action(now)
        return self._due

    def fail(self, error: Exception) -> None:
        """Let the worker die: it cannot do its work without its alarms, and is replaced."""
        raise error

"""What has to wait for the next turn, so much of it in each, and epoll knows nothing of it.

    put ─▶ items ──bell rings: next turn, at most so many──▶ item.flush()

The bell is an eventfd that is always readable and stands in epoll only while there are items
(eventfd(2)), so that the loop comes round at once and needs no rule of its own for this.
"""

import logging
import os
from collections import deque

from workers.loop import READ, Flushable, Loop

log = logging.getLogger(__name__)


class Backlog:
    """A queue of things to do; each is in it once at most, which is the caller's to see to."""

    __slots__ = ("_bell", "_items", "_loop", "_most", "_rings")

    def __init__(self, loop: Loop, most: int) -> None:
        """Do at most `most` of them in a turn."""
        self._loop = loop
        self._most = most
        self._items: deque[Flushable] = deque()
        self._rings = False
        self._bell = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, item: Flushable) -> None:
        """Have `item.flush()` called in one of the next turns."""
        self._items.append(item)
        if not self._rings:
            self._rings = True
            self._loop.add(self._bell, READ, self)

    def discard(self, item: Flushable) -> None:
        """Forget an item, if it is there."""
        if item in self._items:
            self._items.remove(item)

    def on_readable(self, mask: int) -> None:  # noqa: ARG002 - the bell only rings
        """Do what this turn has room for; what is put meanwhile is the next one's."""
        for _ in range(min(len(self._items), self._most)):
            if not self._items:  # one has discarded others
                break
            item = self._items.popleft()
            try:
                item.flush()
            except Exception as error:
                log.exception("what was put off failed")
                item.fail(error)
        if not self._items:
            self._rings = False
            self._loop.remove(self._bell)

    def fail(self, error: Exception) -> None:
        """Let the worker die: what waits here would wait for ever."""
        raise error

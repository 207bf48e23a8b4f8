"""Ends the sessions of clients that say nothing: a connection is held open for those who use it.

    watch ─▶ queue, in the order of the deadlines ─▶ at each: has it said something? ─▶ end it

One timer for all sessions of a listener, since all have the same time. Their bytes are counted one
by one for that (Tally), which only sessions of such listeners pay for. A server may speak first: it
is the client that has to say something, some time, and not before a server is dialled.
"""

from collections import deque
from typing import TYPE_CHECKING

from workers.loop import Loop
from workers.tally import Tally
from workers.timers import Alarm

if TYPE_CHECKING:
    from workers.session import Session
    from workers.shared import SharedSession


class FirstBytes:
    """The sessions of one listener that have begun lately."""

    def __init__(self, loop: Loop, timeout_s: float) -> None:
        """Give each so long."""
        self._loop = loop
        self._timeout_s = timeout_s
        self._begun: deque[tuple[float, Session | SharedSession]] = deque()

    def watch(self, session: "Session | SharedSession") -> None:
        """Look at a session that is about to begin when its time is over."""
        if session.note is None:  # else they are counted for the log
            session.bytes = Tally(session.listener.figures.bytes)
        if not self._begun:
            Alarm(self._loop.wheel, self._loop.now + self._timeout_s, self._look)
        self._begun.append((self._loop.now + self._timeout_s, session))

    def _look(self, now: float) -> float:
        while self._begun and self._begun[0][0] <= now:
            _, session = self._begun.popleft()
            if session in session.listener.sessions and not session.bytes[0]:
                session.refuse("first_byte_timeout")
        return self._begun[0][0] if self._begun else 0.0

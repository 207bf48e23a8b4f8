"""What one client address may have at once, and how fast it may come: of IPv6 its /64 counts.

    admit ─▶ sessions < most, a token in the bucket ─▶ counted ─▶ … ─▶ left
                                                         the bucket is full again ─▶ forgotten

These numbers are this worker's own. They are exact for the whole proxy because all connections of
an address come to one worker (control/steering.py), or because one worker accepts alone.

A bucket is two numbers: how many tokens there were, and when (a leaky bucket as a meter is the same
with the signs turned). An address is forgotten once it has no session and its bucket is full, so
that what is known is bounded by who came within the time that a bucket takes to fill.
"""

from collections import deque
from collections.abc import Hashable

from aegis.lifecycle import CloseReason
from workers.loop import Loop
from workers.timers import Alarm

Key = Hashable
"""Of an address: `site_of` it."""


class _Client:
    """What is known of one address."""

    __slots__ = ("at", "queued", "sessions", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.sessions = 0
        self.queued = False  # to be forgotten
        self.tokens = tokens
        self.at = at


class Clients:
    """The addresses that have sessions at a listener, or had some lately."""

    def __init__(self, most: int, rate: float, burst: int, loop: Loop) -> None:
        """Allow `most` sessions at once, `rate` new ones a second and `burst` at once; 0: any."""
        self._most = most
        self._rate = rate
        self._burst = float(burst or max(1.0, rate))
        self._fills_s = self._burst / rate if rate else 0.0
        self._loop = loop
        self._known: dict[Key, _Client] = {}
        self._idle: deque[tuple[float, Key]] = deque()  # when to look whether to forget whom
        self._looks = False

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, key: Key) -> CloseReason | None:
        """Count a new session of a client; returns why not, if it may not have one."""
        now = self._loop.now
        client = self._known.get(key)
        if client is None:
            client = self._known[key] = _Client(self._burst, now)
        if self._most and client.sessions >= self._most:
            return "client_limit"
        if self._rate:
            client.tokens = min(self._burst, client.tokens + (now - client.at) * self._rate)
            client.at = now
            if client.tokens < 1.0:
                return "client_rate"
            client.tokens -= 1.0
        client.sessions += 1
        return None

    def left(self, key: Key) -> None:
        """Note that a session has ended."""
        client = self._known[key]
        client.sessions -= 1
        if client.sessions:
            return
        if not self._rate:
            del self._known[key]
        elif not client.queued:
            client.queued = True
            self._idle.append((self._loop.now + self._fills_s, key))
            if not self._looks:
                self._looks = True
                Alarm(self._loop.wheel, self._idle[0][0], self._forget)

    def _forget(self, now: float) -> float:
        """Forget who has no session and had none begin while a bucket fills."""
        while self._idle and self._idle[0][0] <= now:
            _, key = self._idle.popleft()
            client = self._known[key]
            client.queued = False
            if client.sessions:
                continue
            if now >= client.at + self._fills_s:
                del self._known[key]
            else:
                client.queued = True
                self._idle.append((now + self._fills_s, key))
        self._looks = bool(self._idle)
        return self._idle[0][0] if self._idle else 0.0

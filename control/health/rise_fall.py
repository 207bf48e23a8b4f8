"""When a server is up and when it is down, from the results of its checks alone. Sans I/O.

           succeeded                        succeeded
    0 ─▶ 1 … rise-1 ─▶ │ rise … rise+fall-1          health, a number
    ▲   failed: to 0   │   │  failed: one less; succeeded: to the top
    └──────────────────┴───┘ below rise: to 0
         down                   up

One number holds both counters: down, it is the successes in a row; up, what is left of the
failures in a row that are allowed. Source: HAProxy, struct check in include/haproxy/check-t.h and
check_notify_success, check_notify_failure in src/check.c (2.6).
"""

import random
from typing import Literal

from aegis.config_health import Health

Before = Literal["unchecked", "added", "up", "down"]
"""What is held of a server before its first check: `unchecked` is up until one fails, `added` to a
proxy that runs is down until one succeeds."""


class RiseFall:
    """One server's state."""

    def __init__(self, conf: Health, before: Before) -> None:
        self._conf = conf
        self._most = conf.rise + conf.fall - 1
        start = {"unchecked": conf.rise, "added": conf.rise - 1, "up": self._most, "down": 0}
        self._health = start[before]

    def __repr__(self) -> str:
        return f"<RiseFall {'up' if self.up else 'down'} {self._health} of {self._most}>"

    @property
    def up(self) -> bool:
        """Whether the server may have sessions."""
        return self._health >= self._conf.rise

    @property
    def wavering(self) -> bool:
        """Whether the last results contradict what the server is held for."""
        return 0 < self._health < self._most

    def record(self, *, ok: bool) -> None:
        """Take in the result of a check."""
        self._health += 1 if ok else -1
        if not ok and not self.up:
            self._health = 0
        elif ok and self.up:
            self._health = self._most

    def interval_s(self) -> float:
        """Return the time from the last check's beginning to the next one's, with jitter."""
        conf = self._conf
        if self.wavering and conf.fast_inter_s:
            seconds = conf.fast_inter_s
        elif not self.up and conf.down_inter_s:
            seconds = conf.down_inter_s
        else:
            seconds = conf.inter_s
        part = conf.jitter_percent / 100
        return seconds * random.uniform(1 - part, 1 + part)

    @property
    def hurried_interval_s(self) -> float:
        """The same once something else speaks against the server."""
        return self._conf.fast_inter_s or self._conf.inter_s

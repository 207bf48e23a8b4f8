"""Checks one server again and again, in the background's event loop.

┌─▶ wait: interval, or hurried ─▶ probe ─▶ RiseFall.record ─▶ Checked ─▶ controller
└───────────────────────────────────────────────────────────────┘
"""

import asyncio
import logging
import random
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from aegis.config_health import Health
from control.health.probes import CheckFailedError, checked_address, probe
from control.health.rise_fall import Before, RiseFall

log = logging.getLogger(__name__)


class Check(NamedTuple):
    """What is to be checked, and how."""

    backend: str
    address: str
    health: Health
    protocol: str
    """For a ping."""


class Checked(NamedTuple):
    """The result of one check."""

    check: Check
    failure: str
    """What was wrong; empty when nothing was."""
    up: bool
    """What the server is held for after it."""
    seconds: float


class Checker:
    """The checks of one server; `run` is its task."""

    def __init__(self, check: Check, before: Before, tell: Callable[[Checked], None]) -> None:
        self._check = check
        self._state = RiseFall(check.health, before)
        self._tell = tell
        self._next_at = 0.0
        self._began = 0.0
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Check sooner: something else speaks against the server."""
        at = self._began + self._state.hurried_interval_s
        if at < self._next_at:
            self._next_at = at
            self._hurried.set()

    async def run(self) -> None:
        """Check until cancelled; the first time almost at once."""
        spread_s = self._check.health.inter_s * self._check.health.jitter_percent / 100
        self._next_at = monotonic() + random.uniform(0.0, spread_s)
        while True:
            while (left_s := self._next_at - monotonic()) > 0:
                self._hurried.clear()
                try:
                    async with asyncio.timeout(left_s):
                        await self._hurried.wait()
                except TimeoutError:
                    break
            self._began = monotonic()
            failure = await self._probe()
            seconds = monotonic() - self._began
            self._state.record(ok=not failure)
            self._next_at = self._began + self._state.interval_s()
            self._tell(Checked(self._check, failure, self._state.up, seconds))

    async def _probe(self) -> str:
        check = self._check
        address = checked_address(check.address, check.health)
        try:
            await probe(address, check.health, check.protocol)
        except CheckFailedError as failure:
            return str(failure)
        except Exception as error:
            log.exception("a check of %s/%s failed in itself", check.backend, check.address)
            return f"error: {error}"
        return ""

"""One thread with an event loop for all that waits on others: checks of servers, look-ups of them.

    controller ──want(checks, finds)──▶ thread: a task for each ──Checked, Found──▶ queue
        ▲                                                                             │
        └──────────────── a byte on a socket that the controller polls ◀──────────────┘

What is wanted is said whole, and again at every change; tasks that go on being wanted go on. The
controller never waits for the thread, and a check that hangs holds up nobody, not even the others.
"""

import asyncio
import logging
import queue
import socket
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread

from aegis.limits import KILL_AFTER_S
from control.discovery.finding import Find, Found
from control.health.checker import Check, Checked, Checker
from control.health.rise_fall import Before

Result = Checked | Found

log = logging.getLogger(__name__)


class Background:
    """The thread; it starts with the first `want` that wants something."""

    def __init__(self) -> None:
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="background", daemon=True)
        # Of the thread alone:
        self._checkers: dict[Check, tuple[Checker, asyncio.Task[None]]] = {}
        self._finders: dict[Find, asyncio.Task[None]] = {}

    # --- for the controller --------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the fd that is readable when there are results."""
        return self._woken.fileno()

    def results(self) -> list[Result]:
        """Return what has come of it since this was asked last."""
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        results = []
        with suppress(queue.Empty):
            while True:
                results.append(self._results.get_nowait())
        return results

    def want(self, checks: Mapping[Check, Before], finds: set[Find]) -> None:
        """Make exactly these checks and look-ups; of a new check, what is held of its server."""
        if self._thread.ident is None:
            if not checks and not finds:
                return
            self._thread.start()
        self._loop.call_soon_threadsafe(self._reconcile, dict(checks), set(finds))

    def hurry(self, check: Check) -> None:
        """Check a server sooner than it would be."""
        if self._thread.ident is not None:
            self._loop.call_soon_threadsafe(self._hurry, check)

    def close(self) -> None:
        """End the thread and all it does, unless a framer that is not ours hangs in it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(KILL_AFTER_S)
        if not self._thread.is_alive():
            self._loop.close()
        self._woken.close()
        self._waker.close()

    # --- in the thread -------------------------------------------------------------------------

    def _reconcile(self, checks: dict[Check, Before], finds: set[Find]) -> None:
        for check in self._checkers.keys() - checks.keys():
            self._checkers.pop(check)[1].cancel()
        for check in checks.keys() - self._checkers.keys():
            checker = Checker(check, checks[check], self._tell)
            self._checkers[check] = checker, self._loop.create_task(checker.run())
        for find in self._finders.keys() - finds:
            self._finders.pop(find).cancel()
        for find in finds - self._finders.keys():
            # Who has servers to find imports what can ask for names; it is a tenth of our start.
            from control.discovery.finder import Finder  # noqa: PLC0415

            self._finders[find] = self._loop.create_task(Finder(find, self._tell).run())

    def _hurry(self, check: Check) -> None:
        if check in self._checkers:
            self._checkers[check][0].hurry()

    def _end(self) -> None:
        tasks = [*(task for _, task in self._checkers.values()), *self._finders.values()]
        for task in tasks:
            task.cancel()
        ended = asyncio.gather(*tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: self._loop.stop())

    def _tell(self, result: Result) -> None:
        self._results.put(result)
        with suppress(BlockingIOError):  # it has been told, and not come yet
            self._waker.send(b"\0")

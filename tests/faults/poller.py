"""One thread that waits for many sockets: epoll, a handler for each fd, alarms.

The load and the relays of tests/faults run on it. asyncio costs several times the load itself.
"""

import heapq
import select
from collections.abc import Callable
from itertools import count
from time import monotonic

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

Handler = Callable[[int], None]


class Poller:
    """Handlers by fd, and what is to be called later."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()  # alarms of the same instant ring in order
        self.now = monotonic()

    def add(self, fd: int, mask: int, handler: Handler) -> None:
        """Call `handler` with epoll's mask whenever the fd is ready."""
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Wait for other events."""
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Forget a fd, before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, after so long."""
        heapq.heappush(self._alarms, (monotonic() + delay_s, next(self._numbers), call))

    def turn(self, longest_s: float = 0.5) -> None:
        """Wait for events, not for ever, and handle them; then the alarms that are due."""
        if self._alarms:
            longest_s = min(longest_s, max(0.0, self._alarms[0][0] - monotonic()))
        events = self._epoll.poll(longest_s)
        self.now = monotonic()
        for fd, mask in events:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)
        while self._alarms and self._alarms[0][0] <= self.now:
            heapq.heappop(self._alarms)[2]()

    def close(self) -> None:
        self._handlers.clear()
        self._alarms.clear()
        self._epoll.close()

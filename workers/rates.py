"""Sessions that may not go faster than so many bytes a second, each way for itself.

    Flow.on_readable ─▶ Meter.recv_into ─ tokens: read no more than these
                              └─ none: the flow reads no further ─▶ wheel ─▶ it reads again

A bucket holds what one second brings, so that short exchanges are not slowed down at all, and the
long run is exact. What is not read stays in the kernel, whose buffers hold the sender back. Flows
of listeners without a rate know nothing of this: they read from their sockets.
"""

from collections.abc import Callable
from socket import MSG_PEEK, socket
from typing import TYPE_CHECKING, Any, cast

from aegis.lifecycle import CloseReason
from aegis.limits import TICK_S
from workers.dialling import DOWN, UP
from workers.flow import HELD, OPEN, Flow
from workers.prepared import PreparedSession
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.listener import Listener


class Meter:
    """In place of a source's recv_into: gives a flow what its bucket allows."""

    __slots__ = ("_at", "_rate", "_receive", "_session", "_tokens", "_way", "slot")

    def __init__(
        self, session: "RatedSession", way: int, receive: Callable[..., int], rate: int
    ) -> None:
        """Begin with a full bucket."""
        self.slot = UNARMED
        self._session = session
        self._way = way
        self._receive = receive
        self._rate = rate
        self._tokens = float(rate)
        self._at = session.loop.now

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive as a socket does, as far as there are tokens.

        Raises:
            BlockingIOError: there is nothing; or there are none, and the flow is held.
        """
        now = self._session.loop.now
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            self._session.hold(self._way)
            self._session.loop.wheel.arm(self, now + TICK_S)
            raise BlockingIOError
        most = min(nbytes or len(buffer), int(self._tokens))
        count = self._receive(buffer, most, flags)
        if not flags & MSG_PEEK:
            self._tokens -= count
        return count

    def expire(self, now: float) -> float:
        """Let the flow read again, once there is something for it."""
        if self._tokens + (now - self._at) * self._rate < 1.0:
            return now + TICK_S
        self._session.let_go(self._way)
        return 0.0

    def fail(self, error: Exception) -> None:
        """End the session after a timer that raised."""
        self._session.fail(error)


class RatedSession(PreparedSession):
    """A session of a listener with a rate."""

    __slots__ = ("_meters",)

    def __init__(self, listener: "Listener", client: socket) -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        super().__init__(listener, client)
        self._meters: list[Meter] = []

    def _relay(self, server: socket, *, registered: bool) -> None:
        super()._relay(server, registered=registered)
        conf = self.listener.config
        sources = ((UP, self.client, conf.upload_bytes_per_s),
                   (DOWN, server, conf.download_bytes_per_s))  # fmt: skip
        for way, source, rate in sources:
            flow = self._flow(way)
            if rate and flow is not None:
                meter = Meter(self, way, source.recv_into, rate)
                self._meters.append(meter)
                flow.source = cast("socket", meter)  # of which a flow only receives

    def _flow(self, way: int) -> Flow | None:
        return self._up if way == UP else self._down

    def hold(self, way: int) -> None:
        """Read a source no further for now."""
        flow = self._flow(way)
        assert flow is not None
        flow.state = HELD
        self.wait()

    def let_go(self, way: int) -> None:
        """Read it again, unless more than that is in the way."""
        flow = self._flow(way)
        if flow is not None and flow.state == HELD:
            flow.state = OPEN
            self.wait()

    def close(self, reason: CloseReason) -> None:
        """Close both sides, and let nobody look at this session any more."""
        for meter in self._meters:
            self.loop.wheel.disarm(meter)
        self._meters.clear()  # leave no cycle
        super().close(reason)

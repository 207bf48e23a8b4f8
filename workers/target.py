"""A server as one worker sees it: what the controller wants of it, and what it has here.

    Desired.servers ─▶ ServerWish ─▶ Server.wish ─▶ Backend.live, or nobody new
    connects, sessions, pipes ─▶ Server.figures ─▶ Report, telemetry

Of health, ejection and slow start a worker knows nothing: the controller works them out and says
what is left of a server's weight. What it adds to that is what befalls its clients: failures, and
how many of them came in a row. Whatever a server says ends a row.
"""

import errno
from time import monotonic
from typing import Final

from aegis.addresses import Address, parse_address
from aegis.figures import CONNECT_BOUNDS_S, ServerFigures
from aegis.limits import FAILURES_FORGOTTEN_S, RECONNECT_MAX_S, RECONNECT_MIN_S
from aegis.messages import ServerWish

UNLIMITED: Final = 1 << 62
LOSSES_THAT_COUNT: Final = {
    "server_lost", "reply_timeout", "setup_timeout", "abandoned", "unexpected", "protocol_error",
}  # fmt: skip
"""Ends of a pipe that owed something which speak against its server."""


class Server:
    """One address of a backend; `figures.connections` is kept by the backend's budget."""

    __slots__ = (
        "address", "credit", "failed_at", "figures", "limit", "live", "picked",
        "shunned_s", "shunned_until", "wanted", "weight", "wish",
    )  # fmt: skip

    def __init__(self, backend: str, wish: ServerWish) -> None:
        self.address: Final[Address] = parse_address(wish.address)
        self.figures: Final = ServerFigures(backend, wish.address)
        self.wish = wish
        self.wanted = True
        """False: it is none of the backend's any more, and forgotten when it has nothing left."""
        self.weight = wish.weight
        self.live = False
        """Whether it is one of those that get new sessions now."""
        self.limit = UNLIMITED
        """This worker's share of the server's max_connections."""
        self.credit = self.picked = 0
        """The balance's: what a turn is owed to it, and the number of its last turn."""
        self.shunned_s = self.shunned_until = 0.0
        """It has refused a pipe: until then none is opened to give it its part of requests."""
        self.failed_at = 0.0
        """When it has failed last."""

    def __repr__(self) -> str:
        state = "live" if self.live else "backup" if self.weight else "closed"
        return f"<Server {self.address.text} {state}, {self.figures.connections} open>"

    @property
    def has_room(self) -> bool:
        """Whether this worker's share of its connections is not used up."""
        return self.figures.connections < self.limit

    @property
    def is_over_limit(self) -> bool:
        """Whether it has more connections than this worker's share of them."""
        return self.figures.connections > self.limit

    def count_error(self, code: int) -> None:
        """Count a failed connect by the name of its errno."""
        errors, name = self.figures.connect_errors, errno.errorcode.get(code, str(code))
        errors[name] = errors.get(name, 0) + 1

    def connected(self, seconds: float) -> None:
        """Count a connection that was established, after so long."""
        figures = self.figures
        figures.connects += 1
        if seconds:
            figures.connect_seconds.observe(seconds, CONNECT_BOUNDS_S)
        else:
            figures.connect_seconds.buckets[0] += 1
        self.shunned_s = self.shunned_until = 0.0

    def shun(self, now: float) -> None:
        """Leave it alone for a while, longer each time."""
        self.shunned_s = min(max(2 * self.shunned_s, RECONNECT_MIN_S), RECONNECT_MAX_S)
        self.shunned_until = now + self.shunned_s

    # --- failures ------------------------------------------------------------------------------

    def connect_failed(self, code: int) -> None:
        """Note that the server did not take a connection."""
        self.count_error(code)
        self.failed("connect")

    def failed(self, how: str) -> None:
        """Count something that speaks against the server."""
        figures = self.figures
        figures.failures[how] = figures.failures.get(how, 0) + 1
        self.forget_old_failures()
        figures.failures_in_a_row += 1
        self.failed_at = monotonic()

    def heard(self, at: float) -> None:
        """Note that the server has said something at that instant."""
        if at > self.failed_at:
            self.figures.failures_in_a_row = 0

    def forget_old_failures(self) -> None:
        """End a row of failures that nothing was added to for long."""
        if monotonic() > self.failed_at + FAILURES_FORGOTTEN_S:
            self.figures.failures_in_a_row = 0

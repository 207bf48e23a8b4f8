"""The memcached text protocol, meta commands included; not the binary one, nor UDP.

docs/protocols/memcached.md says what is shared, what gets a tunnel and why.
"""

from aegis.framers.contract import NO_SETUP, Setup
from aegis.framers.memcached_replies import MemcachedReplies
from aegis.framers.memcached_requests import MemcachedRequests

MAX_IN_FLIGHT = 256
"""The server serves 20 requests of a connection in a row (-R) before it turns to the next, so more
than a dozen such turns would only queue in its memory instead of ours."""


class Memcached:
    """Framer of the contract."""

    error_closes = False

    __slots__ = ("in_flight", "name", "ping", "poolings", "reset")

    def __init__(self) -> None:
        self.name = "memcached"
        self.poolings: tuple[str, ...] = ("warm", "session", "multiplex")
        self.in_flight = MAX_IN_FLIGHT
        self.ping = b"version\r\n"
        self.reset: Setup = NO_SETUP
        """A pipe that a client had alone was a tunnel; nobody can tell what is still to come."""

    def requests(self) -> MemcachedRequests:
        """Make the parser for a new client."""
        return MemcachedRequests()

    def replies(self) -> MemcachedReplies:
        """Make the parser for a new pipe."""
        return MemcachedReplies()

    def error(self, why: str) -> bytes:
        """Return a SERVER_ERROR line; what would break the line becomes a space."""
        safe = "".join(c if " " <= c <= "~" else " " for c in why[:200])
        return b"SERVER_ERROR aegis: " + safe.encode() + b"\r\n"

"""The memcached text protocol, meta commands included; not the binary one, nor UDP.

docs/protocols/memcached.md says what is shared, what gets a tunnel and why.
"""

from aegis.framers.memcached_replies import MemcachedReplies
from aegis.framers.memcached_requests import MemcachedRequests
from aegis.framers.simple import SimpleFramer

MAX_IN_FLIGHT = 256
"""The server serves 20 requests of a connection in a row (-R) before it turns to the next, so more
than a dozen such turns would only queue in its memory instead of ours."""


class Memcached(SimpleFramer):
    """Framer of the contract; nothing is pinned, so there is nothing to reset."""

    name = "memcached"
    in_flight = MAX_IN_FLIGHT
    ping = b"version\r\n"

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

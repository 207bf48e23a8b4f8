"""What most framers say of most things, to be inherited: a framer then states what is its own.

Sharing stays opt-in: these are right for requests that are all shared, each owed its replies as
they are, and leave nothing behind on their connection. See contract.py for what each name means.
"""

from aegis.framers.contract import NO_SETUP, QuickLook, Setup, never


class SimpleRequests:
    """Of `contract.Requests` all but `scan` and `follow`."""

    __slots__ = ()

    setup: Setup = NO_SETUP
    pinned: str = ""
    need: int = 1
    note: int = 0
    forward: bytes | None = None
    discard: bool = False
    clean: bool = True
    close_after: bool = False
    stream_now: bool = False


class SimpleReplies:
    """Of `contract.Replies` all but `begun` and `feed`."""

    __slots__ = ()

    tunnel: bool = False
    last: bool = False
    failed: bool = False

    def end(self) -> bool:
        """See `contract.Replies.end`: no reply ends with the connection."""
        return False


class SimpleFramer:
    """Of `contract.Framer` all but `name`, `requests` and `replies`."""

    poolings: tuple[str, ...] = ("warm", "session", "multiplex")
    in_flight: int = 256
    error_closes: bool = False
    ping: bytes = b""
    reset: Setup = NO_SETUP
    quick_request: QuickLook = staticmethod(never)
    quick_reply: QuickLook = staticmethod(never)

    def error(self, why: str) -> bytes:  # noqa: ARG002 - the contract's
        """See `contract.Framer.error`: nothing is said, the client is closed."""
        return b""

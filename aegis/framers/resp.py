"""The framer `resp`: Redis and whatever else speaks RESP2 or RESP3.

Requests and what they do are in `resp_requests` (ends), `resp_commands` (the table), `resp_state`
(what a client's connection would remember) and `resp_long`; replies in `resp_replies`.
docs/protocols/resp.md says what is shared, pinned, answered and refused, and why.
"""

from aegis.framers.contract import QuickLook, Replies, Requests, Setup
from aegis.framers.resp_limits import IN_FLIGHT
from aegis.framers.resp_replies import SMALL_VALUE, RespReplies
from aegis.framers.resp_requests import SMALL, RespRequests
from aegis.framers.resp_state import encode, error
from aegis.framers.simple import SimpleFramer


class Resp(SimpleFramer):
    """The framer `resp`."""

    name = "resp"
    in_flight = IN_FLIGHT
    ping = encode(b"PING")
    reset = Setup(encode(b"RESET"), 1)
    """Redis 6.2 and later (resetCommand in src/networking.c). An earlier one, or a user who may
    not, gets an error, and then the pipe is closed. What RESET leaves behind has had a tunnel."""
    quick_request: QuickLook = staticmethod(SMALL)
    quick_reply: QuickLook = staticmethod(SMALL_VALUE)

    def requests(self) -> Requests:
        """Make the parser for a new client."""
        return RespRequests()

    def replies(self) -> Replies:
        """Make the parser for a new pipe."""
        return RespReplies()

    def error(self, why: str) -> bytes:
        """Return `-ERR aegis: why`."""
        return error(why)

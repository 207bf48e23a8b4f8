"""HTTP/1.1 and 1.0 (RFC 9112, RFC 9110): one request at a time on a shared pipe.

    http1_syntax   limits, grammar, notes          http1_head      a request's head
    http1_errors   the replies Aegis makes         http1_requests  requests of a client
    http1_chunks   the chunked coding              http1_replies   replies on a pipe

Requests are never pipelined to a server: a reply that says `Connection: close` would leave those
behind it unanswered, and nothing that was written is sent twice (RFC 9112 section 9.3.2).
"""

from aegis.framers.http1_errors import FAILURES, REPLIES
from aegis.framers.http1_replies import Http1Replies, ReplyHeads
from aegis.framers.http1_requests import Http1Requests, Plans
from aegis.framers.simple import SimpleFramer


class Http1(SimpleFramer):
    """The framer; its memos are one worker's for one listener."""

    name = "http1"
    in_flight = 1
    error_closes = True
    # RFC 9110 section 9.3.7 names this request as a ping; its reply needs no note.
    ping = b"OPTIONS * HTTP/1.1\r\nHost: aegis\r\n\r\n"

    def __init__(self) -> None:
        self._new: Plans = {}
        self._old: Plans = {}
        self._heads: ReplyHeads = {}

    def requests(self) -> Http1Requests:
        """Make the parser for a new client."""
        return Http1Requests(self._new, self._old)

    def replies(self) -> Http1Replies:
        """Make the parser for a new pipe."""
        return Http1Replies(self._heads)

    def error(self, why: str) -> bytes:
        """Return the reply for a word of http1_errors; any other is 503."""
        return REPLIES[why if why in FAILURES else "unavailable"]

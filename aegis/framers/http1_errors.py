"""The replies that Aegis makes itself, one for each word; all close the client's connection.

A word is what a log and a metric's label say, too: fixed and few, never a peer's bytes.
"""

from http import HTTPStatus

from aegis.framers.contract import ProtocolError

REFUSALS = {
    "bad_bytes": (400, "a control character, or a line that does not end in CR LF"),
    "bad_line": (400, "not an HTTP request line"),
    "bad_target": (400, "a target of the wrong form for its method"),
    "bad_field": (400, "a malformed or folded header field"),
    "bad_host": (400, "HTTP/1.1 needs one valid Host field, and no request more than one"),
    "bad_connection": (400, "a malformed Connection field"),
    "bad_length": (400, "a malformed or repeated Content-Length"),
    "bad_coding": (400, "a Transfer-Encoding that is repeated or in HTTP/1.0"),
    "length_and_coding": (400, "both Transfer-Encoding and Content-Length"),
    "bad_chunk": (400, "a malformed chunk or trailer"),
    "length_required": (411, "HTTP/1.0 needs a Content-Length here"),
    "target_too_long": (414, "the target is too long"),
    "bad_expectation": (417, "no expectation but 100-continue is understood"),
    "head_too_long": (431, "the header fields are too long"),
    "too_many_fields": (431, "there are too many header fields"),
    "unknown_coding": (501, "no transfer coding but chunked is understood"),
    "bad_version": (505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
}
"""A client's mistakes: status and text by word."""

FAILURES = {
    "protocol_error": (400, "the request was not understood"),
    "client_timeout": (408, "the request did not arrive in time"),
    "too_long": (413, "the request is too long"),
    "server_lost": (502, "the server closed the connection before it had replied"),
    "bad_reply": (502, "the server's reply was not understood"),
    "connect_failed": (503, "no server could be reached"),
    "no_server": (503, "no server is available"),
    "queue_full": (503, "too many requests are waiting"),
    "draining": (503, "this proxy is going away"),
    "bad_proxy_header": (400, "this connection has to begin with a PROXY header"),
    "access_denied": (403, "this address may not come here"),
    "untrusted_proxy": (403, "no PROXY header is believed from this address"),
    "first_byte_timeout": (408, "nothing came in time"),
    "frame_too_large": (413, "the request is too large"),
    "client_limit": (429, "this address has too many connections"),
    "client_rate": (429, "this address connects too often"),
    "listener_limit": (503, "too many clients are here"),
    "total_limit": (503, "too many clients are here"),
    "unavailable": (503, "the request could not be served"),
    "timeout": (504, "the server did not reply in time"),
}
"""What the proxy may ask for with Framer.error; an unknown word is `unavailable`. Which of 502,
503 and 504 follows HAProxy: no connection is 503, a broken one 502, a slow one 504."""

# RFC 9110 section 15.5.14 renamed it; Python 3.13 is the first to know.
REASONS = {413: "Content Too Large"}


def _reply(status: int, text: str) -> bytes:
    reason = REASONS.get(status) or HTTPStatus(status).phrase
    body = f"{status} {reason}: {text}\n"
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


REPLIES = {word: _reply(*what) for word, what in (REFUSALS | FAILURES).items()}


class RefusedError(ProtocolError):
    """A request that breaks the protocol; `reply` tells its client so."""

    def __init__(self, kind: str) -> None:
        super().__init__(REFUSALS[kind][1], kind)
        self.reply = REPLIES[kind]

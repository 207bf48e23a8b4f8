"""HTTP/1.1 replies as bytes; every one has its exact Content-Length.

No Date: Chronos counts as a server without a clock (RFC 9110 section 6.6.1), so that the same
request gets the same bytes and the fixed replies are formatted once.
"""

from functools import lru_cache
from http import HTTPStatus

from ops.chronos.http_head import Action, Head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PAGE = """Chronos, the database in the box.

  GET, PUT, DELETE /kv/KEY     a value, over HTTP/1.1
  SET key value, GET key, DEL key, PING, COMPACT     one line each, on the same port
"""
# RFC 9110 section 15.5.14 renamed it; Python 3.13 is the first to know.
REASONS = {413: "Content Too Large"}


def reply(
    head: Head, status: int, body: bytes, content_type: bytes = b"text/plain; charset=utf-8"
) -> bytes:
    """Return the reply to a request, as its method and its version want it."""
    reason = REASONS.get(status) or HTTPStatus(status).phrase
    allow = b"Allow: %s\r\n" % head.allow if head.allow else b""
    return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n%s" % (
        status,
        reason.encode(),
        content_type,
        len(body),
        allow,
        head.connection,
        b"" if head.bodiless else body,
    )


def value_reply(head: Head, value: bytes) -> bytes:
    """Return the reply to a READ that found something."""
    return reply(head, 200, value, b"application/octet-stream")


@lru_cache(16)
def done(connection: bytes) -> bytes:
    """Return the reply to a WRITE or DELETE: one per Connection field."""
    return reply(Head(Action.WRITE, connection=connection), 200, b"OK\n")


@lru_cache(16)
def page(connection: bytes, bodiless: bool) -> bytes:
    """Return the page at /: one per Connection field and for GET or HEAD."""
    return reply(Head(Action.PAGE, connection=connection, bodiless=bodiless), 200, PAGE.encode())

"""The head of an HTTP/1.x request, understood or refused; sans-I/O.

Whatever two programs could read in two ways is refused (RFC 9112 sections 2.2, 5.2, 6.3 and
11.2): a line that ends in a bare LF, a folded field, a space before a colon, two lengths, a
length and a coding, a coding in HTTP/1.0, no or two hosts. After such a head the connection
closes, for nobody knows where the next request begins.
"""

import re
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ops.chronos.limits import CACHED_HEADS, MAX_REQUEST_LINE_BYTES, MAX_VALUE_BYTES

CHUNKED = -1  # as a length: the body says itself where it ends


class Action(Enum):
    """What is to be done for a request."""

    PAGE = auto()
    READ = auto()
    WRITE = auto()
    DELETE = auto()
    REFUSE = auto()
    CONTINUE = auto()  # not a request: its body is waited for (RFC 9110 section 10.1.1)


class Head(NamedTuple):
    """A request without its body; of a refusal, `status` and `detail` say why."""

    action: Action
    key: bytes = b""
    length: int = 0  # bytes of the body, or CHUNKED
    closes: bool = False
    connection: bytes = b""  # the reply's Connection field, line end included, if it needs one
    bodiless: bool = False  # HEAD: the reply has the fields of a body and no body
    expects: bool = False  # the client waits for 100 Continue before it sends the body
    status: int = 200
    detail: str = ""
    allow: bytes = b""  # what the target understands, of a 405


CLOSE = b"Connection: close\r\n"
KEEP = b"Connection: keep-alive\r\n"  # HTTP/1.0 clients have to be told (RFC 9112 appendix C.2.2)

# RFC 9110 section 9.1 and RFC 5789: known here, if only to say 405 rather than 501.
KNOWN = {b"GET", b"HEAD", b"PUT", b"DELETE", b"POST", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"}
ROUTES = {
    "page": {b"GET": Action.PAGE, b"HEAD": Action.PAGE},
    "key": {
        b"GET": Action.READ,
        b"HEAD": Action.READ,
        b"PUT": Action.WRITE,
        b"DELETE": Action.DELETE,
    },
}

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(%s) ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])" % TOKEN)
# Blanks around the value are no part of it; without a pattern that could backtrack over them.
FIELD = re.compile(rb"(%s):([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN)
ORIGIN = re.compile(rb"http://[^/?#]*", re.IGNORECASE)  # of a target in absolute form
DIGITS = re.compile(rb"[0-9]{1,18}")
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
BARE_LF = re.compile(rb"(?<!\r)\n")

# The fields that matter, and which of them may be given more than once (as one list).
LISTS = {b"connection", b"transfer-encoding", b"expect"}
SINGLES = {b"host", b"content-length"}


def refusal(status: int, detail: str) -> Head:
    """Return the head of a request that is refused and whose connection closes."""
    return Head(Action.REFUSE, closes=True, connection=CLOSE, status=status, detail=detail)


@lru_cache(CACHED_HEADS)
def parse_head(block: bytes) -> Head:
    """Understand a head, given with the empty line that ends it; refusals are heads as well."""
    if BARE_LF.search(block):
        return refusal(400, "a line ends in LF without CR")
    first, *lines = block[:-4].split(b"\r\n")
    if len(first) > MAX_REQUEST_LINE_BYTES:
        return refusal(414, f"request line longer than {MAX_REQUEST_LINE_BYTES} bytes")
    if (line := REQUEST_LINE.fullmatch(first)) is None:
        return refusal(400, "not an HTTP request line")
    method, target, major, minor = line.groups()
    if major != b"1":
        return refusal(505, "only HTTP/1.x is spoken here")
    head = understand(method, target, minor != b"0", lines)
    return head._replace(bodiless=method == b"HEAD")


def understand(method: bytes, target: bytes, modern: bool, lines: list[bytes]) -> Head:
    """Return what a request of HTTP/1.1 (`modern`) or 1.0 asks for, given its field lines."""
    fields = parse_fields(lines)
    if isinstance(fields, Head):
        return fields
    length = body_length(fields, modern)
    if isinstance(length, Head):
        return length
    if modern and b"host" not in fields:
        return refusal(400, "no Host field")
    head = route(method, target)
    if head.action is Action.WRITE and length is None:
        return refusal(411, "a PUT needs Content-Length or a chunked body")
    options = {option.strip() for option in fields.get(b"connection", b"").lower().split(b",")}
    keeps = b"close" not in options and (modern or b"keep-alive" in options)
    expects = modern and fields.get(b"expect", b"").lower() == b"100-continue"
    if expects and head.action is Action.REFUSE:
        keeps, length = False, None  # answered now; the body may follow all the same, or not
    return head._replace(
        length=length or 0,
        closes=not keeps,
        connection=(b"" if modern else KEEP) if keeps else CLOSE,
        expects=expects and bool(length),
    )


def parse_fields(lines: list[bytes]) -> dict[bytes, bytes] | Head:
    """Return the fields that matter by lower-case name, or a refusal."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if (field := FIELD.fullmatch(line)) is None:
            folded = line[:1] in (b" ", b"\t")
            return refusal(400, "a folded header field" if folded else "a malformed header field")
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name in fields:
            if name in SINGLES:
                return refusal(400, f"more than one {name.decode().title()} field")
            fields[name] += b"," + value
        elif name in SINGLES or name in LISTS:
            fields[name] = value
    return fields


def body_length(fields: dict[bytes, bytes], modern: bool) -> int | Head | None:
    """Return the body's bytes, CHUNKED, None if the head does not say, or a refusal."""
    coding = fields.get(b"transfer-encoding")
    stated = fields.get(b"content-length")
    if coding is not None:
        if stated is not None:
            return refusal(400, "both Transfer-Encoding and Content-Length")
        if not modern:
            return refusal(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            return refusal(501, "no transfer coding but chunked is understood")
        return CHUNKED
    if stated is None:
        return None
    if DIGITS.fullmatch(stated) is None:
        return refusal(400, "Content-Length is not a number")
    if int(stated) > MAX_VALUE_BYTES:
        return refusal(413, f"body longer than {MAX_VALUE_BYTES} bytes")
    return int(stated)


def route(method: bytes, target: bytes) -> Head:
    """Return what a method asks of a target, in origin or absolute form."""
    if method not in KNOWN:
        return Head(Action.REFUSE, status=501, detail="this method is not implemented")
    if (origin := ORIGIN.match(target)) is not None:
        target = target[origin.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    path = target.partition(b"?")[0]
    if path == b"/":
        actions = ROUTES["page"]
    elif path.startswith(b"/kv/") and len(path) > len(b"/kv/"):
        actions = ROUTES["key"]
    else:
        return Head(Action.REFUSE, status=404, detail="there are / and /kv/KEY here")
    if BAD_ESCAPE.search(path):
        return Head(Action.REFUSE, status=400, detail="a bad percent escape in the target")
    if (action := actions.get(method)) is None:
        allow = b", ".join(actions)
        return Head(Action.REFUSE, status=405, detail=f"allowed: {allow.decode()}", allow=allow)
    return Head(action, unquote_to_bytes(path[len(b"/kv/") :]))

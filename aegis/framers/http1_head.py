"""The head of a request: understood, or refused with the word that says why.

What decides where a request ends and what may become of its connection is in a few fields; all
others pass unread, but well-formed. Rewriting is confined to the one thing a shared pipe cannot
do without: a client's wish to close is between it and the proxy (RFC 9110 section 7.6.1,
RFC 9112 section 9.3), so the server is not told of it.
"""

import re
from typing import NamedTuple

from aegis.framers.contract import Verdict
from aegis.framers.http1_errors import RefusedError
from aegis.framers.http1_syntax import (
    CHUNKED,
    CLOSE,
    CONNECT,
    HEAD,
    LENGTH,
    MAX_FIELDS,
    MAX_TARGET_BYTES,
    OLD,
    TOKEN,
    UPGRADE,
    framing_fields,
    options,
)

# Unknown methods are pinned: a server might take `head` for HEAD and send no body, and the shared
# pipe would wait for it.
BARE = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
"""Their content has no meaning (RFC 9110 section 9.3), so servers exist that do not read it and
take it for the next request: with content, these are pinned."""
CARRIERS = frozenset({b"POST", b"PUT", b"PATCH"})
OTHERS = frozenset(b"COPY LOCK MKCOL MOVE PROPFIND PROPPATCH QUERY REPORT SEARCH UNLOCK".split())
"""RFC 4918, 3253, 5323; with or without content. None of them is about the connection."""

LINE = re.compile(rb"(%s) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n" % TOKEN)
TARGET = re.compile(rb"/|[A-Za-z][A-Za-z0-9+.-]*+://[^/]")
"""Origin and absolute form, RFC 9112 sections 3.2.1 and 3.2.2."""
AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@]+):[0-9]{1,5}")
HOST = re.compile(rb"[a-z0-9._~!$&'()*+,;=:%\[\]-]*")
FRAMING = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"proxy-authorization",
        b"transfer-encoding",
        b"upgrade",
    }
)
HOP_BY_HOP = re.compile(
    rb"^(?:connection|keep-alive|proxy-connection):[^\r]*\r\n", re.IGNORECASE | re.MULTILINE
)
BINDING = (b"ntlm", b"negotiate")
"""Schemes that authenticate the connection instead of the request (RFC 4559 section 6), against
RFC 9110 section 3.3; all others are stateless."""
END_TO_END = {b"content-length", b"host", b"transfer-encoding"}
"""Fields that no Connection field may name: a proxy behind Aegis would drop them."""


class Fields(NamedTuple):
    """What a request's fields say; the same for every start line of one version."""

    length: int
    """Bytes of the body, or CHUNKED."""
    stated: bool
    """Whether there is a field that says so; without one the length is 0."""
    closes: bool
    """The client will not use its connection again (RFC 9112 section 9.3)."""
    rewritten: bytes | None
    """The fields with the empty line, as a server may see them on a shared pipe; None: as is."""
    expects: bool
    """The client waits for 100 Continue before it sends the body (RFC 9110 section 10.1.1)."""
    upgrades: bool
    binds: bool
    """It carries credentials that authenticate the connection."""


class Head(NamedTuple):
    """What a request's head asks for."""

    size: int
    """Bytes of it, with the empty line."""
    fields: Fields
    verdict: Verdict | None
    why: str
    note: int
    forward: bytes | None
    """The head as a shared pipe may see it; None: as is."""
    clean: bool
    """Whether its pipe is as before once its reply is complete."""


def parse_head(head: bytes) -> Head:
    """Understand a head, given with the empty line that ends it; BROKEN bytes match nothing here.

    Raises:
        RefusedError: it is no head, or one that could be read in two ways.
    """
    line = LINE.match(head)
    if line is None:
        raise RefusedError("bad_line")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise RefusedError("bad_version")
    if len(target) > MAX_TARGET_BYTES:
        raise RefusedError("target_too_long")
    _check_target(method, target)
    old = minor == b"0"
    fields = parse_fields(head[line.end() :], old)
    if old and method in CARRIERS and not fields.stated:
        # RFC 1945 section 8.3; some servers would read up to the end of the connection.
        raise RefusedError("length_required")
    if method == b"CONNECT" and fields.stated:
        raise RefusedError("bad_length")  # it has no content (RFC 9110 section 9.3.6)
    verdict, why, note = _judge(method, fields)
    forward = None
    if fields.rewritten is not None:
        if verdict is None:
            forward = line[0] + fields.rewritten
        else:
            note |= CLOSE  # its pipe serves this client alone and may end with it
    clean = not fields.binds and (method in CARRIERS or method in OTHERS or not fields.length)
    return Head(len(head), fields, verdict, why, note | old * OLD, forward, clean)


def _judge(method: bytes, fields: Fields) -> tuple[Verdict | None, str, int]:
    if method == b"CONNECT":
        return Verdict.TUNNEL_IF_ACCEPTED, "connect", CONNECT
    note = HEAD if method == b"HEAD" else 0
    if fields.upgrades:
        return Verdict.TUNNEL_IF_ACCEPTED, "upgrade", note | UPGRADE
    if fields.binds:
        return Verdict.PIN, "authentication", note
    if method in BARE:
        if fields.length:
            return Verdict.PIN, "content", note
    elif method not in CARRIERS and method not in OTHERS:
        return Verdict.PIN, "method", note
    return None, "", note


def _check_target(method: bytes, target: bytes) -> None:
    """Raise unless the target has one of the forms of RFC 9112 section 3.2."""
    if method == b"CONNECT":
        valid = AUTHORITY.fullmatch(target) is not None
    else:
        valid = TARGET.match(target) is not None or (method == b"OPTIONS" and target == b"*")
    if not valid:
        raise RefusedError("bad_target")


def parse_fields(block: bytes, old: bool) -> Fields:
    """Understand the fields of a request of HTTP/1.0 (`old`) or 1.1, given with the empty line.

    Raises:
        RefusedError: they are malformed or could be read in two ways.
    """
    values = framing_fields(block, FRAMING)
    if values is None:
        raise RefusedError("bad_field")
    if block.count(b"\n") - 1 > MAX_FIELDS:
        raise RefusedError("too_many_fields")
    hosts = values.get(b"host", [])
    if len(hosts) != 1 and (hosts or not old):
        raise RefusedError("bad_host")
    if hosts and HOST.fullmatch(hosts[0]) is None:
        raise RefusedError("bad_host")
    wishes = options(values.get(b"connection", []))
    if wishes is None or not END_TO_END.isdisjoint(wishes):
        raise RefusedError("bad_connection")
    closes = b"close" in wishes or (old and b"keep-alive" not in wishes)
    expectations = values.get(b"expect", [])
    if any(value != b"100-continue" for value in expectations):
        raise RefusedError("bad_expectation")
    length = _body_length(values, old)
    credentials = values.get(b"authorization", []) + values.get(b"proxy-authorization", [])
    return Fields(
        length=length or 0,
        stated=length is not None,
        closes=closes,
        rewritten=_rewrite(block, wishes, old) if closes else None,
        expects=bool(expectations and length),
        upgrades=b"upgrade" in values or b"upgrade" in wishes,
        binds=any(value.startswith(BINDING) for value in credentials),
    )


def _body_length(values: dict[bytes, list[bytes]], old: bool) -> int | None:
    """Apply RFC 9112 section 6.3 to a request; None when no field states a length."""
    codings = values.get(b"transfer-encoding")
    lengths = values.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise RefusedError("length_and_coding")
        if old or len(codings) > 1:
            raise RefusedError("bad_coding")
        if codings[0] != b"chunked":
            raise RefusedError("unknown_coding")
        return CHUNKED
    if lengths is None:
        return None
    if len(lengths) > 1 or LENGTH.fullmatch(lengths[0]) is None:
        raise RefusedError("bad_length")
    return int(lengths[0])


def _rewrite(block: bytes, wishes: list[bytes], old: bool) -> bytes:
    """Return the fields without the wish to close, and with HTTP/1.0's wish to persist.

    An HTTP/1.0 request stays one, so that it is answered neither in chunks nor with 1xx; that its
    pipe shall persist must then be said (RFC 9112 appendix C.2.2).
    """
    kept = [wish for wish in wishes if wish not in (b"close", b"keep-alive")]
    if old:
        kept.append(b"keep-alive")
    connection = b"Connection: %s\r\n" % b", ".join(kept) if kept else b""
    return HOP_BY_HOP.sub(b"", block[:-2]) + connection + b"\r\n"

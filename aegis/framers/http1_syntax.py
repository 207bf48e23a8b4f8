"""HTTP/1.x as bytes: limits, patterns and the notes a request leaves for its reply's parser.

Requests and replies share this grammar. It is the strict one: whatever two programs could read in
two ways does not match (RFC 9112 sections 2.2, 5.1, 5.2 and 11): a line that ends in a bare LF, a
CR alone, a folded field, a blank before a colon, a control character anywhere.
"""

import re

MAX_HEAD_BYTES = 65_536
"""Start line and fields. Servers take 8 to 64 KiB; a head split over reads is held this long."""
MAX_TARGET_BYTES = 16_384
"""RFC 9112 section 3 asks for 8,000 at least; longer ones get 414."""
MAX_FIELDS = 100
"""As Apache's LimitRequestFields and http.client have it; many small fields cost servers dearly."""
MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: below 2**63, so that no peer's integer overflows (RFC 9110 section 8.6)."""
MAX_CHUNK_DIGITS = 15
"""Of a chunk's size: below 2**60, for the same reason (RFC 9112 section 7.1)."""
MAX_CHUNK_LINE_BYTES = 1_024
"""A chunk's size with its extensions, which nobody uses (RFC 9112 section 7.1.1: limit them)."""
MAX_TRAILER_BYTES = 16_384
"""All trailer fields of one chunked body."""
MEMO_ENTRIES = 512
MEMO_BYTES = 2_048
"""Memos are cleared when they have so many entries, and take none longer than this: at most 2 MiB
for a memo with rewritten fields, some 200 KiB in practice."""

CHUNKED = -1
"""As a length: the body says itself where it ends."""
TO_CLOSE = -2
"""As a reply's length: the body ends with the connection (RFC 9112 section 6.3, rule 8)."""

# Notes: what the reply's parser must know of the request.
OLD = 1
"""HTTP/1.0: the connection persists only if the reply says so (RFC 9112 section 9.3)."""
HEAD = 2
"""The reply has no body, whatever its fields say (RFC 9112 section 6.3, rule 1)."""
CONNECT = 4
"""A 2xx reply turns the connection into a tunnel (RFC 9112 section 6.3, rule 2)."""
UPGRADE = 8
"""A 101 reply turns the connection into a tunnel (RFC 9110 section 7.8)."""
CLOSE = 16
"""The server has been told to close after the reply (RFC 9112 section 9.6)."""

HEAD_END = b"\r\n\r\n"

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
"""A field's value: visible characters, blanks and obs-text (RFC 9110 section 5.5)."""

TOKEN_ONLY = re.compile(TOKEN)
FIELD_LINE = re.compile(rb"%s:%s\r\n" % (TOKEN, TEXT))
FIELD_LINES = re.compile(rb"(?:%s:%s\r\n)*+" % (TOKEN, TEXT))
FIELD_PAIRS = re.compile(rb"([^:\r]++):([^\r]*+)\r\n")
"""Names and values of lines that FIELD_LINES has matched. Picking what matters out of all pairs is
three times as fast as one pattern with the names in it, in any case, at every line's beginning."""
LENGTH = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS)
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})(?:[ \t]*+;%s)?\r\n" % (MAX_CHUNK_DIGITS, TEXT))
BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r[^\n]")
"""What no head contains; found early, a peer that speaks something else need not be waited for."""

assert MAX_TARGET_BYTES + MEMO_BYTES < MAX_HEAD_BYTES, "a memoized head needs no check of its size"


def options(values: list[bytes]) -> list[bytes] | None:
    """Return the connection options of all Connection fields; None if malformed."""
    if not values:
        return []
    listed = [option.strip(b" \t") for value in values for option in value.split(b",")]
    found = [option for option in listed if option]
    return found if all(map(TOKEN_ONLY.fullmatch, found)) else None


def framing_fields(block: bytes, names: frozenset[bytes]) -> dict[bytes, list[bytes]] | None:
    """Return the values of the fields in `names`; None if any field is malformed.

    `block` are all field lines and the empty line. Names and values are made lower-case: of none
    of these fields does the case matter here.
    """
    lines = FIELD_LINES.match(block)
    if lines is None or lines.end() != len(block) - 2:
        return None
    values: dict[bytes, list[bytes]] = {}
    for name, value in FIELD_PAIRS.findall(block.lower()):
        if name in names:
            values.setdefault(name, []).append(value.strip(b" \t"))
    return values

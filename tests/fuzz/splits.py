"""Drives a framer's parsers as the multiplexer does, and holds them to the contract at every step.

Everything is given between JUNK that must not be looked at. What a stream is found to hold is
returned in a form in which two splits of the same stream must agree.
"""

from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any

from aegis.framers.contract import Framer, ProtocolError, Requests, Verdict
from aegis.limits import MIN_SLAB_BYTES

JUNK = b"\n\r\n\r\n0\r\n\r\nEND\r\n+OK\r\n"
MAX_HELD_BYTES = 72 << 10
"""What any parser may keep of what went by: the longest are heads of HTTP (64 KiB), held once, and
inline commands of Redis (64 KiB)."""
LOOK_EVERY = 32
"""Parts between two looks at what is kept; the last is looked at as well."""
OVER = ("END",)
"""The client is closed: refused early or late, with this error or that, it comes to the same."""

Event = tuple[object, ...]


def pieces(stream: bytes, sizes: bytes, scale: int = 1) -> Iterator[bytes]:
    """Cut a stream into pieces of these sizes, over and over."""
    at, each = 0, cycle(sizes or b"\xff")
    while at < len(stream):
        size = (next(each) % 97 + 1) * scale
        yield stream[at : at + size]
        at += size


def requests_of(framer: Framer, parts: Iterable[bytes], most_scans: int = 1 << 20) -> list[Event]:
    """Scan a client's stream that comes in these parts, with about so many scans at most."""
    requests = framer.requests()
    events: list[Event] = []
    held, need = b"", 1
    for number, part in enumerate((*parts, b"")):
        assert number % LOOK_EVERY or kept(requests) <= MAX_HELD_BYTES
        if most_scans < 0:
            break
        held += part
        if not part:
            need = 1  # to scan sooner is no use and does no harm
        while held and len(held) >= need:
            look_at_request(framer, held)
            taken, found, over = scan(requests, held)
            most_scans -= 1
            for event in found:
                _join(events, event, shared=framer.in_flight > 1)
            if over:
                return events
            held, need = held[taken:], 1
            if not found or found[-1][0] == "SHARE":
                need = requests.need
                if held and need:
                    assert need > len(held), (need, held)
                    break
                assert taken or not held, "no progress"
    assert kept(requests) <= MAX_HELD_BYTES
    return [*events, (held, requests.setup, requests.pinned)]


def look_at_request(framer: Framer, held: bytes) -> None:
    """Hold the quick look to what a parser finds in the same bytes."""
    data = bytearray(JUNK + held + JUNK)
    start, end = len(JUNK), len(JUNK) + len(held)
    if framer.quick_request(data, start, end) is None:
        return
    requests, fresh = framer.requests(), framer.requests()
    assert requests.scan(data, start, end) == (end, 1, None)
    assert (requests.forward, requests.discard, requests.note) == (None, False, 0)
    assert (requests.close_after, requests.pinned) == (False, "")
    assert requests.setup == fresh.setup


def look_at_reply(framer: Framer, data: bytearray, start: int, end: int) -> None:
    """Hold the quick look to what a parser finds in the same bytes."""
    reply = framer.quick_reply(data, start, end)
    if reply is None:
        return
    assert start < reply.end() <= end
    parser = framer.replies()
    assert parser.feed(data, start, end, 1, 0) == (reply.end(), 1)
    assert not parser.last
    assert not parser.tunnel
    assert not parser.begun


def scan(requests: Requests, held: bytes) -> tuple[int, list[Event], bool]:
    """Scan once; returns the bytes taken, what they are, and whether the client is followed on."""
    data = bytearray(JUNK + held + JUNK)
    start, end = len(JUNK), len(JUNK) + len(held)
    try:
        stop, replies, special = requests.scan(data, start, end)
    except ProtocolError:
        return 0, [OVER], True
    assert bytes(data) == JUNK + held + JUNK
    assert start <= stop <= end
    assert replies >= 0
    assert stop > start or not replies
    beside = requests.note, requests.close_after
    events: list[Event] = []
    if stop > start:
        sent = bytes(data[start:stop]) if requests.forward is None else requests.forward
        events.append(("SHARE", sent, replies, requests.discard, beside))
        if requests.close_after:
            return stop - start, [*events, OVER], True
    if special is None:
        return stop - start, events, False
    assert stop < special.end <= end
    if special.verdict is Verdict.REFUSE:
        return 0, [*events, OVER], True
    request = bytes(data[stop : special.end])
    state = requests.setup, requests.pinned
    told = special._replace(undo=None)[2:]  # a function of its own in each parser
    events.append((special.verdict.name, request, *told, beside, state))
    return special.end - start, events, special.verdict is Verdict.TUNNEL


def _join(events: list[Event], event: Event, *, shared: bool) -> None:
    """Add an event; how many requests a run has is the split's doing."""
    last = events[-1] if events else (None,)
    if shared and last[0] == event[0] == "SHARE" and not (last[3] or event[3]):
        _, sent, replies, *_ = events.pop()
        assert isinstance(sent, bytes)
        assert isinstance(replies, int)
        event = ("SHARE", sent + event[1], replies + event[2], *event[3:])  # type: ignore[operator]
    elif last[0] == event[0] == "ANSWER" and not last[3] and not event[3]:
        event = ("ANSWER", last[1] + event[1], *event[2:])  # type: ignore[operator]
        events.pop()
    events.append(event)


def followed(framer: Framer, stream: bytes, sizes: bytes, scale: int = 1) -> Event:
    """Follow the request at the head of a stream, if it is one that may be followed."""
    requests = framer.requests()
    taken, found, over = scan(requests, stream[:MIN_SLAB_BYTES])
    if taken or found or over or len(stream) < MIN_SLAB_BYTES:
        return ()
    at, sent = 0, b""
    for number, part in enumerate(pieces(stream, sizes, scale)):
        assert number % LOOK_EVERY or kept(requests) <= MAX_HELD_BYTES
        data = bytearray(JUNK + part + JUNK)
        start, end = len(JUNK), len(JUNK) + len(part)
        try:
            stop, done = requests.follow(data, start, end)
        except ProtocolError:
            return OVER
        assert start <= stop <= end
        assert done or stop == end
        at += stop - start
        sent += data[start:stop] if requests.forward is None else requests.forward
        if done:
            beside = requests.note, requests.close_after, requests.setup, requests.pinned
            return (at, sent, requests.discard, requests.clean, beside)
    return ("MORE", at)


def replies_of(framer: Framer, parts: Iterable[bytes], limit: int, note: int) -> list[Event]:
    """Feed what a server says; returns where each reply ends and what it was."""
    parser, at = framer.replies(), 0
    events: list[Event] = []
    for number, part in enumerate(parts):
        assert number % LOOK_EVERY or kept(parser) <= MAX_HELD_BYTES
        data = bytearray(JUNK + part + JUNK)
        start, end = len(JUNK), len(JUNK) + len(part)
        while start < end:
            if not parser.begun:
                look_at_reply(framer, data, start, end)
            try:
                stop, done = parser.feed(data, start, end, limit, note)
            except ProtocolError:
                return [*events, OVER]
            assert start <= stop <= end
            assert 0 <= done <= limit
            assert stop == end or done == limit or parser.last or parser.tunnel
            assert stop > start or done, "no progress"
            at += stop - start
            start = stop
            if done:
                events.append((done, at, parser.failed, parser.last, parser.tunnel))
                if parser.last or parser.tunnel:
                    return events
    assert kept(parser) <= MAX_HELD_BYTES
    return [*events, ("BEGUN", parser.begun, parser.end())]


def kept(thing: object) -> int:
    """Return how many bytes a parser keeps, in bytes and in numbers of things."""
    return sum(_size(value) for value in _attributes(thing))


def _size(value: Any) -> int:
    match value:
        case bytes() | bytearray() | str():
            return len(value)
        case list() | tuple():
            return 8 * len(value) + sum(_size(item) for item in value)
    return kept(value) if type(value).__module__.startswith("aegis.framers.") else 8


def _attributes(thing: object) -> Iterator[object]:
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    for name in (*names, *getattr(thing, "__dict__", {})):
        if hasattr(thing, name):
            yield getattr(thing, name)

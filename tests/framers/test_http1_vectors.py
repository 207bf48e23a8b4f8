"""Every vector of http1 whole, byte by byte and with more behind it; and what other tests import.

`frames_of` and `replies_of` drive the parsers as the multiplexer does: a request that is incomplete
stays in the buffer and is scanned again when `need` bytes are there, a reply is passed on at once.
"""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aegis.framers import http1_syntax
from aegis.framers.contract import Framer, ProtocolError, Verdict
from aegis.framers.http1 import Http1
from aegis.framers.http1_errors import RefusedError
from aegis.framers.http1_replies import Http1Replies
from aegis.framers.http1_requests import Http1Requests

VECTORS = Path(__file__).parent / "vectors" / "http1"
JUNK = b"\r\n\r\r"  # what lies in the slab before a request: must not be looked at
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


class Frame(NamedTuple):
    """One request as a scan returned it, and the attributes beside it."""

    verdict: Verdict | None
    why: str
    size: int
    note: int = 0
    closes: bool = False
    forward: bytes | None = None
    reply: bytes = b""


class RequestVector(NamedTuple):
    name: str
    expected: list[str]
    stream: bytes
    forward: bytes | None


class ReplyVector(NamedTuple):
    name: str
    note: int
    expected: list[str]
    stream: bytes


def rows(name: str) -> Iterator[list[str]]:
    for line in (VECTORS / name).read_text().splitlines():
        if not line.startswith("#"):
            yield [column.strip() for column in line.split(" |")]


def unescape(text: str) -> bytes:
    return codecs.decode(text.replace("{H}", "Host: x\\r\\n"), "unicode_escape").encode("latin-1")


def note_of(words: Iterable[str]) -> int:
    """Return the note with the bits that are named; other words are passed over."""
    return sum(getattr(http1_syntax, word) for word in words if word in NOTES)


NOTES = {"OLD", "HEAD", "CONNECT", "UPGRADE", "CLOSE"}
REQUESTS = [
    RequestVector(
        name, expected.split(), unescape(stream), unescape(forward[0]) if forward else None
    )
    for name, expected, stream, *forward in rows("requests.txt")
]
REPLIES = [
    ReplyVector(name, note_of(notes.split()), expected.split(), unescape(stream))
    for name, notes, expected, stream in rows("replies.txt")
]


def pieces_of(stream: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """Cut a stream; a cut may fall anywhere, or nowhere."""
    before = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]:
        yield stream[before:cut]
        before = cut


def every_byte(stream: bytes) -> range:
    return range(1, len(stream))


def next_frame(parser: Http1Requests, data: bytearray, end: int) -> Frame | None:
    """Scan the request that begins behind JUNK."""
    start = len(JUNK)
    stop, replies, special = parser.scan(data, start, end)
    beside = parser.note, parser.close_after, parser.forward
    if special is not None:
        assert (stop, replies) == (start, 0)
        return Frame(special.verdict, special.why, special.end - start, *beside, special.reply)
    if replies:
        assert replies == 1
        return Frame(None, "", stop - start, *beside)
    assert stop == start
    assert parser.need > end - start
    return None


def frames_of(
    stream: bytes, cuts: Iterable[int] = (), parser: Http1Requests | None = None
) -> list[Frame]:
    """Return all requests of a stream that arrives in pieces, up to one that is refused."""
    parser = parser or Http1().requests()
    found: list[Frame] = []
    data = bytearray(JUNK)
    need = 1
    for piece in pieces_of(stream, cuts):
        data += piece
        while len(data) - len(JUNK) >= need:
            # Stale bytes behind the end, as in a slab that is used again.
            frame = next_frame(parser, data + b"\r\n\r\n0\r\n\r\n", len(data))
            if frame is None:
                need = parser.need
                break
            found.append(frame)
            if frame.verdict is Verdict.REFUSE:
                return found
            del data[len(JUNK) : len(JUNK) + frame.size]
            need = 1
    return found


def follow(parser: Http1Requests, stream: bytes, cuts: Iterable[int]) -> int | None:
    """Return where a followed request ends, None if it does not."""
    taken = 0
    for piece in pieces_of(stream, cuts):
        data = bytearray(JUNK + piece)
        stop, done = parser.follow(data, len(JUNK), len(data))
        taken += stop - len(JUNK)
        if done:
            return taken
        assert stop == len(data)
    return None


def replies_of(
    stream: bytes, cuts: Iterable[int], note: int, parser: Http1Replies, limit: int = 1
) -> tuple[int, int]:
    """Return how many replies ended, at most `limit`, and how many bytes they and the next take."""
    count = taken = 0
    for piece in pieces_of(stream, cuts):
        data = bytearray(JUNK + piece + JUNK)
        end = len(data) - len(JUNK)
        stop, replies = parser.feed(data, len(JUNK), end, limit - count, note)
        taken += stop - len(JUNK)
        count += replies
        if stop < end:
            break
    return count, taken


def expected_frame(vector: RequestVector) -> Frame | None:
    kind, *words = vector.expected
    if kind == "more":
        return None
    note, closes = note_of(words), "close" in words or "CLOSE" in words
    if kind == "share":
        return Frame(None, "", len(vector.stream), note, closes, vector.forward)
    return Frame(Verdict[kind], words[0], len(vector.stream), note, closes)


def test_the_parsers_are_what_the_contract_asks_for() -> None:
    framer: Framer = Http1()
    parser = framer.requests()
    assert parser.scan(bytearray(framer.ping), 0, len(framer.ping)) == (len(framer.ping), 1, None)
    assert parser.note == 0
    assert framer.in_flight == 1


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda v: v.name)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytes"])
def test_a_request_is_found_and_judged(vector: RequestVector, split: bool) -> None:
    expected = expected_frame(vector)
    found = frames_of(vector.stream, every_byte(vector.stream) if split else ())
    if expected is None:
        assert found == []
    elif expected.verdict is Verdict.REFUSE:
        (frame,) = found
        assert frame[:2] == expected[:2]
        assert frame.reply.startswith(b"HTTP/1.1 %s " % vector.expected[2].encode())
        assert b"\r\nConnection: close\r\n" in frame.reply
        assert replies_of(frame.reply, (), 0, Http1().replies()) == (1, len(frame.reply))
    elif expected.verdict is Verdict.ANSWER:
        assert sum(frame.size for frame in found) == len(vector.stream)
        assert {frame[:2] for frame in found} == {expected[:2]}
    else:
        assert found == [expected]


@pytest.mark.parametrize(
    "vector",
    [v for v in REQUESTS if v.expected[0] not in ("more", "ANSWER")],
    ids=lambda v: v.name,
)
def test_what_follows_a_request_changes_nothing(vector: RequestVector) -> None:
    framer = Http1()
    for _ in range(2):  # the second time the memos know it
        first, *others = frames_of(vector.stream + NEXT, (), framer.requests())
        if first.verdict is Verdict.REFUSE:
            assert first.why == vector.expected[1]
        else:
            assert first == expected_frame(vector)
            assert others == [Frame(None, "", len(NEXT))]


@pytest.mark.parametrize(
    "vector", [v for v in REQUESTS if v.expected[0] != "ANSWER"], ids=lambda v: v.name
)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytes"])
def test_a_followed_request_ends_where_a_scan_ends_it(vector: RequestVector, split: bool) -> None:
    parser = Http1().requests()
    cuts = every_byte(vector.stream) if split else ()
    expected = expected_frame(vector)
    if expected is None:
        if vector.stream.startswith(b"\r"):
            return  # never followed: a scan takes empty lines away
        assert follow(parser, vector.stream, cuts) is None
    elif expected.verdict is Verdict.REFUSE:
        with pytest.raises(RefusedError) as raised:
            follow(parser, vector.stream, cuts)
        assert raised.value.kind == expected.why
    else:
        assert follow(parser, vector.stream, cuts) == len(vector.stream)
        note = expected.note | (http1_syntax.CLOSE if expected.closes else 0)
        assert (parser.note, parser.close_after) == (note, expected.closes)
        assert parser.forward is None
    # Whatever happened, the parser is at the beginning of a request now, or is thrown away.
    if expected is not None:
        assert parser.scan(bytearray(NEXT), 0, len(NEXT)) == (len(NEXT), 1, None)


@pytest.mark.parametrize("vector", REPLIES, ids=lambda v: v.name)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytes"])
@pytest.mark.parametrize("more", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["alone", "more"])
def test_a_reply_ends_where_it_should(vector: ReplyVector, split: bool, more: bytes) -> None:
    stream = vector.stream + more
    cuts = every_byte(stream) if split else ()
    kind, *flags = vector.expected
    framer = Http1()
    for _ in range(2):  # the second time the memo knows it
        parser = framer.replies()
        if kind == "error":
            with pytest.raises(ProtocolError):
                replies_of(stream, cuts, vector.note, parser)
            continue
        if kind == "more" and more:
            continue
        count, taken = replies_of(stream, cuts, vector.note, parser)
        assert count == (kind == "reply")
        assert taken == (len(stream) if kind == "rest" else len(vector.stream))
        assert parser.end() == (kind == "rest")
        if kind != "more":
            said = [flag for flag in ("last", "failed", "tunnel") if getattr(parser, flag)]
            assert said == [flag for flag in ("last", "failed", "tunnel") if flag in flags]

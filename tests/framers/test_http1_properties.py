"""http1 under any split and any bytes, at its limits, and with a client that waits."""

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.framers.contract import ProtocolError, Special, Verdict
from aegis.framers.http1 import Http1
from aegis.framers.http1_errors import FAILURES, REFUSALS, RefusedError
from aegis.framers.http1_requests import Http1Requests
from aegis.framers.http1_syntax import (
    MAX_CHUNK_LINE_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    MAX_TRAILER_BYTES,
    MEMO_BYTES,
    MEMO_ENTRIES,
    UPGRADE,
)
from tests.framers.test_http1_vectors import (
    NEXT,
    REPLIES,
    REQUESTS,
    follow,
    frames_of,
    replies_of,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

cuts = st.lists(st.integers(1, 2_000), max_size=8)
pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=4)
names = st.sampled_from([b"Accept", b"Cookie", b"X-A", b"Via", b"Content-Type", b"keep-alive"])
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(lambda text: text.encode("latin-1"))


def field_lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%s: %s\r\n" % field for field in fields)


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\nA: b\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a request that may be shared."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"MKCOL"]))
    minor = draw(st.sampled_from([0, 1, 1]))
    fields = [(b"Host", b"x"), *draw(st.lists(st.tuples(names, values), max_size=4))]
    if draw(st.booleans()):
        option = draw(st.sampled_from([b"close", b"keep-alive", b"TE", b"Keep-Alive, x"]))
        fields.append((b"Connection", option))
    body = b""
    if method in (b"PUT", b"POST"):
        parts = draw(pieces)
        if minor and draw(st.booleans()):
            fields.append((b"Transfer-Encoding", b"chunked"))
            body = chunked(parts)
        else:
            body = b"".join(parts)
            fields.append((b"Content-Length", b"%d" % len(body)))
    lines = field_lines(draw(st.permutations(fields)))
    return b"%s /kv/k HTTP/1.%d\r\n%s\r\n%s" % (method, minor, lines, body)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Draw a reply that is not the last on its connection."""
    fields = draw(st.lists(st.tuples(names, values), max_size=4))
    interim = draw(st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    status = draw(st.sampled_from([200, 204, 304, 404, 500]))
    parts = draw(pieces)
    body = b"".join(parts)
    if draw(st.booleans()):
        fields.append((b"Transfer-Encoding", b"chunked"))
        body = chunked(parts)
    else:
        fields.append((b"Content-Length", b"%d" % len(body)))
    if status in (204, 304):
        body = b""
    lines = field_lines(draw(st.permutations(fields)))
    return interim + b"HTTP/1.1 %d Any\r\n%s\r\n%s" % (status, lines, body)


@given(st.lists(requests(), min_size=1, max_size=4), cuts)
@settings(deadline=None)
def test_requests_are_found_in_any_split(drawn: list[bytes], cuts: list[int]) -> None:
    framer = Http1()
    stream = b"".join(drawn)
    whole = frames_of(stream, (), framer.requests())
    assert [frame.size for frame in whole] == [len(one) for one in drawn]
    assert {frame.verdict for frame in whole} == {None}
    assert frames_of(stream, cuts, framer.requests()) == whole
    assert frames_of(stream, (), framer.requests()) == whole  # now all from the memos


@given(requests(), cuts)
@settings(deadline=None)
def test_what_is_sent_on_is_the_same_request_and_persists(one: bytes, cuts: list[int]) -> None:
    (frame,) = frames_of(one, cuts)
    sent = one if frame.forward is None else frame.forward
    (again,) = frames_of(sent)
    assert (again.verdict, again.size, again.note) == (None, len(sent), frame.note)
    assert again.forward is None
    assert not again.closes
    assert (frame.forward is not None) == frame.closes
    hop_by_hop = (b"connection:", b"keep-alive:")
    before, after = (
        [line for line in bytes_.split(b"\r\n") if not line.lower().startswith(hop_by_hop)]
        for bytes_ in (one, sent)
    )
    assert before == after


@given(requests(), cuts)
@settings(deadline=None)
def test_a_followed_request_ends_there_in_any_split(one: bytes, cuts: list[int]) -> None:
    parser = Http1().requests()
    assert follow(parser, one + NEXT, cuts) == len(one)
    assert parser.scan(bytearray(NEXT), 0, len(NEXT)) == (len(NEXT), 1, None)


@given(st.lists(replies(), min_size=1, max_size=4), cuts)
@settings(deadline=None)
def test_replies_are_counted_in_any_split(drawn: list[bytes], cuts: list[int]) -> None:
    framer = Http1()
    stream = b"".join(drawn)
    expected = (len(drawn), len(stream))
    assert replies_of(stream, cuts, 0, framer.replies(), limit=9) == expected
    assert replies_of(stream, (), 0, framer.replies(), limit=9) == expected
    for _ in range(2):
        assert replies_of(stream, cuts, 0, framer.replies()) == (1, len(drawn[0]))


@st.composite
def damaged(draw: st.DrawFn, streams: list[bytes]) -> bytes:
    """Draw a vector with a few bytes changed, taken out or put in."""
    stream = bytearray(draw(st.sampled_from(streams)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        there = draw(st.integers(0, 2))
        put = st.one_of(st.binary(max_size=2), st.sampled_from([b"\r\n", b"\n", b"\r", b":", b" "]))
        stream[at : at + there] = draw(put)
    return bytes(stream)


@given(st.one_of(st.binary(max_size=200), damaged([v.stream for v in REQUESTS])), cuts)
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_judged_alike_in_any_split(stream: bytes, cuts: list[int]) -> None:
    whole = frames_of(stream)
    split = frames_of(stream, cuts)
    ends = [frame for frame in whole if frame.verdict is Verdict.REFUSE]
    assert all(frame.why in REFUSALS for frame in ends)
    if len(split) < len(whole) and ends:
        # Waiting for the least that a body needs, it has not looked at a chunk that is malformed.
        assert [frame.why for frame in ends] == ["bad_chunk"]
        whole.remove(ends[0])
    merged = [frame[:2] for frame in split if frame.verdict is not Verdict.ANSWER]
    assert merged == [frame[:2] for frame in whole if frame.verdict is not Verdict.ANSWER]
    sizes = [frame.size for frame in split if frame.verdict is None]
    assert sizes == [frame.size for frame in whole if frame.verdict is None]


@given(
    st.one_of(st.binary(max_size=200), damaged([v.stream for v in REPLIES])),
    cuts,
    st.integers(0, 31),
)
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_replies_or_an_error_in_any_split(
    stream: bytes, cuts: list[int], note: int
) -> None:
    def outcome(*cuts: int) -> Any:
        parser = Http1().replies()
        try:
            counted = replies_of(stream, cuts, note, parser)
        except ProtocolError:
            return None
        return counted, parser.end(), parser.last, parser.tunnel, parser.failed

    assert outcome(*cuts) == outcome()


@given(st.binary(max_size=200), cuts)
@settings(deadline=None)
def test_any_bytes_can_be_followed_or_are_refused(stream: bytes, cuts: list[int]) -> None:
    with suppress(RefusedError):
        follow(Http1().requests(), stream, cuts)


def judged(stream: bytes) -> list[str]:
    """Return what becomes of a request, scanned whole and split, and followed."""
    found = []
    for cut in ((), range(1, len(stream), 1_000)):
        frames = frames_of(stream, cut)
        found.append(frames[0].why if frames else "more")
        try:
            end = follow(Http1().requests(), stream, cut)
            found.append("more" if end is None else "")
        except RefusedError as error:
            found.append(error.kind)
    return found


def head_of(size: int) -> bytes:
    filler = size - len(GET) - len(b"\r\n")
    lines = b"".join(b"A: %s\r\n" % (b"b" * (1_000 - 5)) for _ in range(filler // 1_000 - 1))
    last = b"A: %s\r\n" % (b"b" * (filler - len(lines) - 5))
    return GET + lines + last + b"\r\n"


@pytest.mark.parametrize(
    ("most", "too_much", "why"),
    [
        (head_of(MAX_HEAD_BYTES), head_of(MAX_HEAD_BYTES + 1), "head_too_long"),
        (
            GET + b"A: b\r\n" * (MAX_FIELDS - 1) + b"\r\n",
            GET + b"A: b\r\n" * MAX_FIELDS + b"\r\n",
            "too_many_fields",
        ),
        (
            b"GET /%s HTTP/1.0\r\n\r\n" % (b"a" * (MAX_TARGET_BYTES - 1)),
            b"GET /%s HTTP/1.0\r\n\r\n" % (b"a" * MAX_TARGET_BYTES),
            "target_too_long",
        ),
        (
            CHUNKED + b"0;%s\r\n\r\n" % (b"a" * (MAX_CHUNK_LINE_BYTES - 4)),
            CHUNKED + b"0;%s\r\n\r\n" % (b"a" * (MAX_CHUNK_LINE_BYTES - 3)),
            "bad_chunk",
        ),
        (
            CHUNKED + b"0\r\n" + b"A: %s\r\n" % (b"b" * (MAX_TRAILER_BYTES - 7)) + b"\r\n",
            CHUNKED + b"0\r\n" + b"A: %s\r\n" % (b"b" * (MAX_TRAILER_BYTES - 6)) + b"\r\n",
            "bad_chunk",
        ),
    ],
    ids=["head", "fields", "target", "chunk", "trailer"],
)
def test_a_limit_is_reached_and_not_passed(most: bytes, too_much: bytes, why: str) -> None:
    assert set(judged(most)) == {""}
    assert set(judged(too_much)) == {why}
    assert len(most) + 1 == len(too_much) or why == "too_many_fields"


def test_a_target_that_never_ends_is_refused() -> None:
    assert set(judged(b"GET /" + b"a" * MAX_HEAD_BYTES)) == {"target_too_long"}


def test_a_replys_head_has_the_same_limits() -> None:
    fits = OK + b"A: %s\r\n" % (b"b" * (MAX_HEAD_BYTES - len(OK) - 7)) + b"\r\n"
    assert len(fits) == MAX_HEAD_BYTES
    for cut in ((), range(1, len(fits), 1_000)):
        assert replies_of(fits, cut, 0, Http1().replies()) == (0, len(fits))
        for wrong in (fits[:-4] + b"b" + fits[-4:], OK + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"):
            with pytest.raises(ProtocolError):
                replies_of(wrong, cut, 0, Http1().replies())


def test_bytes_that_arrive_singly_are_not_looked_at_again_and_again() -> None:
    head = head_of(MAX_HEAD_BYTES)
    data, framer = bytearray(head), Http1()
    scanner, follower, replier = framer.requests(), framer.requests(), framer.replies()
    reply = bytearray(OK + head[len(GET) :])
    began_s = time.process_time()
    for end in range(1, len(head)):
        assert scanner.scan(data, 0, end) == (0, 0, None)
        assert follower.follow(data, end - 1, end) == (end, False)
    for end in range(1, len(reply)):
        assert replier.feed(reply, end - 1, end, 1, 0) == (end, 0)
    # 0.5 s when it is linear, a minute when BROKEN sees all of it every time.
    assert time.process_time() - began_s < 10


def test_memos_are_bounded() -> None:
    framer = Http1()
    client, pipe = framer.requests(), framer.replies()
    for number in range(2 * MEMO_ENTRIES + 1):
        for version in (0, 1):
            head = b"GET / HTTP/1.%d\r\nHost: x\r\nA: %d\r\n\r\n" % (version, number)
            assert client.scan(bytearray(head), 0, len(head)) == (len(head), 1, None)
        reply = OK + b"Content-Length: 0\r\nA: %d\r\n\r\n" % number
        assert pipe.feed(bytearray(reply), 0, len(reply), 1, 0) == (len(reply), 1)
    memos = framer._new, framer._old, framer._heads
    assert [0 < len(memo) <= MEMO_ENTRIES for memo in memos] == [True] * 3
    long = GET + b"A: %s\r\n\r\n" % (b"b" * MEMO_BYTES)
    assert client.scan(bytearray(long), 0, len(long)) == (len(long), 1, None)
    assert max(len(block) for memo in memos for block in memo) <= MEMO_BYTES


def scanned(parser: Http1Requests, stream: bytes) -> tuple[int, int, Special | None]:
    return parser.scan(bytearray(stream), 0, len(stream))


def test_equal_fields_mean_another_thing_to_another_method_or_version() -> None:
    framer = Http1()
    fields = b"Host: x\r\nContent-Length: 1\r\n\r\nx"
    for _ in range(2):
        assert frames_of(b"PUT / HTTP/1.1\r\n" + fields, (), framer.requests())[0].verdict is None
        (get,) = frames_of(b"GET / HTTP/1.1\r\n" + fields, (), framer.requests())
        assert (get.verdict, get.why) == (Verdict.PIN, "content")
        (old,) = frames_of(b"PUT / HTTP/1.0\r\n" + fields, (), framer.requests())
        assert old.closes
        (bare,) = frames_of(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", (), framer.requests())
        assert bare.closes
        (post,) = frames_of(b"POST / HTTP/1.0\r\nHost: x\r\n\r\n", (), framer.requests())
        assert post.why == "length_required"
        (hosted,) = frames_of(b"GET / HTTP/1.0\r\nA: b\r\n\r\n", (), framer.requests())
        assert hosted.verdict is None
        (hostless,) = frames_of(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", (), framer.requests())
        assert hostless.why == "bad_host"


def test_credentials_that_bind_the_connection_pin_its_client_to_the_end() -> None:
    parser = Http1().requests()
    assert scanned(parser, NEXT) == (len(NEXT), 1, None)
    assert parser.pinned == ""
    ntlm = GET + b"Authorization: NTLM abc\r\n\r\n"
    assert scanned(parser, ntlm) == (0, 0, Special(Verdict.PIN, len(ntlm), "authentication"))
    assert scanned(parser, NEXT) == (len(NEXT), 1, None)
    assert parser.pinned == "authentication"
    followed = Http1().requests()
    assert follow(followed, ntlm, ()) == len(ntlm)
    assert followed.pinned == "authentication"


def test_a_client_that_waits_for_leave_to_go_on_is_to_be_followed_at_once() -> None:
    head = b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    parser = Http1().requests()
    assert scanned(parser, head[:-1]) == (0, 0, None)
    assert not parser.stream_now
    assert scanned(parser, head) == (0, 0, None)
    assert parser.stream_now
    assert follow(parser, head + b"body" + NEXT, [len(head), len(head) + 2]) == len(head) + 4
    assert not parser.stream_now
    assert scanned(parser, head + b"body") == (len(head) + 4, 1, None)
    assert not parser.stream_now


def test_an_upgrade_that_is_followed_leaves_its_note_with_the_head() -> None:
    head = GET + b"Upgrade: x\r\nContent-Length: 1\r\n\r\n"
    parser = Http1().requests()
    assert parser.follow(bytearray(head), 0, len(head)) == (len(head), False)
    assert parser.note == UPGRADE
    assert parser.follow(bytearray(b"xy"), 0, 2) == (1, True)


@pytest.mark.parametrize("why", [*FAILURES, "a word it does not know"])
def test_every_error_is_a_whole_reply_that_closes(why: str) -> None:
    framer = Http1()
    status = FAILURES.get(why, (503, ""))[0]
    error, pipe = framer.error(why), framer.replies()
    assert error.startswith(b"HTTP/1.1 %d " % status)
    assert replies_of(error, (), 0, pipe) == (1, len(error))
    assert pipe.last

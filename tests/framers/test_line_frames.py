"""line: requests and replies whole, in any split, against Chronos's own parser; and its limits."""

import re
from collections.abc import Sequence
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.framers.contract import NO_SETUP, Framer, ProtocolError
from aegis.framers.line import MAX_LINE_BYTES, Line
from ops.chronos import limits
from ops.chronos.client import HTTP_LINE
from ops.chronos.inbox import Inbox
from ops.chronos.lines import LineReader
from tests.framers.test_resp_vectors import follow, frames_of, replies_of

LINE: Framer = Line()
HTTP_REQUESTS = [
    b"GET / HTTP/1.1\r\n",
    b"GET /kv/k HTTP/1.0\n",
    b"PUT /kv/k HTTP/1.1\r\n",
    b"BREW /pot HTTP/9.9\n",
    b" HTTP/2\n",
    b"x HTTP/1.1.1.1\r\n",
    b"GET HTTP/1.1\n",
    b"SETX HTTP/1.1\n",
]
NOT_HTTP = [
    b"SET k GET / HTTP/1.1\n",
    b"SET k  HTTP/1.1\r\n",
    b"GET / HTTP/1.1 \n",
    b"GET / HTTP/1.1\r\r\n",
    b"GET / HTTP/\n",
    b"GET / http/1.1\n",
]

cuts = st.lists(st.integers(1, 20), max_size=30)
lines = st.sampled_from(
    [b"PING\n", b"SET k v\r\n", b"GET k\n", b"\n", b"\r\n", b"\r\r\n", b" \n", *NOT_HTTP]
) | st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"") + b"\n")
streams = st.lists(lines | st.sampled_from(HTTP_REQUESTS), max_size=10).map(b"".join)


@pytest.mark.parametrize("cuts", [(), [1] * 100], ids=["whole", "bytes"])
@pytest.mark.parametrize("line", [b"PING\n", b"set\r\n", b"\r\r\n", b"\0\n", *NOT_HTTP])
def test_a_line_is_owed_one_reply(line: bytes, cuts: Sequence[int]) -> None:
    assert frames_of(LINE, line, cuts) == [("SHARE", line, 1)]
    assert frames_of(LINE, line * 3, cuts) == [("SHARE", line * 3, 3)]
    assert frames_of(LINE, line + b"PIN", cuts) == [("SHARE", line, 1)]


@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_an_empty_line_is_owed_none_wherever_it_stands(line: bytes) -> None:
    for cuts in ((), [1] * 100):
        assert frames_of(LINE, line, cuts) == [("SHARE", line, 0)]
        stream = line + b"PING\n" + line + line + b"PING\r\n" + line
        assert frames_of(LINE, stream, cuts) == [("SHARE", stream, 2)]


@pytest.mark.parametrize("line", HTTP_REQUESTS)
def test_http_never_reaches_a_shared_pipe(line: bytes) -> None:
    refused = ("REFUSE", line, "http", LINE.error("an HTTP request on the line protocol's port"), 1)
    for cuts in ((), [1] * 100):
        assert frames_of(LINE, line + b"PING\n", cuts) == [refused]
        stream = b"PING\n\n" + line + b"PING\n"
        assert frames_of(LINE, stream, cuts) == [("SHARE", b"PING\n\n", 1), refused]


@settings(deadline=None)
@given(streams, cuts)
def test_any_split_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    assert frames_of(LINE, stream, cuts) == frames_of(LINE, stream)


@settings(deadline=None)
@given(streams)
def test_chronos_would_answer_as_many_commands_and_be_asked_for_no_http(stream: bytes) -> None:
    frames = frames_of(LINE, stream)
    shared = b"".join(taken for kind, taken, *_ in frames if kind == "SHARE")  # type: ignore[misc]
    inbox = Inbox()
    inbox.feed(shared)
    reader = LineReader(inbox)
    commands = 0
    while reader.next() is not None:
        commands += 1
    assert sum(f[2] for f in frames if f[0] == "SHARE") == commands  # type: ignore[misc]
    for line in shared.split(b"\n"):
        assert not HTTP_LINE.fullmatch(line.removesuffix(b"\r"))


def test_the_greatest_line_passes_and_a_longer_one_does_not() -> None:
    assert MAX_LINE_BYTES == limits.MAX_LINE_BYTES
    greatest = b"SET k " + b"v" * (MAX_LINE_BYTES - 6)
    for end in (b"\n", b"\r\n"):
        assert frames_of(LINE, greatest + end) == [("SHARE", greatest + end, 1)]
        assert frames_of(LINE, b"\n" + greatest + end) == [("SHARE", b"\n" + greatest + end, 1)]
        assert follow(LINE, greatest + end, [100_000] * 20) == len(greatest + end)
        for wrong in (greatest + b"v" + end, greatest + b"vv"):
            assert frames_of(LINE, wrong) == [("ERROR",)]
            with pytest.raises(ProtocolError):
                follow(LINE, wrong, [100_000] * 20)
    refused = frames_of(LINE, b"PING\n" + greatest + b"v\n")
    assert refused == [("SHARE", b"PING\n", 1), ("ERROR",)]


def test_a_long_line_byte_by_byte_is_searched_once() -> None:
    requests = LINE.requests()
    data = bytearray(b"SET k " + b"v" * 200_000 + b"\n")
    began = process_time()
    for end in range(1, len(data)):
        assert requests.scan(data, 0, end) == (0, 0, None)
        assert requests.need == end + 1
    assert requests.scan(data, 0, len(data)) == (len(data), 1, None)
    assert process_time() - began < 5  # some 0.2 s


@settings(deadline=None)
@given(lines | st.sampled_from(HTTP_REQUESTS), cuts, st.integers(0, 100))
def test_following_ends_where_the_line_does_and_lets_no_http_by(
    line: bytes, cuts: list[int], digits: int
) -> None:
    line = line.replace(b"1", b"1" * (digits + 1))
    try:
        assert follow(LINE, line + b"PING\n", cuts) == len(line)
    except ProtocolError:
        assert frames_of(LINE, line)[0][0] == "REFUSE" or re.search(rb"[0-9.]{56}\r?\n", line)
    else:
        assert frames_of(LINE, line)[0][0] == "SHARE"


# --- replies --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.binary(max_size=200), cuts)
def test_any_bytes_are_replies_and_end_where_lines_do(stream: bytes, cuts: list[int]) -> None:
    expected = [
        (match.end(), match[0].startswith(b"ERR ")) for match in re.finditer(rb"[^\n]*\n", stream)
    ]
    assert replies_of(LINE, stream, cuts) == expected
    assert replies_of(LINE, stream) == expected
    with suppress(ProtocolError):
        frames_of(LINE, stream, cuts)


def test_errors_are_told_from_values_in_any_split() -> None:
    stream = b"OK\nERR no\nvalue\nERRATA\nERR \n"
    failed = [False, True, False, False, True]
    for cuts in ((), [1] * 100, [4] * 20, [11, 2, 1]):
        assert [f for _, f in replies_of(LINE, stream, cuts)] == failed


def test_no_more_replies_are_taken_than_the_limit() -> None:
    parser = LINE.replies()
    data = bytearray(b"OK\nNULL\nERR x\nval")
    assert parser.feed(data, 0, len(data), 0, 0) == (0, 0)
    for limit in range(1, 4):
        end = [0, 3, 8, 14][limit]
        assert LINE.replies().feed(data, 0, len(data), limit, 0) == (end, limit)
    assert parser.feed(data, 0, len(data), 2, 0) == (8, 2)
    assert not parser.failed
    assert parser.feed(data, 8, len(data), 2, 0) == (len(data), 1)
    assert parser.failed
    assert not parser.end()


def test_what_the_framer_says_is_one_line() -> None:
    assert LINE.error("no\nserver\r") == b"ERR no server\n"
    assert LINE.ping == b"PING\n"
    requests = LINE.requests()
    assert (requests.setup, requests.pinned) == (NO_SETUP, "")

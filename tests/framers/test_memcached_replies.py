"""Replies of the memcached framer: vectors, any split, any limit, any bytes."""

import itertools
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aegis.framers.contract import ProtocolError
from aegis.framers.memcached_replies import MAX_REPLY_LINE_BYTES, MemcachedReplies

AROUND = b"END\r\n"
Reply = tuple[int, bool]
"""Where it ended, and whether it was an error."""


def deal(stream: bytes, cuts: Sequence[int] = (), limit: int = 1) -> list[Reply]:
    """Feed a stream in pieces; returns the replies as far as `limit` lets them be told apart."""
    replies = MemcachedReplies()
    found: list[Reply] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, finish in itertools.pairwise(edges):
        data = bytearray(AROUND + stream[begin:finish] + AROUND)
        pos, end = len(AROUND), len(data) - len(AROUND)
        while pos < end:
            stop, count = replies.feed(data, pos, end, limit, 0)
            assert pos <= stop <= end
            assert count <= limit
            assert count == limit or stop == end
            found += [(begin + stop - len(AROUND), replies.failed)] * count
            pos = stop
    assert not replies.tunnel
    assert not replies.last
    assert not replies.end()
    return found


WHOLE = [
    b"STORED\r\n",
    b"NOT_STORED\r\n",
    b"EXISTS\r\n",
    b"NOT_FOUND\r\n",
    b"DELETED\r\n",
    b"TOUCHED\r\n",
    b"OK\r\n",
    b"RESET\r\n",
    b"MN\r\n",
    b"END\r\n",
    b"5\r\n",
    b"18446744073709551615\r\n",
    b"9    \r\n",
    b"VERSION 1.6.18\r\n",
    b"HD\r\n",
    b"HD kfoo O1 t-1\r\n",
    b"EN\r\n",
    b"EN O1\r\n",
    b"NF\r\n",
    b"NS\r\n",
    b"EX\r\n",
    b"ME k exp=-1 la=0 cas=1 fetch=no cls=1 size=66\r\n",
    b"VA 0\r\n\r\n",
    b"VA 5 f0 t-1\r\nEND\r\n\r\n",
    b"VALUE k 0 0\r\n\r\nEND\r\n",
    b"VALUE k 0 5\r\nhello\r\nEND\r\n",
    b"VALUE k 4294967295 7 12\r\n\r\nEND\r\n\r\nEND\r\n",
    b"VALUE a 0 1\r\na\r\nVALUE \xff 0 2\r\n\r\n\r\nEND\r\n",
    b"STAT pid 1\r\nSTAT settings a b  c\r\nEND\r\n",
    b"STAT empty \r\nEND\r\n",
]
ERRORS = [
    b"ERROR\r\n",
    b"ERROR an unknown error happened\r\n",
    b"CLIENT_ERROR bad command line format\r\n",
    b"SERVER_ERROR object too large for cache\r\n",
    b"SERVER_ERROR out of memory storing object\r\n",
    b"VALUE a 0 1\r\na\r\nSERVER_ERROR something\r\n",
    b"STAT a b\r\nSERVER_ERROR something\r\n",
]
WRONG = [
    b"\r\n",
    b"\n",
    b"STORED\n",
    b"stored\r\n",
    b"STORED \r\n",
    b"VALUE k 0\r\n",
    b"VALUE k 0 x\r\n",
    b"VALUE k 0 1\r\nab\r\n",
    b"VALUE k 0 1\r\na\n\n",
    b"VALUE k 0 1\r\na\r\nSTORED\r\n",
    b"VALUE k 0 1\r\na\r\nVA 1\r\na\r\n",
    b"VA 1\r\nab\r\n",
    b"VA x\r\n",
    b"STAT a b\r\nVALUE k 0 1\r\na\r\nEND\r\n",
    b"STAT a b\r\nOK\r\n",
    b"key=k exp=-1\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"\x81\x00\r\n",
    b"HD " + b"x" * MAX_REPLY_LINE_BYTES + b"\r\n",
    b"ERROR " + b"x" * MAX_REPLY_LINE_BYTES,
    b"ERROR Too many open connections\r\n",
    b"CLIENT_ERROR unauthenticated\r\n",
    b"CLIENT_ERROR authentication failure\r\n",
    b"SERVER_ERROR out of memory writing get response\r\n",
    b"VALUE a 0 1\r\na\r\nSERVER_ERROR out of memory writing get response\r\n",
    b"SERVER_ERROR out of memory reading request\r\n",
]


@pytest.mark.parametrize("reply", WHOLE + ERRORS, ids=lambda r: repr(r[:40]))
def test_a_reply_ends_where_it_ends(reply: bytes) -> None:
    failed = reply in ERRORS
    expected = [(len(reply), failed)]
    assert deal(reply) == expected
    assert deal(reply, range(len(reply))) == expected
    assert deal(reply[:-1]) == []
    two = [*expected, (len(reply) + 8, False)]
    assert deal(reply + b"STORED\r\n") == two
    assert deal(reply + b"STORED\r\n", range(len(reply))) == two


@pytest.mark.parametrize("stream", WRONG, ids=lambda r: repr(r[:40]))
def test_what_is_no_reply_breaks_the_pipe(stream: bytes) -> None:
    for cuts in ((), range(len(stream))):
        with pytest.raises(ProtocolError):
            deal(stream, cuts)
        with pytest.raises(ProtocolError):
            deal(b"STORED\r\n" + stream, cuts, limit=9)


def test_no_more_replies_are_taken_than_are_owed() -> None:
    replies = MemcachedReplies()
    data = bytearray(b"STORED\r\n" * 3)
    assert replies.feed(data, 0, 24, 2, 0) == (16, 2)
    assert replies.feed(data, 16, 24, 0, 0) == (16, 0)
    assert replies.feed(data, 16, 20, 5, 0) == (20, 0)
    assert replies.feed(data, 20, 24, 0, 0) == (20, 0)
    assert replies.feed(data, 20, 24, 5, 0) == (24, 1)


def test_an_error_is_forgotten_with_the_next_reply() -> None:
    replies = MemcachedReplies()
    data = bytearray(b"ERROR\r\nVA 1\r\na\r\n")
    replies.feed(data, 0, 9, 1, 0)
    assert replies.failed
    assert replies.feed(data, 7, len(data), 1, 0) == (len(data), 1)
    assert not replies.failed


values = st.builds(
    lambda body, more: b"VALUE k 0 %d\r\n%b\r\n" % (len(body), body) * more + b"END\r\n",
    st.binary(max_size=40) | st.sampled_from([b"END\r\n", b"\r\nEND\r\n"]),
    st.integers(0, 4),
)
meta = st.binary(max_size=40).map(lambda body: b"VA %d t1\r\n%b\r\n" % (len(body), body))
streams = st.lists(st.sampled_from(WHOLE + ERRORS) | values | meta, max_size=15)
cuts_ = st.lists(st.integers(0, 10_000), max_size=30)


@settings(deadline=None, max_examples=300)
@given(parts=streams, cuts=cuts_, limit=st.integers(1, 20))
@example(parts=[b"VALUE k 0 5\r\nhello\r\nEND\r\n"], cuts=[19, 20, 21], limit=1)
def test_any_split_gives_the_same_replies(parts: list[bytes], cuts: list[int], limit: int) -> None:
    stream = b"".join(parts)
    ends = list(itertools.accumulate(map(len, parts)))
    assert [end for end, _ in deal(stream)] == ends
    assert deal(stream, cuts) == deal(stream)
    assert deal(stream, range(min(len(stream), 500))) == deal(stream)
    assert len(deal(stream, cuts, limit)) == len(parts)


@settings(deadline=None, max_examples=300)
@given(
    parts=st.lists(
        st.sampled_from(b"VALUE VA STAT END STORED ERROR HD k 0 1 5 99999999999".split())
        | st.sampled_from([b" ", b"\r\n", b"\r", b"\n"])
        | st.binary(max_size=4),
        max_size=40,
    ),
    cuts=cuts_,
)
def test_any_bytes_give_replies_or_an_error_and_alike_in_any_split(
    parts: list[bytes], cuts: list[int]
) -> None:
    def outcome(cuts: Sequence[int]) -> list[Reply] | None:
        try:
            return deal(b"".join(parts), cuts)
        except ProtocolError:
            return None

    assert outcome(()) == outcome(cuts) == outcome(range(200))


def test_a_huge_value_passes_through_in_little_memory() -> None:
    replies = MemcachedReplies()
    head = bytearray(b"VALUE k 0 %d\r\n" % (1 << 30))
    block = bytearray(1 << 20)
    replies.feed(head, 0, len(head), 1, 0)
    tracemalloc.start()
    for _ in range(1 << 10):
        assert replies.feed(block, 0, len(block), 1, 0) == (len(block), 0)
    assert replies.feed(bytearray(b"\r\nEND\r\n"), 0, 7, 1, 0) == (7, 1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 14
    tracemalloc.stop()

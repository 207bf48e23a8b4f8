"""Replies of resp: vectors, any split, any bytes, against a parser that builds the values."""

from collections.abc import Sequence
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.framers.contract import ProtocolError
from tests.framers.test_resp_vectors import RESP, cuts, replies_of

OK = b"+OK\r\n"
REPLIES = [
    OK,
    b"+\r\n",
    b"+" + b"long " * 100 + b"\r\n",
    b":0\r\n",
    b":-9223372036854775808\r\n",
    b"$0\r\n\r\n",
    b"$5\r\nhello\r\n",
    b"$2\r\n\r\n\r\n",
    b"$99\r\n" + b"$" * 99 + b"\r\n",
    b"$100\r\n" + b"\r\n" * 50 + b"\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n",
    b"*20\r\n" + b":1\r\n" * 20,
    b"*9\r\n" + b"$3\r\nabc\r\n" * 8 + b"*1\r\n-ERR inside\r\n",
    b"*1\r\n-ERR inside\r\n",
    b"*3\r\n$100\r\n" + b"y" * 100 + b"\r\n:2\r\n" + b"$200\r\n" + b"y" * 200 + b"\r\n",
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.5\r\n",
    b",inf\r\n",
    b",nan\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"=15\r\ntxt:Some string\r\n",
    b"=0\r\n\r\n",
    b"%0\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    b"~3\r\n:1\r\n:2\r\n#t\r\n",
    b"|1\r\n+ttl\r\n:3600\r\n+OK\r\n",
    b"|0\r\n+OK\r\n",
    b"|1\r\n+keys\r\n%1\r\n+a\r\n-ERR not the reply\r\n*2\r\n|1\r\n+x\r\n:1\r\n:2\r\n_\r\n",
    b"*1\r\n" * 1000 + b":1\r\n",
]
ERRORS = [
    b"-ERR unknown command\r\n",
    b"-\r\n",
    b"!21\r\nSYNTAX invalid syntax\r\n",
    b"!0\r\n\r\n",
    b"|1\r\n+k\r\n*1\r\n:1\r\n-ERR with an attribute\r\n",
]
WRONG = [
    b">2\r\n+invalidate\r\n*0\r\n",
    b"*2\r\n:1\r\n>1\r\n:1\r\n",
    b"$?\r\n;4\r\nHell\r\n;0\r\n",
    b"*?\r\n:1\r\n.\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"\r\n",
    b"+OK\n",
    b"+O\rK\r\n",
    b"+OK\r\r\n",
    b"-ERR\n\r\n",
    b":a\r\n",
    b":\r\n",
    b":1 \r\n",
    b"$5\r\nhelloxx",
    b"$5\r\nhello\rx",
    b"$100\r\n" + b"x" * 100 + b"xx",
    b"$05\r\nhello\r\n",
    b"$+5\r\nhello\r\n",
    b"$-2\r\n",
    b"$ 5\r\nhello\r\n",
    b"*-2\r\n",
    b"*1_0\r\n",
    b"%-1\r\n",
    b"|-1\r\n",
    b"_x\r\n",
    b"#x\r\n",
    b"*99999999999\r\n",
    b"$" + b"1" * 40,
]


def parse(data: bytes, at: int = 0) -> tuple[object, int]:
    """Read one value as a client does that builds it; returns it and the index behind it."""
    line_end = data.index(b"\r\n", at)
    kind, line, at = data[at : at + 1], data[at + 1 : line_end], line_end + 2
    if kind in (b"$", b"!", b"="):
        size = int(line)
        if size < 0:
            return None, at
        assert data[at + size : at + size + 2] == b"\r\n"
        return (kind, data[at : at + size]), at + size + 2
    if kind in (b"*", b"~", b"%", b"|"):
        values = []
        for _ in range(int(line) * (2 if kind in (b"%", b"|") else 1)):
            value, at = parse(data, at)
            values.append(value)
        if kind != b"|":
            return (kind, values), at
        value, at = parse(data, at)
        return (kind, values, value), at
    assert kind in (b"+", b"-", b":", b"_", b"#", b",", b"(")
    return (kind, line), at


def parse_all(data: bytes) -> list[int]:
    """Return where each value ends."""
    ends = []
    at = 0
    while at < len(data):
        at = parse(data, at)[1]
        ends.append(at)
    return ends


@pytest.mark.parametrize("cuts", [(), [1] * 9000, [3] * 3000], ids=["whole", "bytes", "threes"])
@pytest.mark.parametrize("reply", REPLIES + ERRORS, ids=lambda r: repr(r)[:40])
def test_a_reply_ends_where_it_ends(reply: bytes, cuts: Sequence[int]) -> None:
    end, failed = len(reply), reply in ERRORS
    assert replies_of(RESP, reply, cuts) == [(end, failed)]
    assert replies_of(RESP, reply + OK, cuts) == [(end, failed), (end + len(OK), False)]
    assert replies_of(RESP, OK + reply, cuts) == [(len(OK), False), (end + len(OK), failed)]
    assert replies_of(RESP, reply + b"*1\r\n", cuts) == [(end, failed)]


@pytest.mark.parametrize("reply", WRONG, ids=lambda r: repr(r)[:40])
def test_what_is_no_reply_is_an_error(reply: bytes) -> None:
    for sizes in ((), [1] * 200):
        for before in (b"", OK, b"*2\r\n:1\r\n"):
            with pytest.raises(ProtocolError):
                replies_of(RESP, before + reply, sizes)


def test_no_more_replies_are_taken_than_the_limit() -> None:
    for reply in (OK, b"*1\r\n:1\r\n"):
        data = bytearray(reply * 5)
        parser = RESP.replies()
        assert parser.feed(data, 0, len(data), 0, 0) == (0, 0)
        assert parser.feed(data, 0, len(data), 3, 0) == (3 * len(reply), 3)
        assert parser.feed(data, 3 * len(reply), len(data), 9, 0) == (len(data), 2)
        assert not parser.end()


values = st.recursive(
    st.sampled_from([r for r in REPLIES if r[:1] not in b"*%~|"] + ERRORS[:4])
    | st.binary(max_size=150).map(lambda s: b"$%d\r\n%s\r\n" % (len(s), s)),
    lambda inner: (
        st.builds(
            lambda kind, items: b"%c%d\r\n" % (kind, len(items)) + b"".join(items),
            st.sampled_from(b"*~"),
            st.lists(inner, max_size=12),
        )
        | st.builds(
            lambda kind, pairs, value: (
                b"%c%d\r\n" % (kind, len(pairs))
                + b"".join(key + item for key, item in pairs)
                + (value if kind == ord("|") else b"")
            ),
            st.sampled_from(b"%|"),
            st.lists(st.tuples(inner, inner), max_size=4),
            inner,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.lists(values, max_size=6).map(b"".join), cuts)
def test_any_split_of_any_values_ends_where_a_client_ends_them(
    stream: bytes, cuts: list[int]
) -> None:
    whole = replies_of(RESP, stream)
    assert [end for end, _ in whole] == parse_all(stream)
    assert replies_of(RESP, stream, cuts) == whole
    parser = RESP.replies()
    assert parser.feed(bytearray(stream), 0, len(stream), 1000, 0) == (len(stream), len(whole))
    assert parser.failed == (bool(whole) and whole[-1][1])


@settings(deadline=None)
@given(st.lists(values, max_size=4).map(b"".join), st.integers(0, 500), st.binary(max_size=2), cuts)
def test_mutilated_replies_give_the_same_in_any_split(
    stream: bytes, at: int, byte: bytes, cuts: list[int]
) -> None:
    at %= len(stream) + 1
    stream = stream[:at] + byte + stream[at + 1 :]

    def attempt(cuts: list[int]) -> list[tuple[int, bool]] | None:
        with suppress(ProtocolError):
            return replies_of(RESP, stream, cuts)
        return None

    assert attempt(cuts) == attempt([])


def test_a_deep_and_a_wide_reply_cost_no_memory_and_no_time() -> None:
    parser = RESP.replies()
    data = bytearray(b"*1\r\n" * 200_000)
    began = process_time()
    assert parser.feed(data, 0, len(data), 1, 0) == (len(data), 0)
    data = bytearray(b"*9999999999\r\n" * 10_000)
    assert parser.feed(data, 0, len(data), 1, 0) == (len(data), 0)
    data = bytearray(b"$9999999999\r\n")
    assert parser.feed(data, 0, len(data), 1, 0) == (len(data), 0)
    assert process_time() - began < 5  # some 0.4 s


def test_a_long_line_byte_by_byte_is_not_held() -> None:
    parser = RESP.replies()
    data = bytearray(b"+" + b"x" * 200_000 + b"\r\n")
    began = process_time()
    for at in range(len(data) - 1):
        assert parser.feed(data, at, at + 1, 1, 0) == (at + 1, 0)
    assert parser.feed(data, len(data) - 1, len(data), 1, 0) == (len(data), 1)
    assert process_time() - began < 5  # some 0.3 s

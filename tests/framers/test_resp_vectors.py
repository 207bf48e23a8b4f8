"""Requests of resp: every vector whole, byte by byte, with more behind it; and what others import.

`frames_of` and `replies_of` drive a framer as the multiplexer does: an incomplete request stays in
the buffer and is scanned again when `need` bytes are there, bytes of replies are passed on at once.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.framers import resp_requests
from aegis.framers.contract import Framer, ProtocolError, Verdict
from aegis.framers.resp import Resp
from aegis.framers.resp_commands import SHARED
from aegis.framers.resp_limits import MAX_INLINE_BYTES, MAX_WORDS, SMALL_BYTES
from aegis.framers.resp_state import encode

RESP: Framer = Resp()
JUNK = b"*1\r\n$4\r\nPING\r\n\r\n"  # around what may be looked at

Frame = tuple[object, ...]
"""("SHARE", bytes, replies), ("ERROR",), or the name of a verdict, bytes, why, reply, replies."""


def pieces(stream: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """Cut the stream into pieces of these sizes, and a rest."""
    at = 0
    for size in cuts:
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size
    if at < len(stream):
        yield stream[at:]


def frames_of(framer: Framer, stream: bytes, cuts: Iterable[int] = ()) -> list[Frame]:
    """Return what the framer makes of a client's stream; runs of shared requests are joined."""
    requests = framer.requests()
    frames: list[Frame] = []
    held = b""
    need = 1
    for piece in (*pieces(stream, cuts), b""):
        held += piece
        if not piece:
            need = 1  # to scan sooner is no use and does no harm
        while held and len(held) >= need:
            data = bytearray(JUNK + held + JUNK)
            start, end = len(JUNK), len(JUNK) + len(held)
            try:
                stop, replies, special = requests.scan(data, start, end)
            except ProtocolError:
                return [*frames, ("ERROR",)]
            assert start <= stop <= end
            if stop > start:
                share(frames, bytes(data[start:stop]), replies)
            need = 1
            if special is not None:
                assert stop < special.end <= end
                if special.verdict is Verdict.REFUSE and special.why in {"malformed", "too_long"}:
                    # Behind other requests an error is refused in its turn: it comes to the same.
                    return [*frames, ("ERROR",)]
                taken = bytes(data[stop : special.end])
                frames.append((special.verdict.name, taken, *special[2:5]))
                if special.verdict in (Verdict.REFUSE, Verdict.TUNNEL):
                    return frames
                stop = special.end
            elif stop < end:
                need = requests.need
                assert need > end - stop
            held = bytes(data[stop:end])
    return frames


def share(frames: list[Frame], taken: bytes, replies: int) -> None:
    if frames and frames[-1][0] == "SHARE":
        _, before, count = frames.pop()
        assert isinstance(before, bytes)
        assert isinstance(count, int)
        taken, replies = before + taken, count + replies
    frames.append(("SHARE", taken, replies))


def replies_of(framer: Framer, stream: bytes, cuts: Iterable[int] = ()) -> list[tuple[int, bool]]:
    """Return where each reply ends, and whether it is an error."""
    parser = framer.replies()
    ends = []
    at = 0
    for piece in pieces(stream, cuts):
        data = bytearray(JUNK + piece + JUNK)
        start, end = len(JUNK), len(JUNK) + len(piece)
        while start < end:
            stop, replies = parser.feed(data, start, end, 1, 0)
            assert stop == end or replies == 1
            at += stop - start
            start = stop
            if replies:
                ends.append((at, parser.failed))
    return ends


def follow(framer: Framer, stream: bytes, cuts: Iterable[int]) -> int:
    """Return where the request that is followed ends; -1 if it does not."""
    requests = framer.requests()
    at = 0
    for piece in pieces(stream, cuts):
        data = bytearray(JUNK + piece + JUNK)
        end = len(JUNK) + len(piece)
        stop, done = requests.follow(data, len(JUNK), end)
        at += stop - len(JUNK)
        if done:
            return at
        assert stop == end
    return -1


# --- vectors --------------------------------------------------------------------------------------

KEY = b"key:000000000001"
SHARED_REQUESTS = [
    encode(b"PING"),
    encode(b"GET", KEY),
    encode(b"get", KEY),
    encode(b"gEt", b""),
    encode(b"SET", KEY, b"x" * (SMALL_BYTES - 1)),
    encode(b"SET", KEY, b"x" * SMALL_BYTES),
    encode(b"SET", KEY, b"\r\n*1\r\n$4\r\nQUIT\r\n"),
    encode(b"SET", b"k" * 1000, b"v", b"EX", b"60", b"NX"),
    encode(b"MSET", *[b"k", b"v" * 120] * 20),
    encode(b"DEL", *[b"k"] * 25),
    encode(b"JSON.GET", b"k", b"$"),
    encode(b"OBJECT", b"encoding", b"k"),
    encode(b"OBJECT"),
    encode(b"CLIENT", b"ID"),
    encode(b"EXEC"),
    encode(b"UNWATCH"),
    encode(b"SELECT"),
    encode(b"SELECT", b"0"),
    encode(b"HELLO"),
    encode(b"HELLO", b"2"),
    encode(b"XREAD", b"COUNT", b"1", b"STREAMS", b"blocked", b"0"),
    b"PING\r\n",
    b"ping\n",
    b"  set\tkey  value \r\n",
]
EMPTY_REQUESTS = [b"\r\n", b"\n", b"*0\r\n", b"*-10\r\n", b"   \t\r\n"]
SPECIAL_REQUESTS: list[tuple[bytes, str, str]] = [
    (encode(b"BLPOP", b"k", b"0"), "PIN", "blocking"),
    (encode(b"bzmpop", b"0", b"1", b"k", b"MIN"), "PIN", "blocking"),
    (encode(b"XREAD", b"bLoCk", b"0", b"STREAMS", b"s", b"$"), "PIN", "blocking"),
    (encode(b"XREAD", b"BLOCK\0x", b"0", b"STREAMS", b"s", b"$"), "PIN", "blocking"),
    (
        encode(b"XREADGROUP", b"GROUP", b"STREAMS", b"c", b"BLOCK", b"0", b"STREAMS", b"s", b">"),
        "PIN",
        "blocking",
    ),
    (b"BLPOP k 0\r\n", "PIN", "blocking"),
    (encode(b"MULTI"), "PIN", "multi"),
    (encode(b"multi", b"x"), "PIN", "multi"),
    (encode(b"WATCH", b"k"), "PIN", "watch"),
    (encode(b"ASKING"), "PIN", "asking"),
    (encode(b"READONLY"), "PIN", "readonly"),
    (encode(b"SELECT", b"3"), "SWITCH", "select"),
    (encode(b"HELLO", b"3"), "SWITCH", "hello"),
    (encode(b"AUTH", b"secret"), "SWITCH", "auth"),
    (encode(b"SUBSCRIBE", b"c"), "TUNNEL", "subscribe"),
    (encode(b"UNSUBSCRIBE"), "TUNNEL", "subscribe"),
    (encode(b"MONITOR"), "TUNNEL", "monitor"),
    (encode(b"PSYNC", b"?", b"-1"), "TUNNEL", "replication"),
    (encode(b"CLIENT", b"REPLY", b"OFF"), "TUNNEL", "client reply"),
    (encode(b"CLIENT", b"TRACKING", b"ON"), "TUNNEL", "tracking"),
    (encode(b"CLIENT", b"NO-EVICT", b"ON"), "TUNNEL", "client flags"),
    (encode(b"CLIENT", b"FROBNICATE"), "TUNNEL", "unknown"),
    (encode(b"SCRIPT", b"DEBUG", b"YES"), "TUNNEL", "script debug"),
    (encode(b"SHUTDOWN"), "TUNNEL", "shutdown"),
    (encode(b"DEBUG", b"SLEEP", b"0"), "TUNNEL", "debug"),
    (encode(b"FROBNICATE"), "TUNNEL", "unknown"),
    (encode(b"MULTI\0x"), "TUNNEL", "unknown"),
    (encode(b"CLIENT|SETNAME", b"x"), "TUNNEL", "unknown"),
    (encode(b"CLIENT", b"REPLY\0x", b"OFF"), "TUNNEL", "unknown"),
    (encode(b""), "TUNNEL", "unknown"),
    (encode(b"G" * 1000), "TUNNEL", "unknown"),
    (b'MUL"TI"\r\n', "TUNNEL", "quotes"),
    (b"set k 'a b'\r\n", "TUNNEL", "quotes"),
    (encode(b"QUIT"), "REFUSE", "quit"),
    (encode(b"QUIT", b"now"), "REFUSE", "quit"),
    (b"quit\r\n", "REFUSE", "quit"),
    (b"POST / HTTP/1.1\r\n", "REFUSE", "http"),
    (b"Host: db\r\n", "REFUSE", "http"),
    (encode(b"RESET"), "ANSWER", "reset"),
    (encode(b"WAIT", b"1", b"0"), "ANSWER", "wait"),
    (encode(b"CLIENT", b"SETNAME", b"me"), "ANSWER", "client setname"),
    (encode(b"CLIENT", b"GETNAME"), "ANSWER", "client getname"),
    (encode(b"CLIENT", b"SETINFO", b"LIB-NAME", b"x"), "ANSWER", "client setinfo"),
]
WRONG_REQUESTS = [
    b"*1\n$4\nPING\n",
    b"*1\rX$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*1 \r\n",
    b"*-0\r\n",
    b"*\r\n",
    b"*a\r\n",
    b"*%d\r\n" % (MAX_WORDS + 1),
    b"*9999999999\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$4\r\nPINGxx",
    b"*1\r\n$4\r\nPING\rx",
    b"*1\r\n$3\r\nPING\r\n",
    b"*2\r\n$3\r\nGET\r\n$3\r\nabcd\r\n",
    b"*2\r\n$3\r\nGET\r\n$200\r\n" + b"x" * 200 + b"\n\r",
    b"\x16\x03\x01\x02\x00",
    b"PING\0\r\n",
    b"PING\r\r\n",
    b"SET k a\rb\r\n",
    b"\xffPING\r\n",
    b"x" * MAX_INLINE_BYTES,
]


@pytest.mark.parametrize("cuts", [(), [1] * 5000, [7] * 500], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("request_", SHARED_REQUESTS, ids=lambda r: repr(r)[:40])
def test_a_harmless_request_is_shared_and_owed_one_reply(
    request_: bytes, cuts: Sequence[int]
) -> None:
    assert frames_of(RESP, request_, cuts) == [("SHARE", request_, 1)]
    assert frames_of(RESP, request_ * 3, cuts) == [("SHARE", request_ * 3, 3)]
    trailing = [("SHARE", request_, 1), ("TUNNEL", encode(b"MONITOR"), "monitor", b"", 1)]
    assert frames_of(RESP, request_ + encode(b"MONITOR"), cuts) == trailing


@pytest.mark.parametrize("name", SHARED.split())
def test_every_shared_command_passes_in_either_case_with_any_number_of_words(name: str) -> None:
    for spelling in (name, name.lower(), name.title()):
        for words in range(12):
            request = encode(spelling.encode(), *[b"w"] * words)
            assert frames_of(RESP, request) == [("SHARE", request, 1)]


@pytest.mark.parametrize("request_", EMPTY_REQUESTS)
def test_an_empty_request_is_owed_no_reply(request_: bytes) -> None:
    for cuts in ((), [1] * 20):
        assert frames_of(RESP, request_, cuts) == [("SHARE", request_, 0)]
        stream = encode(b"PING") + request_ + encode(b"PING") + request_
        assert frames_of(RESP, stream, cuts) == [("SHARE", stream, 2)]


@pytest.mark.parametrize(("request_", "verdict", "why"), SPECIAL_REQUESTS)
def test_what_is_not_simply_shared_says_why(request_: bytes, verdict: str, why: str) -> None:
    for cuts in ((), [1] * 1200):
        stream = encode(b"PING") + request_ + encode(b"PING")
        before, special, *_ = frames_of(RESP, stream, cuts)
        assert before == ("SHARE", encode(b"PING"), 1)
        assert special[:3] == (verdict, request_, why)


@pytest.mark.parametrize("request_", WRONG_REQUESTS, ids=lambda r: repr(r)[:40])
def test_what_a_server_could_read_otherwise_is_an_error(request_: bytes) -> None:
    for cuts in ((), [1] * len(request_)):
        assert frames_of(RESP, request_ + b"\r\n", cuts)[-1] == ("ERROR",)
        frames = frames_of(RESP, encode(b"PING") + request_ + b"\r\n", cuts)
        assert frames == [("SHARE", encode(b"PING"), 1), ("ERROR",)]


def test_the_first_request_s_error_is_raised_and_a_later_one_s_refused_in_its_turn() -> None:
    requests = RESP.requests()
    data = bytearray(encode(b"PING") + b"*x\r\n")
    stop, replies, special = requests.scan(data, 0, len(data))
    assert (stop, replies) == (14, 1)
    assert special is not None
    assert (special.verdict, special.end) == (Verdict.REFUSE, len(data))
    assert special.reply == b"-ERR Protocol error: invalid multibulk length\r\n"
    with pytest.raises(ProtocolError) as raised:
        RESP.requests().scan(data, 14, len(data))
    assert raised.value.reply == special.reply


# --- any split, any bytes -------------------------------------------------------------------------

cuts = st.lists(st.integers(1, 60), max_size=30)
words = st.binary(max_size=30) | st.sampled_from([b"x" * 99, b"x" * 100, b"x" * 101, b"block"])
names = st.sampled_from(
    b"GET SET get MGET BLPOP XREAD MULTI EXEC DISCARD WATCH UNWATCH ASKING READONLY READWRITE "
    b"SELECT AUTH HELLO RESET WAIT CLIENT OBJECT".split()
)
arguments = words | st.sampled_from([b"3", b"0", b"AUTH", b"SETNAME", b"GETNAME", b"ENCODING"])
arrays = st.builds(lambda name, rest: encode(name, *rest), names, st.lists(arguments, max_size=11))
streams = st.lists(arrays | st.sampled_from([*SHARED_REQUESTS, *EMPTY_REQUESTS]), max_size=8).map(
    b"".join
)
mutilated = st.builds(
    lambda stream, at, byte: stream[: at % (len(stream) + 1)] + byte + stream[at:],
    streams,
    st.integers(0, 300),
    st.binary(max_size=2),
)


@settings(deadline=None)
@given(streams | mutilated, cuts)
def test_any_split_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    assert frames_of(RESP, stream, cuts) == frames_of(RESP, stream)


@settings(deadline=None)
@given(streams | mutilated)
def test_the_patterns_take_nothing_that_the_parser_would_not(stream: bytes) -> None:
    def nothing(*_: object) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        for name in ("SIMPLE", "WORD", "EIGHT_WORDS"):
            patch.setattr(resp_requests, name, nothing)
        slowly = frames_of(RESP, stream)
    assert frames_of(RESP, stream) == slowly


@settings(deadline=None)
@given(st.binary(max_size=300), cuts)
def test_any_bytes_give_frames_or_an_error(stream: bytes, cuts: list[int]) -> None:
    assert frames_of(RESP, stream, cuts) == frames_of(RESP, stream)
    with suppress(ProtocolError):
        follow(RESP, stream, cuts)


def test_many_words_byte_by_byte_cost_no_more_than_their_length() -> None:
    request = encode(b"MSET", *[b"k" * 150] * 5000)
    requests = RESP.requests()
    data = bytearray(request)
    began = process_time()
    scans, need = 0, 1
    for end in range(1, len(data)):
        if end >= need:
            scans += 1
            assert requests.scan(data, 0, end) == (0, 0, None)
            need = requests.need
    assert requests.scan(data, 0, len(data)) == (len(data), 1, None)
    assert scans < 5 * 5000
    assert process_time() - began < 5  # some 0.3 s; minutes if each scan began at the beginning


# --- requests too long to be held -----------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(SHARED_REQUESTS), cuts)
def test_following_ends_where_the_request_does(request_: bytes, cuts: list[int]) -> None:
    try:
        end = follow(RESP, request_ + encode(b"PING"), cuts)
    except ProtocolError:
        name = request_.split()[2 if request_.startswith(b"*") else 0].upper()
        assert name in (b"EXEC", b"UNWATCH", b"SELECT", b"HELLO")
    else:
        assert end == len(request_)


@pytest.mark.parametrize("request_", [r for r, *_ in SPECIAL_REQUESTS])
def test_only_what_is_harmless_can_be_followed(request_: bytes) -> None:
    name = [*request_.split(), b""][2 if request_.startswith(b"*") else 0].upper()
    for cuts in ((), [1] * len(request_)):
        if name in (b"BLPOP", b"BZMPOP", b"XREAD", b"XREADGROUP") and b"\0" not in request_:
            assert follow(RESP, request_, cuts) == len(request_)
        elif b"BLOCK\0" not in request_:
            with pytest.raises(ProtocolError):
                follow(RESP, request_, cuts)


@pytest.mark.parametrize("request_", WRONG_REQUESTS, ids=lambda r: repr(r)[:40])
def test_what_is_wrong_cannot_be_followed(request_: bytes) -> None:
    for cuts in ((), [1] * len(request_)):
        with pytest.raises(ProtocolError):
            follow(RESP, request_ + b"\r\n", cuts)


def test_a_long_request_is_refused_as_soon_as_its_name_is_there() -> None:
    with pytest.raises(ProtocolError):
        follow(RESP, encode(b"SUBSCRIBE", b"c" * 100_000)[:40], [1] * 40)


def test_a_huge_request_is_followed_without_being_held(rng: random.Random) -> None:
    requests = RESP.requests()
    head, size = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", 300 << 20
    data = bytearray(head % size)
    assert requests.scan(data, 0, len(data)) == (0, 0, None)
    assert requests.need == len(data) + size + 2
    assert requests.follow(data, 0, len(data)) == (len(data), False)
    slab = bytearray(rng.randbytes(1 << 20))
    for _ in range(300):
        assert requests.follow(slab, 0, len(slab)) == (len(slab), False)
    slab[:3] = b"\r\n*"
    assert requests.follow(slab, 0, 1) == (1, False)
    assert requests.follow(slab, 1, 3) == (2, True)
    ping = bytearray(encode(b"PING"))
    assert requests.scan(ping, 0, len(ping)) == (len(ping), 1, None)

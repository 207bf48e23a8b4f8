"""Requests of the memcached framer: vectors, any split, any bytes, and the long ones."""

import itertools
import random
from collections.abc import Iterable, Sequence
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aegis.framers.contract import Framer, ProtocolError, Requests, Special, Verdict
from aegis.framers.memcached import Memcached
from aegis.framers.memcached_lines import (
    MAX_GET_LINE_BYTES,
    MAX_LINE_BYTES,
    MAX_VALUE_BYTES,
    judge,
)
from aegis.framers.memcached_requests import META_SETUP, PLAIN_SETUP, MemcachedRequests

LONG_KEY = b"k" * 251
FITTING_KEY = b"k" * 250
BEFORE = b"get \xff\r\n"  # what lies outside of the range, before it and behind
Event = tuple[str, int, int, str]
"""("shared", start, stop, replies) or (verdict, start, stop, why and reply)."""


def drive(stream: bytes, cuts: Iterable[int] = (), *, fresh: bool = False) -> list[Event]:
    """Scan a stream in pieces as the multiplexer does; it honours `need` and gives ranges.

    A client that is not fresh has used a meta command before.
    """
    requests: Requests = MemcachedRequests()
    if not fresh:
        assert requests.scan(bytearray(b"mg a\r\n"), 0, 6)[2] is not None
    events: list[Event] = []
    held, base, need = b"", 0, 1
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, finish in itertools.pairwise(edges):
        held += stream[begin:finish]
        while held and len(held) >= need:
            data = bytearray(BEFORE + held + BEFORE)
            end = len(data) - len(BEFORE)
            stop, replies, special = requests.scan(data, len(BEFORE), end)
            assert data == BEFORE + held + BEFORE
            taken = stop - len(BEFORE)
            assert 0 <= taken <= len(held)
            assert (replies > 0) == (taken > 0)
            if taken:
                _shared(events, base, base + taken, replies)
            need = 1
            if special is not None:
                upto = special.end - len(BEFORE)
                assert taken < upto <= len(held)
                refused = special.verdict is Verdict.REFUSE  # its end depends on what has come
                stops = 0 if refused else base + upto
                why = f"{special.why} {special.reply!r}"
                events.append((special.verdict.name, base + taken, stops, why))
                if special.verdict in (Verdict.REFUSE, Verdict.TUNNEL):
                    return events
                taken = upto
            elif taken < len(held):
                need = requests.need
                assert need > len(held) - taken
            held, base = held[taken:], base + taken
            if special is None:
                break
    return events


def _shared(events: list[Event], start: int, stop: int, replies: int) -> None:
    if events and events[-1][0] == "shared" and events[-1][2] == start:
        start, replies = events[-1][1], replies + int(events[-1][3])
        events.pop()
    events.append(("shared", start, stop, str(replies)))


def by_judge_alone(stream: bytes) -> list[Event]:
    """Say what `drive` must find, slowly: line by line, without the patterns.

    `judge` is not told of lines that are too long; here they end everything.
    """
    events: list[Event] = []
    pos, switched = 0, False
    while (newline := stream.find(b"\n", pos)) >= 0:
        line = stream[pos:newline]
        is_get = line.startswith((b"get ", b"gets "))
        if len(line) + 1 > (MAX_GET_LINE_BYTES if is_get else MAX_LINE_BYTES):
            return events
        ruling = judge(line.removesuffix(b"\r"))
        stop = newline + 1 + ruling.body_bytes
        why = f"{ruling.why} {ruling.reply!r}"
        if ruling.verdict is Verdict.ANSWER:
            events.append(("ANSWER", pos, stop, why))
        elif ruling.verdict is not None:
            refused = ruling.verdict is Verdict.REFUSE
            return [*events, (ruling.verdict.name, pos, 0 if refused else stop, why)]
        elif stop > len(stream):
            return events
        elif ruling.body_bytes and stream[stop - 2 : stop] != b"\r\n":
            return [*events, ("REFUSE", pos, 0, r"bad_body b'CLIENT_ERROR bad data chunk\r\n'")]
        elif ruling.meta and not switched:
            switched = True
            events.append(("SWITCH", pos, stop, "meta b''"))
        else:
            _shared(events, pos, stop, 1)
        pos = stop
    return events


SHARED = [
    b"get a\r\n",
    b"gets a b c\r\n",
    b"get " + FITTING_KEY + b"\r\n",
    b"get \xc3\xa4\xff\r\n",
    b"get noreply a\r\n",
    b"get  a   b \r\n",
    b"get a\n",
    b"gat 10 a b\r\n",
    b"gats -1 a\r\n",
    b"gat x a\r\n",
    b"get " + b"key " * 4500 + b"\r\n",
    b"set a 0 0 0\r\n\r\n",
    b"set a 0 0 5\r\nget b\r\n",
    b"set a 4294967295 2147483647 5 \nhello\r\n",
    b"set a 1 1999999999 2\r\n\r\n\r\n",
    b"add a 0 -1 3\r\na\nb\r\n",
    b"replace a 0 0 1\r\n\x00\r\n",
    b"append a 0 0 1\r\n\x80\r\n",
    b"prepend a 0 0 0000000001\r\nx\r\n",
    b"cas a 0 0 1 18446744073709551615\r\nx\r\n",
    b"cas a 0 0 1 7\r\nx\r\n",
    b"set noreply 0 0 1\r\nx\r\n",
    b"delete a\r\n",
    b"delete a 0\r\n",
    b"delete a noreplY\r\n",
    b"incr a 1\r\n",
    b"decr a 18446744073709551615\r\n",
    b"incr a x\r\n",
    b"incr a\r\n",
    b"touch a 0\r\n",
    b"verbosity 1\r\n",
    b"version\r\n",
    b"flush_all\r\n",
    b"flush_all 10\r\n",
    b"mn\r\n",
    b"mg a\r\n",
    b"mg a v t f k s c Oq1 N30\r\n",
    b"mg q v\r\n",
    b"mg YQ== b v\r\n",
    b"mg\r\n",
    b"mg a" + b" v" * 16 + b"\r\n",
    b"md a I T30\r\n",
    b"ma a N0 J10 D2 v\r\n",
    b"me a\r\n",
    b"stats\r\n",
    b"stats items\r\n",
    b"stats reset\r\n",
]
TUNNELLED = [
    (b"set a 0 0 1 noreply\r\n", "noreply"),
    (b"set a 0 0 nonsense noreply\r\n", "noreply"),
    (b"cas a 0 0 1 1 noreply \r\n", "noreply"),
    (b"delete a noreply\r\n", "noreply"),
    (b"delete noreply\r\n", "noreply"),
    (b"get noreply\r\n", "noreply"),
    (b"get a noreply\r\n", "noreply"),
    (b"incr a 1 noreply\n", "noreply"),
    (b"touch a 1 noreply\r\n", "noreply"),
    (b"flush_all noreply\r\n", "noreply"),
    (b"verbosity 1 noreply\r\n", "noreply"),
    (b"mg a v q\r\n", "quiet"),
    (b"mg a quiet\r\n", "quiet"),
    (b"ms a 3 q\r\n", "quiet"),
    (b"md a q k\r\n", "quiet"),
    (b"ma a q\r\n", "quiet"),
    (b"mg YQ== b k\r\n", "binary_key"),
    (b"mg YQ== k v b\r\n", "binary_key"),
    (b"ms YQ== 1 b k\r\n", "binary_key"),
    (b"me YQ== b\r\n", "binary_key"),
    (b"mg a Z\r\n", "unknown_flag"),
    (b"ms a 1 T0 !\r\n", "unknown_flag"),
    (b"stats cachedump 1 0\r\n", "stats"),
    (b"stats detail dump\r\n", "stats"),
    (b"watch\r\n", "admin"),
    (b"lru_crawler metadump all\r\n", "admin"),
    (b"slabs reassign 1 2\r\n", "admin"),
    (b"cache_memlimit 64\r\n", "admin"),
    (b"shutdown\r\n", "admin"),
]
ANSWERED = [
    (b"\r\n", b"ERROR\r\n"),
    (b"\n", b"ERROR\r\n"),
    (b"foo bar\r\n", b"ERROR\r\n"),
    (b"SET a 0 0 1\r\n", b"ERROR\r\n"),
    (b"bget a\r\n", b"ERROR\r\n"),
    (b"get " + LONG_KEY + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"get a " + LONG_KEY + b" b\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"gat 0 " + LONG_KEY + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"mg " + LONG_KEY + b"\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (b"mg a" + b" v" * 17 + b"\r\n", b"CLIENT_ERROR options flags are too long\r\n"),
]
REFUSED = [
    (b"quit\r\n", "quit"),
    (b"quit now\r\n", "quit"),
    (b"\x80\x00\x00", "binary"),
    (b"\x16\x03\x01", "bad_line"),
    (b" get a\r\n", "bad_line"),
    (b"get a\tb\r\n", "bad_line"),
    (b"get a\x00b\r\n", "bad_line"),
    (b"get a\rb\r\n", "bad_line"),
    (b"get a\x7f\r\n", "bad_line"),
    (b"get a\r\r\n", "bad_line"),
    (b"GET / HTTP/1.1\r\n", "http"),
    (b"set a 0 0 -1\r\n", "bad_line"),
    (b"set a 0 0 +1\r\n", "bad_line"),
    (b"set a 0 0 1x\r\n", "bad_line"),
    (b"set a 0 0\r\n", "bad_line"),
    (b"set a 0 0 1 0\r\n", "bad_line"),
    (b"set  a 0 0 1\r\n", "bad_line"),
    (b"set a 4294967296 0 1\r\n", "bad_line"),
    (b"set a 0 2147483648 1\r\n", "bad_line"),
    (b"set a -1 0 1\r\n", "bad_line"),
    (b"set " + LONG_KEY + b" 0 0 1\r\n", "bad_line"),
    (b"cas a 0 0 1\r\n", "bad_line"),
    (b"cas a 0 0 1 18446744073709551616\r\n", "bad_line"),
    (b"cas a 0 0 1 -1\r\n", "bad_line"),
    (b"set a 0 0 1073741825\r\n", "too_large"),
    (b"ms a 1073741825\r\n", "too_large"),
    (b"ms a\r\n", "bad_line"),
    (b"ms a S5\r\n", "bad_line"),
    (b"ms a -1\r\n", "bad_line"),
    (b"ms " + LONG_KEY + b" 1\r\n", "bad_line"),
    (b"set a 0 0 1\r\nab\r", "bad_body"),
    (b"set a 0 0 1\r\na\n\n", "bad_body"),
    (b"mg a " + b"O" * 2048 + b"\r\n", "line_too_long"),
    (b"gat 0" + (b" " + FITTING_KEY) * 9 + b"\r\n", "line_too_long"),
    (b"delete " + b"a" * 3000, "line_too_long"),
    (b"get " + b"a" * MAX_GET_LINE_BYTES, "line_too_long"),
]


@pytest.mark.parametrize("request_", SHARED, ids=lambda r: repr(r[:40]))
def test_a_harmless_request_is_shared_and_owed_one_reply(request_: bytes) -> None:
    expected = [("shared", 0, len(request_), "1")]
    assert drive(request_) == expected
    assert drive(request_, range(len(request_))) == expected
    assert drive(request_ + b"get incompl") == expected
    assert drive(b"version\r\n" + request_ + b"mn\r\n") == [
        ("shared", 0, len(request_) + 13, "3"),
    ]


@pytest.mark.parametrize(("request_", "why"), TUNNELLED, ids=lambda r: repr(r[:40]))
def test_what_brings_an_unknown_number_of_replies_gets_a_tunnel(request_: bytes, why: str) -> None:
    tunnel = ("TUNNEL", 0, len(request_), f"{why} b''")
    assert drive(request_) == [tunnel]
    assert drive(request_, range(len(request_))) == [tunnel]
    assert drive(request_ + b"\x80\x00") == [tunnel]
    shared, tunnelled = drive(b"mn\r\n" + request_ + b"x\r\n")
    assert shared == ("shared", 0, 4, "1")
    assert tunnelled[:3] == ("TUNNEL", 4, 4 + len(request_))


@pytest.mark.parametrize(("request_", "reply"), ANSWERED, ids=lambda r: repr(r[:40]))
def test_what_the_server_only_rejects_is_answered_for_it(request_: bytes, reply: bytes) -> None:
    answer = drive(request_)
    assert [event[:3] for event in answer] == [("ANSWER", 0, len(request_))]
    assert answer[0][3].endswith(repr(reply))
    assert drive(request_, range(len(request_))) == answer
    assert drive(request_ + b"mn\r\n")[1:] == [
        ("shared", len(request_), len(request_) + 4, "1"),
    ]


@pytest.mark.parametrize(("request_", "why"), REFUSED, ids=lambda r: repr(r[:40]))
def test_what_a_server_could_read_otherwise_is_refused(request_: bytes, why: str) -> None:
    cuts = range(min(len(request_), 4000))
    for events in (drive(request_), drive(request_, cuts), drive(request_ + b"get a\r\n")):
        assert [event[:3] for event in events] == [("REFUSE", 0, 0)]
        assert events[0][3].split()[0] == why
    assert [event[0] for event in drive(b"mn\r\n" + request_)] == ["shared", "REFUSE"]


@pytest.mark.parametrize("first", [b"ms a 2 T0\r\nhi\r\n", b"mg a v\r\n", b"md YQ== b\r\n"])
def test_the_first_meta_command_switches_to_pipes_whose_server_knows_its_form(
    first: bytes,
) -> None:
    requests = MemcachedRequests()
    assert requests.setup == PLAIN_SETUP
    data = bytearray(b"mn\r\nme a\r\n" + first + b"mg a\r\nms a 2\r\nhi\r\nget a\r\n")
    stop, replies, special = requests.scan(data, 0, len(data))
    assert (stop, replies) == (10, 2)
    assert special is not None
    assert special == Special(Verdict.SWITCH, 10 + len(first), "meta")
    assert requests.setup == META_SETUP
    assert requests.scan(data, special.end, len(data)) == (len(data), 3, None)


def test_a_meta_set_too_long_to_be_held_asks_for_such_a_pipe_as_well() -> None:
    requests = MemcachedRequests()
    data = bytearray(b"ms a 100000 T0\r\nhi")
    assert requests.scan(data, 0, len(data)) == (0, 0, None)
    assert requests.need == 16 + 100002
    assert requests.setup == META_SETUP


def test_an_incomplete_line_is_searched_once_and_a_body_waited_for() -> None:
    requests = MemcachedRequests()
    data = bytearray(b"set a 0 0 1000\r\nxx")
    assert requests.scan(data, 0, 10) == (0, 0, None)
    assert requests.need == 11
    assert requests.scan(data, 0, len(data)) == (0, 0, None)
    assert requests.need == 16 + 1002


def test_a_long_line_that_comes_byte_by_byte_costs_no_more_than_its_length() -> None:
    requests = MemcachedRequests()
    data = bytearray(b"get " + b"key " * 50_000 + b"\r\n")
    began = process_time()
    for end in range(1, len(data)):
        assert requests.scan(data, 0, end) == (0, 0, None)
    assert requests.scan(data, 0, len(data)) == (len(data), 1, None)
    assert process_time() - began < 5  # some 0.1 s; a minute if each scan began at the beginning


words = st.sampled_from(
    b"get gets gat set add cas ms mg md ma me mn delete incr touch version stats quit noreply q k b"
    b" v T0 a b 0 1 2 5 10 4294967296 -1 hello \xff \x80 \t \r \n \r\n \r\n \r\n".split(b" ")
)
soup = st.lists(words | st.binary(max_size=3), max_size=40).map(b" ".join) | st.lists(
    words, max_size=60
).map(b"".join)
requests_ = st.lists(
    st.sampled_from(SHARED[:10] + SHARED[11:])
    | st.sampled_from([request for request, _ in (*TUNNELLED, *ANSWERED, *REFUSED[:-1])])
    | st.binary(max_size=40).map(lambda body: b"set a 0 0 %d\r\n%b\r\n" % (len(body), body))
    | st.binary(max_size=40).map(lambda body: b"ms a %d T0\r\n%b\r\n" % (len(body), body)),
    max_size=12,
).map(b"".join)
cuts_ = st.lists(st.integers(0, 10_000), max_size=30)


@settings(deadline=None, max_examples=200)
@given(stream=requests_ | soup, cuts=cuts_)
@example(stream=b"set a 0 0 1\r\nx\r\n", cuts=list(range(17)))
def test_any_split_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    assert drive(stream, cuts) == drive(stream)
    assert drive(stream, cuts, fresh=True) == drive(stream, fresh=True)
    assert drive(stream, range(min(len(stream), 500))) == drive(stream)


@settings(deadline=None, max_examples=300)
@given(stream=requests_ | soup)
@example(stream=b"get a\r\ngat 0" + 9 * (b" " + FITTING_KEY) + b"\r\n")
def test_the_patterns_take_nothing_that_judge_would_not(stream: bytes) -> None:
    """What the patterns share, `judge` shares; only text that is no line yet may differ."""
    found, expected = drive(stream, fresh=True), by_judge_alone(stream)
    early = {"binary", "line_too_long", "bad_line"}  # known from the bytes before the newline
    if found and found[-1][0] == "REFUSE" and found[-1][3].split()[0] in early:
        assert found[:-1] == expected[: len(found) - 1]
    else:
        assert found == expected


def follow(request: bytes, cuts: Sequence[int], behind: bytes = b"") -> int:
    """Follow the request at the head of a stream in pieces; returns where it ended, or -1."""
    framer: Framer = Memcached()
    requests = framer.requests()
    stream = request + behind
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, finish in itertools.pairwise(edges):
        if begin == finish:
            continue
        data = bytearray(BEFORE + stream[begin:finish] + BEFORE)
        stop, done = requests.follow(data, len(BEFORE), len(data) - len(BEFORE))
        if done:
            return begin + stop - len(BEFORE)
        assert stop == len(data) - len(BEFORE)
    return -1


@settings(deadline=None, max_examples=200)
@given(
    request_=st.sampled_from(SHARED)
    | st.binary(max_size=300).map(lambda body: b"set a 0 0 %d\r\n%b\r\n" % (len(body), body)),
    cuts=cuts_,
    behind=st.binary(max_size=8),
)
@example(request_=b"set a 0 0 3\r\n\r\n\r\r\n", cuts=list(range(20)), behind=b"x")
def test_following_ends_where_the_request_does(
    request_: bytes, cuts: list[int], behind: bytes
) -> None:
    assert follow(request_, cuts, behind) == len(request_)
    assert follow(request_, range(min(len(request_), 3000)), behind) == len(request_)
    assert follow(request_[:-1], cuts) == -1


@settings(deadline=None, max_examples=100)
@given(cuts=cuts_)
@pytest.mark.parametrize(
    "request_",
    [
        b"set a 0 0 3\r\nabc\rX",
        b"set a 0 0 3\r\nabcX\n",
        b"set a 0 0 3 noreply\r\n",
        b"mg a q\r\n",
        b"quit\r\n",
        b"get " + b"a " * 2000 + LONG_KEY + b" b\r\n",
        b"get " + b"a " * 2000 + b"\x00 b\r\n",
        b"get " + b"a " * 2000 + b"b" * 3000 + b"\r\n",
        b"gat 0 " + b"a " * 2000 + b"\r\n",
        b"get " + b"abcd " * (MAX_GET_LINE_BYTES // 5) + b"\r\n",
    ],
    ids=lambda r: repr(r[:24]),
)
def test_what_cannot_be_followed_ends_in_an_error(request_: bytes, cuts: list[int]) -> None:
    with pytest.raises(ProtocolError):
        follow(request_, cuts)


def test_a_get_of_any_permitted_length_can_be_followed_byte_by_byte() -> None:
    line = b"get noreply " + b"noreply abc " * 500 + b"a\r\n"
    assert len(line) > MAX_LINE_BYTES
    assert follow(line, range(len(line)), b"get b\r\n") == len(line)


def test_a_huge_body_is_followed_without_being_held(rng: random.Random) -> None:
    requests = MemcachedRequests()
    head = bytearray(b"set a 0 0 %d\r\n" % MAX_VALUE_BYTES)
    assert requests.follow(head, 0, len(head)) == (len(head), False)
    block = bytearray(1 << 20)
    for _ in range(MAX_VALUE_BYTES >> 20):
        assert requests.follow(block, 0, len(block)) == (len(block), False)
    assert requests.follow(bytearray(b"\r\nget"), 0, 5) == (2, True)


def test_errors_are_one_line_whatever_they_say() -> None:
    error = Memcached().error("no pipe\r\nSTORED\u20ac")
    assert error == b"SERVER_ERROR aegis: no pipe  STORED \r\n"

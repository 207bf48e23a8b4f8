"""The line protocol: vectors through a real process, properties of the parser alone."""

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_LINE_BYTES
from ops.chronos.lines import OVERLONG, Command, LineReader, Verb, parse
from tests.ops.test_chronos_process import DEADLINE_S, Chronos, read_exactly, running

SMALL = 32  # MAX_LINE_BYTES of the properties, so that overlong lines are common

VECTORS = [
    (b"PING\n", b"PONG\n"),
    (b"PING\r\n", b"PONG\n"),
    (b"SET k v\nGET k\n", b"OK\nv\n"),
    (b"SET k  two  spaces \nGET k\n", b"OK\n two  spaces \n"),
    (b"SET k \nGET k\n", b"OK\n\n"),
    (b"SET k \xff\x00\xe4\nGET k\n", b"OK\n\xff\x00\xe4\n"),
    (b"SET k v\r\r\nGET k\n", b"OK\nERR value holds a line break; read it over HTTP\n"),
    (b"SET k 1\nSET k 2\nGET k\nDEL k\nGET k\nSET k 3\nGET k\n", b"OK\nOK\n2\nOK\nNULL\nOK\n3\n"),
    (b"GET nothing\n", b"NULL\n"),
    (b"DEL nothing\n", b"OK\n"),
    (b"SET k v\nCOMPACT\nGET k\n", b"OK\nOK_COMPACTED\nv\n"),
    (b"\n\r\n\nPING\n\n\n", b"PONG\n"),
    (b"ping\nPING x\nPING \nCOMPACT x\nHELLO\n \n", b"UNKNOWN\n" * 6),
    (b"\r\r\n", b"UNKNOWN\n"),
    (b"SET\nSET k\nSET  v\nSET \n", b"ERR usage: SET key value\n" * 4),
    (b"GET\nGET \nGET a b\nGET  a\n", b"ERR usage: GET key\n" * 4),
    (b"DEL\nDEL \nDEL a b\n", b"ERR usage: DEL key\n" * 3),
    (b"SET k HTTP/1.1\nGET k\n", b"OK\nHTTP/1.1\n"),
    (b"PING\nGET / HTTP/1.1\n", b"PONG\nERR usage: GET key\n"),
    (b"PING\nPIN", b"PONG\n"),
    (b"SET k v\nSET k cut off by the end", b"OK\n"),
]


@pytest.fixture(scope="module")
def chronos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronos]:
    with running(tmp_path_factory.mktemp("lines") / "db") as server:
        yield server


@pytest.mark.parametrize(("sent", "expected"), VECTORS)
def test_commands_in_one_packet_are_answered_in_order(
    chronos: Chronos, sent: bytes, expected: bytes
) -> None:
    assert chronos.ask(sent) == expected


@pytest.mark.parametrize(("sent", "expected"), VECTORS)
def test_commands_byte_by_byte_are_answered_alike(
    chronos: Chronos, sent: bytes, expected: bytes
) -> None:
    with chronos.connect() as sock:
        for byte in sent:
            sock.send(bytes((byte,)))
        assert read_exactly(sock, len(expected)) == expected


def test_a_line_of_the_greatest_length_is_taken_and_comes_back(chronos: Chronos) -> None:
    value = b"x" * (MAX_LINE_BYTES - len(b"SET key "))
    for line_end in (b"\n", b"\r\n"):
        sent = b"SET key " + value + line_end + b"GET key\n"
        assert chronos.ask(sent) == b"OK\n" + value + b"\n"


@pytest.mark.parametrize("line_end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", b"PING\n"])
def test_a_longer_line_is_refused_and_ends_the_connection(
    chronos: Chronos, before: bytes, line_end: bytes
) -> None:
    with chronos.connect() as sock:
        sock.sendall(before + b"SET k " + b"x" * MAX_LINE_BYTES + line_end + b"PING\n" * 1000)
        expected = before[1:] and b"PONG\n"
        expected += b"ERR line longer than %d bytes\n" % MAX_LINE_BYTES
        assert read_exactly(sock, len(expected)) == expected
        assert sock.recv(1) == b""


def test_a_connection_that_was_refused_is_closed_though_its_client_goes_on(
    chronos: Chronos,
) -> None:
    with chronos.connect() as sock:
        sock.sendall(b"x" * (MAX_LINE_BYTES + 2))
        deadline = time.monotonic() + DEADLINE_S
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < deadline:
                sock.sendall(b"more\n")
        assert time.monotonic() < deadline


def commands(pieces: list[bytes], limit_bytes: int = MAX_LINE_BYTES) -> list[Command]:
    """Return what a reader makes of the pieces; it must not keep more than one line."""
    inbox = Inbox()
    reader = LineReader(inbox)
    found = []
    for piece in pieces:
        inbox.feed(piece)
        while (command := reader.next()) is not None:
            found.append(command)
            if command.verb is Verb.OVERLONG:
                return found
        assert len(inbox) <= limit_bytes + 1
    return found


def model(data: bytes) -> list[Command]:
    """Return what the protocol's description says of whole input."""
    found: list[Command] = []
    *whole, rest = data.split(b"\n")
    for line in whole:
        line = line.removesuffix(b"\r")  # noqa: PLW2901
        if len(line) > SMALL:
            return [*found, OVERLONG]
        if line:
            found.append(parse(line))
    return [*found, OVERLONG] if len(rest) > SMALL + 1 else found


WORDS = st.sampled_from(
    [b"SET", b"GET", b"DEL", b"PING", b"COMPACT", b" ", b"k", b"\r", b"\n", b"\r\n", b"x" * 15]
)
INPUT = st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=60).map(b"".join))


@given(data=INPUT, cuts=st.lists(st.integers(0, 300)))
@example(data=b"PING\r\nPING\r\n", cuts=list(range(13)))
@example(data=b"x" * (SMALL + 1) + b"\r\n", cuts=[SMALL + 1])
@example(data=b"x" * SMALL + b"\r\nPING\n", cuts=[SMALL + 1])
def test_any_split_of_any_input_gives_the_commands_of_the_whole(
    data: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ops.chronos.lines.MAX_LINE_BYTES", SMALL)
        assert commands(pieces, SMALL) == commands([data], SMALL) == model(data)


@given(key=st.binary(min_size=1), value=st.binary())
def test_a_value_is_kept_exactly(key: bytes, value: bytes) -> None:
    key = key.translate(None, b" \n\r") or b"k"
    value = value.translate(None, b"\n").rstrip(b"\r")  # one CR belongs to the line's end
    sent = b"SET " + key + b" " + value
    assert commands([sent + b"\n"]) == [Command(Verb.SET, key, value)]

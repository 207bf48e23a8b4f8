"""The memcached framer against a real memcached: as many replies as it says, ending where it says.

The rules that make requests unshareable are shown here to be needed, on the server itself.
"""

import base64
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from aegis.framers.contract import ProtocolError, Setup, Verdict
from aegis.framers.memcached import Memcached
from aegis.framers.memcached_lines import judge
from aegis.framers.memcached_requests import META_SETUP, PLAIN_SETUP, MemcachedRequests
from tests.framers.test_memcached_replies import deal
from tests.framers.test_memcached_requests import SHARED
from tests.harness import DEADLINE_S, receive_all, wait_until
from tests.proxy import needs

KEYS = [b"a", b"b", b"counter", b"\xc3\xa4", b"k" * 250]
BINARY_KEY = base64.b64encode(b"x\r\nSTORED\r\ny")
Talk = Callable[[bytes], bytes]


def talk_to(port: int) -> Talk:
    def talk(stream: bytes) -> bytes:
        """Send everything in one write, then the end; return all that comes."""
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            return receive_all(sock)

    return talk


def start(directory: Path, *options: str) -> tuple[subprocess.Popen[bytes], Talk]:
    (program,) = needs("memcached")
    ports = directory / "ports"
    user = ["-u", "root"] if os.getuid() == 0 else []
    server = subprocess.Popen(
        # -1: a TCP port of the kernel's choice (0 is none)
        [program, "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-t", "1", *user, *options],
        env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
    )
    wait_until(ports.exists, "memcached's ports")  # it renames the file when it is whole
    port = int(ports.read_text().split("TCP INET: ")[1].split()[0])
    return server, talk_to(port)


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    server, talk = start(tmp_path_factory.mktemp("memcached"))
    yield talk
    server.terminate()
    server.wait(DEADLINE_S)


@pytest.fixture
def talk(_server: Talk) -> Talk:
    assert _server(b"flush_all\r\n") == b"OK\r\n"
    return _server


def random_request(rng: random.Random) -> bytes:
    key = rng.choice(KEYS)
    body = rng.choice(
        [b"", b"7", b"END\r\n", b"\r\n", b"get a\r\n", rng.randbytes(rng.randrange(900))]
    )
    command = rng.choice([b"set", b"set", b"add", b"replace", b"append", b"prepend"])
    flags = b"".join(
        b" " + flag
        for flag in rng.sample([b"v", b"t", b"f", b"k", b"s", b"c", b"Oq%d" % rng.randrange(99),
                                b"N30", b"T60", b"R5", b"h", b"l", b"u", b"J3", b"D2", b"Mq"],
                               rng.randrange(6))
    )  # fmt: skip
    makers: list[Callable[[], bytes]] = [
        lambda: b"get " + b" ".join(rng.choices(KEYS, k=rng.randrange(1, 40))) + b"\r\n",
        lambda: b"gets " + key + b"\r\n",
        lambda: b"gat %d " % rng.randrange(-1, 99) + b" ".join(rng.choices(KEYS, k=3)) + b"\r\n",
        lambda: b"gats 60 a b\r\n",
        lambda: b"%b %b %d %d %d\r\n%b\r\n" % (
            command, key, rng.randrange(1 << 32), rng.randrange(-1, 9), len(body), body),
        lambda: b"cas %b 0 0 %d %d\r\n%b\r\n" % (key, len(body), rng.randrange(99), body),
        lambda: b"set big 0 0 1100000\r\n" + bytes(1_100_000) + b"\r\n",
        lambda: b"ms %b %d%b\r\n%b\r\n" % (key, len(body), flags, body),
        lambda: b"%b %b%b\r\n" % (rng.choice([b"mg", b"mg", b"md", b"ma"]), key, flags),
        lambda: b"mg %b b v\r\n" % BINARY_KEY,
        lambda: b"ma %b b N0 v\r\n" % BINARY_KEY,
        lambda: b"%b %b %d\r\n" % (rng.choice([b"incr", b"decr"]), key, rng.randrange(9)),
        lambda: b"set counter 0 0 2\r\n10\r\n",
        lambda: b"delete %b\r\n" % key,
        lambda: b"touch %b 60\r\n" % key,
        lambda: rng.choice(SHARED[:10] + SHARED[11:]),
    ]  # fmt: skip
    weights = [6] * len(makers)
    weights[6] = 1
    return rng.choices(makers, weights)[0]()


def read_reply(request: bytes, stream: BytesIO) -> None:
    """Read the reply as a client does, who knows what it asked."""
    command = request.split()[0]
    line = stream.readline()
    if command in {b"get", b"gets", b"gat", b"gats"}:
        while line.startswith(b"VALUE "):
            stream.seek(int(line.split()[3]) + 2, 1)
            line = stream.readline()
        assert line == b"END\r\n" or line.startswith(b"CLIENT_ERROR ")
    elif command == b"stats":
        while line.startswith(b"STAT "):
            line = stream.readline()
        assert line in {b"END\r\n", b"RESET\r\n"}
    elif line.startswith(b"VA "):
        assert command in {b"mg", b"ma"}
        stream.seek(int(line.split()[1]) + 2, 1)
    else:
        assert line.endswith(b"\r\n")


def count_shared(stream: bytes) -> int:
    """Let the framer count what it shares; a SWITCH, which is shared as well, too."""
    requests = MemcachedRequests()
    data = bytearray(stream)
    pos = total = 0
    while pos < len(data):
        pos, replies, special = requests.scan(data, pos, len(data))
        total += replies
        if special is not None:
            assert special.verdict is Verdict.SWITCH
            total += special.replies
            pos = special.end
    return total


@pytest.mark.parametrize("_round", range(8))
def test_a_random_mix_brings_the_replies_that_are_foretold(
    talk: Talk, rng: random.Random, _round: int
) -> None:
    sent = [random_request(rng) for _ in range(150)]
    stream = b"".join(sent)
    answer = talk(stream)
    reader = BytesIO(answer)
    ends = []
    for request in sent:
        read_reply(request, reader)
        ends.append(reader.tell())
    assert reader.read() == b""
    assert count_shared(stream) == len(sent)
    cuts = [rng.randrange(len(answer)) for _ in range(60)]
    assert [end for end, _ in deal(answer)] == ends
    assert [end for end, _ in deal(answer, cuts)] == ends
    assert len(deal(answer, cuts, limit=rng.randrange(1, 99))) == len(sent)


WORDS = (
    b"get gets gat gats set add append cas ms mg md ma me mn delete incr decr touch version stats"
    b" verbosity flush_all items noreply q k b v t c O1 T0 N0 MA MX C1 F1 a b YQ== 0 1 2 -1 10"
    b" hello 4294967296 99999999999 \xff \x80"
).split()


def random_lines(rng: random.Random) -> bytes:
    """Return lines of words that may or may not mean something, with bodies here and there."""
    stream = b""
    for _ in range(rng.randrange(1, 4)):
        words = rng.choices(WORDS, k=rng.randrange(1, 7))
        body = b""
        if rng.random() < 0.4:
            body = rng.choice([b"", b"1", b"hello", b"mn\r\nmn", b"END\r\n"])
            size = b"%d" % (len(body) + (rng.random() < 0.05))
            words[1:3] = rng.choice([[b"a", size], [b"a", b"0", b"0", size]])
            words[0] = rng.choice([b"set", b"add", b"append", b"cas", b"ms", b"ms"])
            del words[rng.randrange(5, 9) :]
            body += b"\r\n"
        stream += b" ".join(words) + rng.choice([b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\n"]) + body
    return stream


def shared_part(stream: bytes) -> tuple[bytes, int]:
    """Return what of a client's stream would be sent on shared pipes, and the replies owed."""
    requests = MemcachedRequests()
    data = bytearray(stream)
    sent, pos, total = b"", 0, 0
    while True:
        stop, replies, special = requests.scan(data, pos, len(data))
        sent += data[pos:stop] if requests.forward is None else requests.forward
        total += replies
        if special is None:
            if stop > pos and requests.need == 0:
                pos = stop
                continue
            return sent, total
        if special.verdict is Verdict.SWITCH:
            sent += data[stop : special.end]
            total += 1
        elif special.verdict is not Verdict.ANSWER:
            return sent, total
        pos = special.end


@pytest.mark.parametrize("_round", range(20))
def test_whatever_is_shared_of_any_lines_brings_as_many_replies(
    talk: Talk, rng: random.Random, _round: int
) -> None:
    parts = [shared_part(random_lines(rng)) for _ in range(150)]
    answer = talk(b"".join(sent for sent, _ in parts) + b"mn\r\n")
    assert len(deal(answer)) == sum(owed for _, owed in parts) + 1
    assert answer.endswith(b"MN\r\n")


@pytest.mark.parametrize("request_", SHARED, ids=lambda r: repr(r[:40]))
def test_every_shared_vector_brings_one_reply(talk: Talk, request_: bytes) -> None:
    for before in (b"", b"set a 0 0 1\r\n7\r\n"):
        answer = talk(before + request_ + b"mn\r\n")
        assert len(deal(answer)) == count_shared(before + request_ + b"mn\r\n")
        assert answer.endswith(b"\r\nMN\r\n")


@pytest.mark.parametrize("line", [b"\r\n", b"foo bar\r\n", b"SET a 0 0 1\r\n"])
def test_the_server_would_have_answered_the_same(talk: Talk, line: bytes) -> None:
    assert talk(line + b"mn\r\n") == judge(line.strip()).reply + b"MN\r\n"


def test_the_setups_are_accepted_and_store_nothing(talk: Talk) -> None:
    for setup in (PLAIN_SETUP, META_SETUP, META_SETUP, Setup(Memcached().ping, 1)):
        answer = talk(setup.requests)
        assert deal(answer) == [(len(answer), False)]
    assert talk(b"get aegis:probe\r\n") == b"END\r\n"
    kept = b"set aegis:probe 0 0 1\r\nx\r\n"
    assert talk(kept + META_SETUP.requests) == b"STORED\r\nEX\r\n"


def test_a_body_too_large_is_swallowed_and_brings_one_reply(talk: Talk) -> None:
    for line in (b"set a 0 0 2000000\r\n", b"ms a 2000000\r\n"):
        answer = talk(line + b"get a\r\n" * 285714 + b"xx\r\nmn\r\n")
        assert answer == b"SERVER_ERROR object too large for cache\r\nMN\r\n"


def test_a_rejected_line_leaves_its_body_to_be_read_as_commands(talk: Talk) -> None:
    """Which is why such a line is refused, and never sent."""
    for line in (
        b"set a 0 0 -1\r\n",
        b"set a 0 x 3\r\n",
        b"set " + b"k" * 251 + b" 0 0 3\r\n",
        b"ms a -1\r\n",
        b"ms a 3" + b" T0" * 17 + b"\r\n",
    ):
        assert talk(line + b"mn\r\nmn\r\n").endswith(b"\r\nMN\r\nMN\r\n")
        data = bytearray(line)
        special = MemcachedRequests().scan(data, 0, len(data))[2]
        assert special is not None
        assert special.verdict in {Verdict.REFUSE, Verdict.ANSWER}


def test_a_body_that_ends_wrong_leaves_the_rest_to_be_read_as_commands(talk: Talk) -> None:
    assert talk(b"set a 0 0 1\r\nxyzmn\r\n") == b"CLIENT_ERROR bad data chunk\r\nMN\r\n"


def test_a_get_with_a_long_key_throws_away_replies_that_are_ready(talk: Talk) -> None:
    """Which is why it is answered by the proxy: those replies may be owed to other clients."""
    answer = talk(b"version\r\nget " + b"k" * 251 + b"\r\nmn\r\n")
    assert answer == b"CLIENT_ERROR bad command line format\r\nMN\r\n"


def test_a_binary_key_can_write_replies(talk: Talk) -> None:
    """Which is why requests that have one sent back get a tunnel."""
    for create in (b"ma %b b N0\r\n", b"mg %b b N0\r\n"):
        answer = talk(create % BINARY_KEY + b"mg %b b k\r\n" % BINARY_KEY)
        assert b"\r\nSTORED\r\n" in answer
        assert b"\r\nSTORED\r\n" in talk(b"me %b b\r\n" % BINARY_KEY)
        assert b"\r\nSTORED\r\n" not in talk(b"mg %b b v\r\nmd %b b\r\n" % (BINARY_KEY, BINARY_KEY))


def test_quiet_requests_bring_replies_or_none(talk: Talk) -> None:
    """Which is why they get a tunnel."""
    assert talk(b"mg a q\r\nms a 1 q\r\n7\r\nmg a q\r\nmn\r\n") == b"HD\r\nMN\r\n"
    assert talk(b"ms a 1 q ME\r\n7\r\nmn\r\n") == b"NS\r\nMN\r\n"
    assert talk(b"delete a noreply\r\ndelete a noreplY\r\nmn\r\n").count(b"\r\n") == 2
    assert talk(b"delete a b noreply\r\nmn\r\n") == b"MN\r\n"


def test_lines_longer_than_the_servers_limit_close_it_silently(talk: Talk) -> None:
    assert talk(b"mg a " + b"v " * 1100) == b""
    assert talk(b"get " + b"a " * 5000 + b"\r\nmn\r\n") == b"END\r\nMN\r\n"


def test_quit_http_and_the_binary_protocol_end_the_connection(talk: Talk) -> None:
    assert talk(b"quit\r\nmn\r\n") == b""
    assert talk(b"GET / HTTP/1.1\r\nmn\r\n") == b""
    assert not talk(b"\x80" + bytes(23)).startswith(b"ERROR")


def test_a_server_that_wants_a_login_is_not_shared(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("user:secret\n")
    server, talk = start(tmp_path, "-Y", str(users))
    try:
        for setup in (PLAIN_SETUP, META_SETUP):
            with pytest.raises(ProtocolError, match="unauthenticated"):
                deal(talk(setup.requests))
        login = b"set a 0 0 11\r\nuser secret\r\n"
        assert talk(login + b"get a\r\n") == b"STORED\r\nEND\r\n"  # for everyone on the pipe
        assert talk(b"version\r\nmn\r\n") == b"CLIENT_ERROR unauthenticated\r\n"  # one for two
        with pytest.raises(ProtocolError, match="authentication failure"):
            deal(talk(b"set a 0 0 10\r\nuser wrong\r\n"))
    finally:
        server.terminate()
        server.wait(DEADLINE_S)

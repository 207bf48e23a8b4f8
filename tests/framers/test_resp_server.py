"""resp against a real Redis: the table against its COMMAND, the counts against its replies."""

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from aegis.framers.contract import Setup, Verdict
from aegis.framers.resp_commands import (
    COMMANDS,
    SHARED,
    SHARED_SUBCOMMANDS,
    SUBCOMMANDS,
    UNKNOWN,
    Act,
    find_rule,
    find_rule_within,
)
from aegis.framers.resp_state import encode
from tests.framers.test_resp_replies import parse, parse_all
from tests.framers.test_resp_vectors import RESP, frames_of, pieces, replies_of
from tests.harness import DEADLINE_S, wait_until

if shutil.which("redis-server") is None and not os.environ.get("CI"):
    pytest.skip("redis-server is not installed: apt install redis", allow_module_level=True)

END = b"the end of the test's requests"
# Act on the whole server, or on other clients; their replies are one each like any other's.
TOO_MUCH = {
    b"FAILOVER", b"MIGRATE", b"REPLICAOF", b"SLAVEOF", b"SAVE", b"BGSAVE", b"BGREWRITEAOF",
    b"PFSELFTEST", b"LOLWUT",
}  # fmt: skip
TOO_MUCH_WITHIN = {
    (b"CLIENT", b"KILL"), (b"CLIENT", b"PAUSE"), (b"CONFIG", b"SET"), (b"CONFIG", b"REWRITE"),
    (b"ACL", b"SETUSER"), (b"ACL", b"DELUSER"), (b"MODULE", b"LOAD"), (b"MODULE", b"LOADEX"),
}  # fmt: skip
# Scripts may not call these, and yet they leave no trace on their connection.
NOSCRIPT_BUT_SHARED = {
    b"BGREWRITEAOF", b"BGSAVE", b"EVAL", b"EVALSHA", b"EVALSHA_RO", b"EVAL_RO", b"FAILOVER",
    b"FCALL", b"FCALL_RO", b"REPLICAOF", b"ROLE", b"SAVE", b"SLAVEOF",
}  # fmt: skip


class Server:
    """A redis-server on a unix socket, with a user."""

    def __init__(self, directory: Path, own: ExitStack) -> None:
        self.path = str(directory / "redis.sock")
        config = directory / "redis.conf"
        config.write_text(
            f"port 0\nunixsocket {self.path}\nsave ''\ndir {directory}\n"
            "user bob on >pw ~* &* +@all\n"
        )
        self.process = subprocess.Popen(["redis-server", config], stdout=subprocess.DEVNULL)
        own.callback(self.process.wait)
        own.callback(self.process.kill)
        wait_until(self._answers, "redis-server answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None
        with suppress(OSError), self.connect() as sock:
            sock.sendall(RESP.ping)
            return sock.recv(100) == b"+PONG\r\n"
        return False

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, requests: bytes) -> bytes:
        """Send on a new connection, in one write; return all replies, as many as there may be."""
        with self.connect() as sock:
            return ask(sock, requests)


def ask(sock: socket.socket, requests: bytes) -> bytes:
    """Return what the server says to these requests and nothing else."""
    sock.sendall(requests + encode(b"ECHO", END))
    last = b"$%d\r\n%s\r\n" % (len(END), END)
    taken = bytearray()
    while not taken.endswith(last):
        piece = sock.recv(1 << 20)
        assert piece, f"the server closed the connection behind {bytes(taken[-200:])!r}"
        taken += piece
    return bytes(taken.removesuffix(last))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with TemporaryDirectory(prefix="aegis-") as directory, ExitStack() as own:
        yield Server(Path(directory), own)


def words_of(value: Any) -> Any:
    """Return a parsed array as a list of what is in it."""
    if value is None:
        return None
    return [words_of(item) for item in value[1]] if value[0] in (b"*", b"~") else value[1]


def info(sock: socket.socket) -> dict[str, str]:
    """Return what the server says of this connection, but for what differs with every one."""
    value, _ = parse(ask(sock, encode(b"CLIENT", b"INFO")))
    assert isinstance(value, tuple)
    fields = dict(field.partition("=")[::2] for field in value[1].decode().split())
    return {name: fields[name] for name in ("name", "db", "resp", "user", "multi", "flags", "sub")}


def test_no_command_of_the_server_is_unclassified(server: Server) -> None:
    listing, _ = parse(server.ask(encode(b"COMMAND")))
    seen = 0
    for entry in words_of(listing):
        name, flags = entry[0].upper(), set(entry[2])
        rule = find_rule(name)
        assert rule is not UNKNOWN, name
        seen += 1
        if b"blocking" in flags:
            assert rule.act in (Act.BLOCK, Act.MAY_BLOCK), name
        if b"pubsub" in flags and name not in (b"PUBLISH", b"SPUBLISH"):
            assert (rule.act, rule.why) == (Act.TUNNEL, "subscribe"), name
        if b"noscript" in flags and rule.act is Act.SHARE:
            assert name in NOSCRIPT_BUT_SHARED
        if not entry[9]:
            assert rule.act is not Act.CONTAINER, name
            continue
        assert rule.act is Act.CONTAINER, name
        for sub in entry[9]:
            sub_name = sub[0].upper().partition(b"|")[2]
            assert find_rule_within(name, [name, sub_name]) is not UNKNOWN, sub[0]
            seen += 1
    assert seen > 350  # Redis 7.0 has 240 commands and 127 subcommands


def test_no_name_stands_in_the_table_twice() -> None:
    names = SHARED.split()
    assert len(names) == len(set(names))
    for container, subs in SHARED_SUBCOMMANDS.items():
        assert len(subs.split()) == len(set(subs.split())), container
    assert all(COMMANDS[name].act is Act.CONTAINER for name in SUBCOMMANDS)


def shared_requests() -> list[list[bytes]]:
    """Every shared command and subcommand that may be tried out, as its first words."""
    plain = [[n] for n, rule in COMMANDS.items() if rule.act is Act.SHARE and n not in TOO_MUCH]
    return plain + [
        [container, name]
        for container, rules in SUBCOMMANDS.items()
        for name, rule in rules.items()
        if rule.act is Act.SHARE and (container, name) not in TOO_MUCH_WITHIN
    ]


@pytest.mark.parametrize("version", [b"2", b"3"])
def test_every_shared_command_gets_one_reply_and_leaves_no_trace(
    server: Server, version: bytes
) -> None:
    with server.connect() as sock:
        ask(sock, encode(b"HELLO", version))
        before = info(sock)
        for words in shared_requests():
            for more in ([], [b"a"], [b"a", b"1"], [b"1", b"a", b"b"], [b"a", b"1", b"b", b"2"]):
                replies = ask(sock, encode(*words, *more))
                assert len(parse_all(replies)) == 1, (words, more, replies)
                assert [end for end, _ in replies_of(RESP, replies)] == [len(replies)]
        assert info(sock) == before


def random_request(rng: random.Random) -> bytes:
    """Return any request that is shared, pinned, switched or empty."""
    choice = rng.random()
    if choice < 0.05:
        return rng.choice([b"\r\n", b"*0\r\n", b"*-3\r\n", b"PING\r\n", b" set k  v\n"])
    if choice < 0.15:
        request = rng.choice([b"MULTI", b"EXEC", b"DISCARD", b"WATCH k", b"UNWATCH", b"READONLY"])
        return encode(*request.split())
    if choice < 0.2:
        blocking = [b"BLPOP nothing 0.001", b"XREAD BLOCK 1 STREAMS none 0", b"BZPOPMIN z 0.001"]
        return encode(*rng.choice(blocking).split())
    if choice < 0.5:
        lines = [
            b"SET k v", b"GET k", b"RPUSH list a b c", b"LRANGE list 0 -1", b"HSET h f 1.5 g 2",
            b"HGETALL h", b"ZADD z 1 a 2 b", b"ZRANGE z 0 -1 WITHSCORES", b"SADD s 1 2",
            b"SMEMBERS s", b"INFO", b"COMMAND DOCS GET", b"CLIENT LIST", b"XADD x * f v",
            b"XRANGE x - +", b"DEL list z", b"CONFIG GET *", b"GEOADD g 1 1 a", b"GEOPOS g a b",
            b"EVAL return{1,{2,'a'},{err='no'}} 0", b"MEMORY DOCTOR", b"OBJECT HELP",
        ]  # fmt: skip
        return encode(*rng.choice(lines).split())
    words = list(rng.choice(shared_requests()))
    for _ in range(rng.randrange(5)):
        word = rng.choice([b"k", b"h", b"z", b"1", b"0", b"-1", rng.randbytes(rng.randrange(200))])
        words.append(word)
    return encode(*words)


@pytest.mark.parametrize("version", [b"2", b"3"])
def test_the_server_sends_as_many_replies_as_the_framer_counts(
    server: Server, rng: random.Random, version: bytes
) -> None:
    requests = [random_request(rng) for _ in range(1500)]
    stream = b"".join([encode(b"HELLO", version), *requests, encode(b"DISCARD")])
    frames = frames_of(RESP, stream, [rng.randrange(1, 5000) for _ in range(200)])
    assert {frame[0] for frame in frames} <= {"SHARE", "PIN", "SWITCH"}
    assert b"".join(frame[1] for frame in frames) == stream  # type: ignore[misc]
    replies = server.ask(stream)
    ends = parse_all(replies)
    assert sum(frame[-1] for frame in frames) == len(ends)  # type: ignore[misc]
    found = replies_of(RESP, replies, [rng.randrange(1, 50_000) for _ in range(200)])
    assert [end for end, _ in found] == ends
    first_bytes = [replies[start] for start in [0, *ends[:-1]]]
    assert [failed for _, failed in found] == [byte in b"-!" for byte in first_bytes]
    parser = RESP.replies()
    for piece in pieces(replies, [1000] * 5):
        data = bytearray(piece)
        assert parser.feed(data, 0, len(data), len(ends), 0)[0] == len(data)


def test_a_setup_makes_a_connection_like_the_client_s_own(
    server: Server, rng: random.Random
) -> None:
    lines = [
        b"SELECT 3", b"SELECT 0", b"SELECT 5", b"HELLO 3", b"HELLO 2", b"AUTH bob pw",
        b"HELLO 3 AUTH bob pw", b"HELLO 2 AUTH bob pw", b"SELECT x", b"HELLO 4", b"SELECT -1",
        b"HELLO 3 SETNAME a\xff", b"HELLO", b"GET k",
    ]  # fmt: skip
    for _ in range(60):
        requests = RESP.requests()
        with server.connect() as own:
            for line in rng.choices(lines, k=rng.randrange(1, 6)):
                request = bytearray(encode(*line.split()))
                reply = ask(own, bytes(request))
                special = requests.scan(request, 0, len(request))[2]
                if special is not None and special.verdict is Verdict.ANSWER:
                    assert special.reply == reply
                with server.connect() as pipe:
                    set_up(pipe, requests.setup)
                    if special is not None and special.verdict is Verdict.SWITCH:
                        replies = ask(pipe, bytes(request)), ask(pipe, bytes(request))
                        # HELLO tells the connection's id
                        assert len(parse_all(replies[1])) == len(parse_all(reply)) == 1
                        assert reply[:1] == replies[0][:1] != b"-"
                    assert info(pipe) == info(own)


def set_up(sock: socket.socket, setup: Setup) -> None:
    replies = replies_of(RESP, ask(sock, setup.requests))
    assert [failed for _, failed in replies] == [False] * setup.replies


def test_reset_undoes_all_that_pins_or_switches(server: Server) -> None:
    with server.connect() as pipe:
        fresh = info(pipe)
        lines = [b"HELLO 3 AUTH bob pw SETNAME me", b"SELECT 2", b"WATCH k", b"MULTI", b"GET k"]
        requests = b"".join(encode(*line.split()) for line in lines)
        assert ask(pipe, requests + RESP.reset.requests).endswith(b"+QUEUED\r\n+RESET\r\n")
        assert info(pipe) == fresh
        assert ask(pipe, encode(b"EXEC")) == b"-ERR EXEC without MULTI\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        [b"CLIENT SETNAME me", b"CLIENT GETNAME"],
        [b"CLIENT GETNAME"],
        [b"CLIENT MAINT_NOTIFICATIONS ON", b"client maint_notifications"],
        [b"HELLO 3", b"CLIENT GETNAME"],
        [b"RESET"],
        [b"QUIT"],
        [b"SELECT 99x"],
        [b"HELLO 3 NONSENSE"],
        [b"HELLO two"],
    ],
)
def test_an_answer_is_what_the_server_would_have_said(server: Server, lines: list[bytes]) -> None:
    requests = RESP.requests()
    with server.connect() as sock:
        for line in lines:
            data = bytearray(encode(*line.split()))
            special = requests.scan(data, 0, len(data))[2]
            sock.sendall(data)
            reply = sock.recv(10_000)
            assert special is not None
            if special.verdict in (Verdict.ANSWER, Verdict.REFUSE):
                assert special.reply == reply


def test_the_server_closes_on_what_is_refused(server: Server) -> None:
    for request in (b"POST / HTTP/1.1\r\n", b"Host: x\r\n", encode(b"post")):
        assert frames_of(RESP, request)[0][0] == "REFUSE"
        with server.connect() as sock:
            sock.sendall(request)
            assert sock.recv(100) == b""

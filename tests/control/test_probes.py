"""What one check finds out of a server: real ones, and some played by the test."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest

from aegis.addresses import parse_address
from aegis.config_health import Health
from control.health.probes import CheckFailedError, checked_address, probe
from tests.end_to_end.databases import redis
from tests.harness import DEADLINE_S, Kind, Rig, listening_address

QUICK: dict[str, Any] = {"connect_timeout_s": 0.3, "reply_timeout_s": 0.3}


def verdict(address: str, health: Health, protocol: str = "") -> str:
    """Check once; returns what is wrong, empty when nothing is."""
    try:
        asyncio.run(probe(parse_address(address), health, protocol))
    except CheckFailedError as failure:
        return str(failure)
    return ""


@contextmanager
def saying(rig: Rig, *pieces: bytes, then_close: bool = False) -> Iterator[tuple[str, bytearray]]:
    """Play a server that says these pieces to who says something; gives what it was told."""
    upstream = rig.upstream()
    told = bytearray()

    def serve() -> None:
        sock, _ = upstream.sock.accept()
        with sock, suppress(ConnectionError):  # a check that has heard enough may reset
            sock.settimeout(DEADLINE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            told.extend(sock.recv(65536))
            for piece in pieces:
                sock.sendall(piece)
            if not then_close:
                sock.recv(1)  # until the check has gone

    thread = Thread(target=serve)
    thread.start()
    try:
        yield upstream.address, told
    finally:
        thread.join()


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_a_server_that_accepts_is_well_and_one_that_refuses_is_not(kind: Kind, rig: Rig) -> None:
    assert verdict(rig.upstream(kind).address, Health()) == ""
    assert verdict(rig.refused_address(kind), Health()) == "ECONNREFUSED"


def test_a_server_that_does_not_answer_a_connect_is_given_up(rig: Rig) -> None:
    full = rig.upstream(backlog=0)
    waiting = [socket.socket() for _ in range(2)]  # its queue takes one and a half
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(full.sock.getsockname())
    assert verdict(full.address, Health(**QUICK)) == "connect timeout"
    for sock in waiting:
        sock.close()


def test_redis_answers_a_ping() -> None:
    with redis() as address:
        assert verdict(address, Health(type="ping"), "resp") == ""


PING = Health(type="ping", **QUICK)


@pytest.mark.parametrize(
    ("protocol", "asked", "pieces"),
    [
        ("resp", b"*1\r\n$4\r\nPING\r\n", [b"+", b"PON", b"G\r", b"\n"]),
        ("line", b"PING\n", [b"PO", b"NG\n"]),
        ("memcached", b"version\r\n", [b"VERSION 1.6\r", b"\n"]),
        ("http1", b"OPTIONS * HTTP/1.1\r\nHost: aegis\r\n\r\n",
         [b"HTTP/1.1 204 No", b" Content\r\n", b"\r\n"]),
    ],
)  # fmt: skip
def test_a_pings_reply_is_found_in_any_split(
    protocol: str, asked: bytes, pieces: list[bytes], rig: Rig
) -> None:
    with saying(rig, *pieces) as (address, told):
        assert verdict(address, PING, protocol) == ""
        assert told == asked


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b"-LOADING Redis is loading\r\n"], "error reply: '-LOADING Redis is loading\\r\\n'"),
        ([b"-NOAUTH Authentication required.\r\n"],
         "error reply: '-NOAUTH Authentication required.\\r\\n'"),
        ([b"+PO"], "reply timeout"),
        ([], "reply timeout"),
    ],
)  # fmt: skip
def test_an_error_or_no_whole_reply_is_not_well(said: list[bytes], why: str, rig: Rig) -> None:
    with saying(rig, *said) as (address, _):
        assert verdict(address, PING, "resp") == why


def test_nonsense_and_a_close_are_not_well(rig: Rig) -> None:
    with saying(rig, b"hello\r\n") as (address, _):
        assert verdict(address, PING, "resp").startswith("protocol error: ")
    with saying(rig, then_close=True) as (address, _):
        assert verdict(address, PING, "resp") == "closed unanswered"


def test_a_reply_without_end_is_given_up(rig: Rig) -> None:
    endless = b"$100000\r\n" + b"x" * 90_000
    health = Health(type="ping", reply_timeout_s=DEADLINE_S)
    with saying(rig, endless) as (address, _):
        assert verdict(address, health, "resp") == "reply without an end"


def test_what_is_sent_and_expected_are_bytes(rig: Rig) -> None:
    health = Health(type="send", send="\x00\xff?\r\n", expect="\xfe OK", **QUICK)
    with saying(rig, b"greeting \xfe", b" O", b"K and more") as (address, told):
        assert verdict(address, health) == ""
        assert told == b"\x00\xff?\r\n"
    with saying(rig, b"NO\r\n", then_close=True) as (address, _):
        assert verdict(address, health) == "closed after 'NO\\r\\n'"
    with saying(rig, b"NO\r\n") as (address, _):
        assert verdict(address, health) == "reply timeout"
    with saying(rig, b"x" * 20_000) as (address, _):
        assert verdict(address, health).startswith("unexpected answer: 'xxxx")


def test_nothing_expected_is_any_byte(rig: Rig) -> None:
    with saying(rig, b"x") as (address, _):
        assert verdict(address, Health(type="send", send="hello", **QUICK)) == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b"HTTP/1.1 2", b"00 OK\r\n\r\n"], ""),
        ([b"HTTP/1.0 302 Found\r\n\r\n"], ""),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "status 503"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "not HTTP/1: 'SSH-2.0-OpenSSH_9.2\\r\\n'"),
    ],
)
def test_http_goes_by_the_status(said: list[bytes], why: str, rig: Rig) -> None:
    health = Health(type="http", method="HEAD", path="/ready?x=1", host="db:80", **QUICK)
    with saying(rig, *said) as (address, told):
        assert verdict(address, health) == why
        assert told == b"HEAD /ready?x=1 HTTP/1.1\r\nHost: db:80\r\nConnection: close\r\n\r\n"


def test_another_port_may_be_checked(rig: Rig) -> None:
    upstream = rig.upstream()
    port = upstream.sock.getsockname()[1]
    assert checked_address("127.0.0.1:1", Health(port=port)).text == upstream.address
    assert checked_address("[::1]:1", Health(port=7)).text == "[::1]:7"
    assert checked_address("unix:/run/x", Health()).text == "unix:/run/x"
    assert listening_address(upstream.sock) == upstream.address

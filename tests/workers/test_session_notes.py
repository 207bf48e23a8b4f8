"""What a worker tells the session log of each session, and what it costs when nobody listens."""

import socket
from typing import Any

import pytest

from aegis.config import Log
from aegis.config_backend import Server
from aegis.lifecycle import CLOSE_REASONS
from aegis.limits import SESSION_LOG_HWM, SESSIONS_PER_BATCH
from aegis.session_records import TERMINATIONS, SessionRecord, termination
from tests.faults.scripted import get, words
from tests.harness import Proxy, Rig, receive, receive_all, reset
from workers.tally import Tally

LOG = Log(sessions="/unused: the test is the writer")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


def records(proxy: Proxy, count: int) -> list[SessionRecord]:
    """Return the records of so many sessions, waiting for them."""
    found: list[SessionRecord] = []
    while len(found) < count:
        found += proxy.bus.next_sessions()
    assert len(found) == count
    return found


def replying(rig: Rig, **backend: Any) -> tuple[Proxy, socket.socket, socket.socket]:
    """Return a worker that shares one pipe of the line protocol, a client and the pipe's end."""
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address,
        listener={"protocol": "line", "pooling": "multiplex"},
        backend=backend,
        log=LOG,
    )
    client = proxy.connect()
    client.sendall(b"PING\n")
    server = upstream.accept()
    assert receive(server, 5) == b"PING\n"
    return proxy, client, server


def test_a_session_is_told_with_its_addresses_bytes_and_times(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, log=LOG)
    client, server = proxy.pair(upstream)
    client.sendall(b"x" * 100_000)
    assert len(receive(server, 100_000)) == 100_000
    server.sendall(b"y" * 7)
    assert receive(client, 7) == b"y" * 7
    host, port = client.getsockname()
    client.close()
    assert server.recv(1) == b""
    server.close()
    (record,) = records(proxy, 1)
    assert record.client == f"{host}:{port}"
    assert (record.listener, record.backend, record.server) == ("front", "db", upstream.address)
    assert (record.client_bytes, record.server_bytes) == (100_000, 7)
    assert (record.reason, record.queue_ms, record.retries, record.requests) == (
        "client_eof", 0, 0, 0,
    )  # fmt: skip
    assert 0 <= record.connect_ms <= record.total_ms
    assert (record.worker_sessions, record.listener_sessions) == (1, 1)
    assert proxy.figures().listeners[0].bytes == [100_000, 7], "the listener's count is the same"


@pytest.mark.parametrize("kind", ["tcp6", "unix"])
def test_a_client_is_named_as_its_family_names_it(rig: Rig, kind: Any) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind=kind, log=LOG)
    client, server = proxy.pair(upstream)
    name = client.getsockname()
    client.close()
    server.close()
    (record,) = records(proxy, 1)
    assert record.client == (f"[{name[0]}]:{name[1]}" if kind == "tcp6" else "unix")


def test_a_server_that_refuses_is_told_with_every_attempt(rig: Rig) -> None:
    proxy = rig.proxy(rig.refused_address(), rig.refused_address(), log=LOG)
    assert proxy.connect().recv(1) == b""
    (record,) = records(proxy, 1)
    assert (record.reason, record.retries, record.connect_ms) == ("connect_failed", 1, -1)
    assert TERMINATIONS[record.reason] == "SC"


def test_a_reset_is_told_as_the_clients(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, log=LOG)
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    receive(server, 1)
    reset(client)
    (record,) = records(proxy, 1)
    assert (record.reason, record.client_bytes) == ("client_reset", 1)


def test_a_session_that_waits_in_vain_is_told_with_its_wait_and_place(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address,
        backend={"max_connections": 1, "queue_timeout_s": 0.3},
        log=LOG,
    )
    client, server = proxy.pair(upstream)
    waiting = [proxy.connect(), proxy.connect()]
    assert [each.recv(1) for each in waiting] == [b"", b""]
    told = records(proxy, 2)
    assert {record.reason for record in told} == {"queue_timeout"}
    assert all(record.queue_ms >= 300 for record in told), told
    assert sorted(record.queued_behind for record in told) == [0, 1]
    assert [record.server for record in told] == ["", ""]
    client.close()
    server.close()


def test_a_client_that_shares_a_pipe_is_told_with_its_requests_and_bytes(rig: Rig) -> None:
    proxy, client, server = replying(rig)
    server.sendall(b"PONG\n")
    assert receive(client, 5) == b"PONG\n"
    client.sendall(b"GET a\nGET bc\n")
    assert receive(server, 13) == b"GET a\nGET bc\n"
    server.sendall(b"1\n22\n")
    assert receive(client, 5) == b"1\n22\n"
    client.close()
    (record,) = records(proxy, 1)
    assert (record.requests, record.client_bytes, record.server_bytes) == (3, 18, 10)
    assert record.server == proxy.config.backends[0].servers[0]
    assert record.reason == "client_eof"
    assert proxy.figures().listeners[0].bytes == [18, 10]


def test_a_client_that_waits_for_a_pipe_is_told_with_its_wait(rig: Rig) -> None:
    proxy, client, server = replying(rig, max_connections=1)
    server.sendall(b"PONG\n")
    assert receive(client, 5) == b"PONG\n"
    client.close()
    (record,) = records(proxy, 1)
    assert record.queue_ms >= 0, "it waited until the pipe was open"
    assert record.queued_behind == 0


def test_a_reply_that_was_lost_with_its_server_is_told_though_the_client_ends_well(
    rig: Rig,
) -> None:
    proxy, client, server = replying(rig)
    server.close()
    assert receive(client, 16) == b"ERR server_lost\n"
    client.close()
    (record,) = records(proxy, 1)
    assert (record.reason, record.lost, record.requests) == ("client_eof", "server_lost", 1)
    assert termination(record) == "SH"


def test_how_a_session_ended_is_above_what_it_had_lost() -> None:
    record = SessionRecord("unix", "front", 0.0)
    assert termination(record) == "--"
    record.lost = "reply_timeout"
    assert termination(record) == "sH"
    record.reason = "idle_timeout"
    assert termination(record) == "cD"


def test_a_server_that_has_a_name_is_told_by_it(rig: Rig) -> None:
    upstream = rig.upstream()
    named = Server(address=upstream.address, name="big")
    proxy = rig.proxy(upstream.address, backend={"servers": (named,)}, log=LOG)
    client, server = proxy.pair(upstream)
    client.close()
    server.close()
    (record,) = records(proxy, 1)
    assert record.server == "big"


@pytest.mark.parametrize(
    ("protocol", "request_", "reply"),
    [
        ("resp", words("SUBSCRIBE", "c"), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
        ("http1", get("/", "Connection: upgrade", "Upgrade: x"), SWITCHED),
    ],
    ids=["resp", "http1"],
)
def test_a_client_that_becomes_a_tunnel_is_told_with_its_server(
    rig: Rig, protocol: str, request_: bytes, reply: bytes
) -> None:
    upstream = rig.upstream()
    listener = {"protocol": protocol, "pooling": "multiplex"}
    proxy = rig.proxy(upstream.address, listener=listener, log=LOG)
    client = proxy.connect()
    client.sendall(request_)
    server = upstream.accept()
    assert receive(server, len(request_)) == request_
    server.sendall(reply + b"pushed")
    assert receive(client, len(reply) + 6) == reply + b"pushed"
    client.close()
    assert server.recv(1) == b""
    server.close()
    (record,) = records(proxy, 1)
    assert record.server == upstream.address
    assert (record.requests, record.reason) == (1, "client_eof")
    assert record.queue_ms >= 0
    assert record.connect_ms == 0, "as for whoever got a pipe"
    counted = [record.client_bytes, record.server_bytes]
    assert counted == [len(request_), len(reply) + 6] == proxy.figures().listeners[0].bytes


def test_the_bytes_that_a_client_ends_with_are_in_its_record(rig: Rig) -> None:
    """What was just read is what ends the session."""
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address, listener={"protocol": "resp", "pooling": "multiplex"}, log=LOG
    )
    client = proxy.connect()
    request, garbage = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"*x\r\n"
    client.sendall(request)
    server = upstream.accept()
    assert receive(server, len(request)) == request
    client.sendall(garbage)
    server.sendall(b"$-1\r\n")
    answers = receive_all(client)
    assert answers.startswith(b"$-1\r\n")
    client.close()
    (record,) = records(proxy, 1)
    assert record.reason == "protocol_error"
    assert record.client_bytes == len(request + garbage)
    assert record.server_bytes == len(answers)
    assert [record.client_bytes, record.server_bytes] == proxy.figures().listeners[0].bytes


def test_a_sample_is_one_in_so_many(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, log=Log(sessions="/unused", sessions_sample=3))
    sent = []
    for number in range(7):
        client, server = proxy.pair(upstream)
        client.sendall(b"x" * (number + 1))
        sent.append(len(receive(server, number + 1)))
        client.close()
        server.close()
        proxy.figures_when(lambda f: not f.sessions, "it has closed")
    assert [record.client_bytes for record in records(proxy, 3)] == [1, 4, 7]
    assert proxy.figures().listeners[0].bytes == [sum(sent), 0], "all are counted"


def test_with_nobody_to_write_sessions_are_served_and_the_lost_ones_counted(rig: Rig) -> None:
    proxy = rig.proxy(rig.refused_address(), log=LOG)
    told = SESSION_LOG_HWM * SESSIONS_PER_BATCH
    figures = proxy.figures()
    while not figures.session_log_drops:
        for _ in range(500):
            with socket.create_connection(proxy.sock.getsockname()) as client:
                assert client.recv(1) == b""
        figures = proxy.figures()
        assert figures.listeners[0].accepted <= 2 * told
    assert figures.listeners[0].accepted > figures.session_log_drops


def test_every_reason_has_a_code_of_two_characters() -> None:
    assert set(TERMINATIONS) == set(CLOSE_REASONS)
    assert {len(code) for code in TERMINATIONS.values()} == {2}


def test_a_tally_adds_to_the_whole() -> None:
    whole = [10, 20]
    one, other = Tally(whole), Tally(whole)
    one[0] += 3
    other[0] += 4
    other[1] += 5
    assert (whole, one, other) == ([17, 25], [3, 0], [4, 5])

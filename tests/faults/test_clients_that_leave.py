"""Clients that go away with replies due: exactly those are thrown away, and nobody else's."""

import socket

import pytest

from tests.faults.scripted import (
    expect,
    get,
    in_pieces,
    next_pipe,
    page,
    sharing,
    transaction,
    words,
)
from tests.harness import Proxy, Rig, is_silent, receive_all, reset


def test_the_replies_of_one_that_has_left_reach_nobody(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    first, second = proxy.connect(), proxy.connect()
    first.sendall(words("GET", "1") * 2)
    server = upstream.accept()
    expect(server, words("GET", "1") * 2)
    second.sendall(words("GET", "2"))
    expect(server, words("GET", "2"))
    reset(first)
    _sessions(proxy, 1)
    server.sendall(b"$3\r\none\r\n$3\r\none\r\n$3\r\ntwo\r\n")
    expect(second, b"$3\r\ntwo\r\n")


def test_a_reply_in_many_segments_is_thrown_away_whole_when_its_client_leaves_in_the_middle(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    first, second = proxy.connect(), proxy.connect()
    first.sendall(words("GET", "1"))
    server = upstream.accept()
    expect(server, words("GET", "1"))
    second.sendall(words("GET", "2"))
    expect(server, words("GET", "2"))
    in_pieces(server, [b"$", b"10", b"\r\n", b"012"])
    expect(first, b"$10\r\n012")
    reset(first)
    _sessions(proxy, 1)
    in_pieces(server, [b"3456", b"789", b"\r", b"\n", b"$3", b"\r\nt", b"wo\r\n"])
    expect(second, b"$3\r\ntwo\r\n")
    second.sendall(words("GET", "3"))
    expect(server, words("GET", "3"))
    server.sendall(b"$5\r\nthree\r\n")
    expect(second, b"$5\r\nthree\r\n")


def test_one_that_half_closes_behind_a_hundred_requests_gets_a_hundred_replies(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    requests = b"".join(words("GET", str(n)) for n in range(100))
    client.sendall(requests)
    client.shutdown(socket.SHUT_WR)
    server = upstream.accept()
    expect(server, requests)
    replies = b"".join(b"$2\r\n%02d\r\n" % n for n in range(100))
    server.sendall(replies)
    assert receive_all(client) == replies


@pytest.mark.parametrize("rest", [b"*2\r\n$3\r\nGE", b"*"])
def test_one_that_half_closes_in_the_middle_of_a_request_is_closed_after_its_replies(
    rig: Rig, rest: bytes
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a") + rest)
    client.shutdown(socket.SHUT_WR)
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    assert receive_all(client) == b"$1\r\nA\r\n"


def test_one_that_half_closes_behind_a_request_that_waits_its_turn_gets_its_reply(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    holder, client = proxy.connect(), proxy.connect()
    holder.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(holder, b"+OK\r\n")
    client.sendall(words("GET", "a"))
    client.shutdown(socket.SHUT_WR)
    assert is_silent(server, 0.1)
    holder.close()
    server = next_pipe(server, upstream)
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    assert receive_all(client) == b"$1\r\nA\r\n"


def test_a_pipe_is_reused_after_its_only_client_has_left_with_replies_due(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    first = proxy.connect()
    first.sendall(words("GET", "1"))
    server = upstream.accept()
    expect(server, words("GET", "1"))
    reset(first)
    _sessions(proxy, 0)
    second = proxy.connect()
    second.sendall(words("GET", "2"))
    expect(server, words("GET", "2"))
    server.sendall(b"$3\r\none\r\n$3\r\ntwo\r\n")
    expect(second, b"$3\r\ntwo\r\n")


def test_one_that_closes_while_it_blocks_does_not_keep_its_pipe_for_ever(rig: Rig) -> None:
    """To us a close looks like a half-close; redis-server ends such a client at once."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"server_fin_timeout_s": 0.5})
    client = proxy.connect()
    client.sendall(words("BLPOP", "queue", "0"))
    server = upstream.accept()
    expect(server, words("BLPOP", "queue", "0"))
    client.close()
    server.settimeout(5)
    assert server.recv(100) == b""


def test_one_that_half_closes_while_it_blocks_gets_what_it_waits_for(rig: Rig) -> None:
    """Its half-close is passed on, because the pipe is its alone; what the server does is its."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("BLPOP", "queue", "0"))
    client.shutdown(socket.SHUT_WR)
    server = upstream.accept()
    expect(server, words("BLPOP", "queue", "0"))
    assert server.recv(100) == b""
    server.sendall(b"*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n")
    assert receive_all(client) == b"*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n"


def test_those_whom_the_deadline_of_a_drain_cuts_are_given_no_pipe_by_one_another(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    holder = proxy.connect()
    server = transaction(holder, upstream)
    waiting = [proxy.connect() for _ in range(8)]
    for client in waiting:
        client.sendall(words("INCR", "counter"))
    proxy.figures_when(lambda f: f.backends[0].waiting == 8, "eight to wait")
    proxy.bus.publish("drained", timeout_s=0.3)
    assert b"INCR" not in receive_all(server)
    assert proxy.await_phase("drained").figures.cut == 9
    upstream.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        upstream.accept()


def _sessions(proxy: Proxy, count: int) -> None:
    proxy.figures_when(lambda f: f.sessions == count, f"{count} sessions")


@pytest.mark.parametrize("behind", [0, 100, 100_000])
def test_one_that_asks_for_the_close_has_its_reply_whatever_it_has_said_since(
    behind: int, rig: Rig
) -> None:
    """A close over bytes that were not read would be a reset, and the reply might be lost."""
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, slab_bytes=4_096, slabs=4)
    client = proxy.connect()
    client.sendall(get("/1", "Connection: close") + b"x" * behind)
    server = upstream.accept()
    expect(server, get("/1"))
    body = b"y" * 100_000
    server.sendall(page(body))
    assert receive_all(client) == page(body)

"""Bytes that nobody is owed: whatever brings them is closed, and no client ever sees them."""

import select
import socket

import pytest

from tests.faults.scripted import asked, expect, expect_end, get, page, sharing, words
from tests.harness import DEADLINE_S, Rig, Upstream, is_silent, receive_all

EVIL = b"$4\r\nEVIL\r\n"
NONSENSE = {
    "resp": (words("GET", "a"), b"$1\r\nA\r\n", b"*1\r\n!\r\n", b"-ERR "),
    "http1": (get("/a"), page(b"A"), b"GET /b HTTP/1.1\r\n: no name\r\n\r\n", b"HTTP/1.1 400 "),
}
"""A request, its reply, what is no request, and how its answer begins."""


def test_bytes_on_an_idle_pipe_close_it_before_anybody_gets_them(rig: Rig) -> None:
    upstream, _, client, server = asked(rig)
    server.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")
    server.sendall(EVIL)
    expect_end(server)
    client.sendall(words("GET", "b"))
    server = upstream.accept()
    expect(server, words("GET", "b"))
    server.sendall(b"$1\r\nB\r\n")
    expect(client, b"$1\r\nB\r\n")


def test_an_idle_client_hears_nothing_of_them(rig: Rig) -> None:
    _, _, client, server = asked(rig)
    server.sendall(b"$1\r\nA\r\n" + EVIL)
    expect(client, b"$1\r\nA\r\n")
    expect_end(server)
    assert is_silent(client, 0.1)


def test_bytes_behind_a_reply_are_not_taken_for_that_to_the_request_that_waits(rig: Rig) -> None:
    """Over HTTP the second request waits in the worker while the first is under way."""
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream)
    client = proxy.connect()
    client.sendall(get("/1") + get("/2"))
    server = upstream.accept()
    expect(server, get("/1"))
    server.sendall(page(b"one") + page(b"EVIL"))
    expect(client, page(b"one"))
    expect_end(server)
    if (again := _redialled(upstream, client)) is None:
        assert client.recv(100).startswith(b"HTTP/1.1 50")
        return
    expect(again, get("/2"))
    again.sendall(page(b"two"))
    expect(client, page(b"two"))


def test_they_are_not_taken_for_the_reply_to_a_transactions_beginning(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a") + words("MULTI"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n" + EVIL)
    expect(client, b"$1\r\nA\r\n")
    expect_end(server)
    if (again := _redialled(upstream, client)) is None:
        assert client.recv(100).startswith(b"-ERR aegis: ")
        return
    expect(again, words("MULTI"))
    again.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")


def test_they_do_not_enter_a_tunnel_that_begins_behind_the_reply(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a") + words("SUBSCRIBE", "c"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n" + EVIL)
    expect(client, b"$1\r\nA\r\n")
    expect_end(server)
    server = upstream.accept()
    expect(server, words("SUBSCRIBE", "c"))
    server.sendall(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    expect(client, b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")


def test_a_push_on_a_shared_pipe_closes_it(rig: Rig) -> None:
    _, _, client, server = asked(rig)
    server.sendall(b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n")
    expect(client, b"-ERR aegis: protocol_error\r\n")
    expect_end(server)


def test_a_server_that_speaks_first_is_believed_nothing(rig: Rig) -> None:
    """Redis does so when it has too many clients, and the request was not sent yet or was."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"pool_min": 1})
    server = upstream.accept()
    server.sendall(b"-ERR max number of clients reached\r\n")
    expect_end(server)
    client = proxy.connect()
    client.sendall(words("GET", "a"))
    for _ in range(2):  # the pool keeps its minimum
        server = upstream.accept()
        if not is_silent(server, 0.3):
            break
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("protocol", NONSENSE)
def test_nonsense_behind_requests_is_answered_behind_their_replies(
    rig: Rig, protocol: str, at_once: bool
) -> None:
    request, reply, nonsense, answer = NONSENSE[protocol]
    upstream = rig.upstream()
    proxy = sharing(rig, protocol, upstream)
    client = proxy.connect()
    client.sendall(request * 2 + (nonsense if at_once else b""))
    server = upstream.accept()
    expect(server, request)
    if not at_once:
        client.sendall(nonsense)
    assert is_silent(client, 0.1)
    server.sendall(reply)
    expect(client, reply)
    expect(server, request)
    assert is_silent(client, 0.1)
    server.sendall(reply)
    expect(client, reply)
    assert receive_all(client).startswith(answer)
    assert is_silent(server, 0.05), "the pipe has done nothing wrong"
    client.close()
    proxy.figures_when(lambda f: f.sessions == 0, "the client to be closed")


def _redialled(upstream: Upstream, client: socket.socket) -> socket.socket | None:
    """Return the fresh pipe for a request that was never sent; None if it gets an error instead."""
    poll = select.poll()
    poll.register(upstream.sock, select.POLLIN)
    poll.register(client, select.POLLIN)
    ready = [fd for fd, _ in poll.poll(DEADLINE_S * 1000)]
    return upstream.accept() if upstream.sock.fileno() in ready else None

"""Requests that take a pipe for themselves: tunnels, and bodies too long to be held."""

import contextlib
from typing import Any

import pytest

from tests.faults.scripted import expect, expect_end, get, in_pieces, page, sharing, words
from tests.harness import DEADLINE_S, Rig, is_silent, receive, reset

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
TINY: dict[str, Any] = {"slab_bytes": 64, "slabs": 4}
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
UPGRADE = get("/", "Connection: upgrade", "Upgrade: echo")


@pytest.mark.parametrize("slabs", [{}, TINY, {"slab_bytes": 64, "slabs": 2}])
def test_bytes_pipelined_behind_subscribe_go_through_the_tunnel(
    rig: Rig, slabs: dict[str, Any]
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, **slabs)
    client = proxy.connect()
    behind = b"".join(words("SUBSCRIBE", f"channel-{n}") for n in range(20))
    client.sendall(words("GET", "a") + words("SUBSCRIBE", "c") + behind)
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")
    expect(server, words("SUBSCRIBE", "c") + behind)
    server.sendall(SUBSCRIBED * 20)
    expect(client, SUBSCRIBED * 20)
    client.close()
    expect_end(server)


def test_a_tunnels_place_is_free_again_when_it_ends(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    for _ in range(3):
        client = proxy.connect()
        client.sendall(words("SUBSCRIBE", "c"))
        server = upstream.accept()
        expect(server, words("SUBSCRIBE", "c"))
        server.sendall(SUBSCRIBED)
        expect(client, SUBSCRIBED)
        client.close()
        expect_end(server)
        server.close()


@pytest.mark.parametrize("slabs", [{}, TINY])
def test_bytes_pipelined_behind_an_upgrade_go_through_the_tunnel(
    rig: Rig, slabs: dict[str, Any]
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, **slabs)
    client = proxy.connect()
    client.sendall(UPGRADE + b"hello" * 40)
    server = upstream.accept()
    expect(server, UPGRADE)
    server.sendall(SWITCHED + b"world" * 40)
    expect(client, SWITCHED + b"world" * 40)
    expect(server, b"hello" * 40)
    server.close()
    expect_end(client)


def test_an_upgrade_that_is_declined_leaves_an_ordinary_pipe(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream)
    client = proxy.connect()
    client.sendall(UPGRADE + get("/next"))
    server = upstream.accept()
    expect(server, UPGRADE)
    server.sendall(page(b"no"))
    expect(client, page(b"no"))
    if not (start := server.recv(1)):
        server = upstream.accept()
    expect(server, get("/next")[len(start) :])
    server.sendall(page(b"next"))
    expect(client, page(b"next"))


def test_a_client_that_resets_as_the_tunnel_opens_frees_its_place_once(rig: Rig) -> None:
    """Counted twice, the place would be given away twice: more pipes than max_connections."""
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, buffer_bytes=4096, slab_bytes=65536, slabs=4)
    client = proxy.connect(receive_buffer=4096)
    client.sendall(UPGRADE)
    server = upstream.accept()
    expect(server, UPGRADE)
    # The worker finds the reset when it writes: both arrive while it is stopped.
    proxy.worker.process.suspend()
    reset(client)
    server.sendall(SWITCHED)
    proxy.worker.process.resume()
    expect_end(server)
    proxy.figures_when(lambda f: f.sessions == 0, "the session to end")
    assert [s.connections for s in proxy.figures().servers] == [0]


@pytest.mark.parametrize("slabs", [{}, TINY])
def test_a_large_body_streams_up_and_the_pipe_is_shared_afterwards(
    rig: Rig, slabs: dict[str, Any]
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, **slabs)
    client, other = proxy.connect(), proxy.connect()
    request = get("/kv/x", "Content-Length: 300000", method="PUT") + bytes(300_000)
    client.sendall(request[:150_000])
    server = upstream.accept()
    expect(server, request[:100_000])
    other.sendall(get("/2"))
    client.sendall(request[150_000:] + get("/3"))
    expect(server, request[100_000:])
    server.sendall(page(b"stored"))
    expect(client, page(b"stored"))
    bodies = {}
    for _ in range(2):
        path = receive(server, len(get("/2")))
        server.sendall(page(path[5:6]))
        bodies[path[5:6]] = path
    expect(other, page(b"2"))
    expect(client, page(b"3"))


@pytest.mark.parametrize("slabs", [{}, TINY])
def test_a_memcached_value_larger_than_a_slab_streams_both_ways(
    rig: Rig, slabs: dict[str, Any]
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream, **slabs)
    client = proxy.connect()
    value = bytes(range(48, 58)) * 20_000
    client.sendall(b"set k 0 0 200000\r\n" + value + b"\r\nget k\r\n")
    server = upstream.accept()
    expect(server, b"version\r\n")
    server.sendall(b"VERSION 1.6.18\r\n")
    expect(server, b"set k 0 0 200000\r\n" + value + b"\r\n")
    server.sendall(b"STORED\r\n")
    expect(client, b"STORED\r\n")
    expect(server, b"get k\r\n")
    reply = b"VALUE k 0 200000\r\n" + value + b"\r\nEND\r\n"
    server.sendall(reply)
    expect(client, reply)


def test_a_client_that_waits_for_100_continue_gets_it(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream)
    client = proxy.connect()
    head = get("/kv/x", "Content-Length: 5", "Expect: 100-continue", method="PUT")
    client.sendall(head)
    server = upstream.accept()
    expect(server, head)
    server.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    expect(client, b"HTTP/1.1 100 Continue\r\n\r\n")
    client.sendall(b"hello" + get("/2"))
    expect(server, b"hello")
    server.sendall(page(b"stored"))
    expect(client, page(b"stored"))
    expect(server, get("/2"))
    server.sendall(page(b"2"))
    expect(client, page(b"2"))


def test_a_long_request_in_one_byte_pieces_streams_too(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, **TINY)
    client = proxy.connect()
    request = words("SET", "key", "v" * 300)
    in_pieces(client, [request[n : n + 1] for n in range(len(request))])
    server = upstream.accept()
    expect(server, request)
    in_pieces(server, [b"+", b"O", b"K", b"\r", b"\n"])
    expect(client, b"+OK\r\n")


def test_a_client_that_says_connection_close_is_closed_and_the_pipe_is_not(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(get("/1", "Connection: close") + get("/never"))
    server = upstream.accept()
    expect(server, get("/1"))
    server.sendall(page(b"1"))
    expect(client, page(b"1"))
    expect_end(client)
    other.sendall(get("/2"))
    expect(server, get("/2"))
    server.sendall(page(b"2"))
    expect(other, page(b"2"))


def test_more_than_a_slab_may_be_held_when_a_tunnel_opens(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, **TINY)
    client = proxy.connect()
    sent = words("SUBSCRIBE", "c") + words("SUBSCRIBE", "d") * 5
    client.sendall(sent[:20])
    proxy.figures_when(lambda f: f.listeners[0].bytes[0] == 20, "the first half to be taken")
    client.sendall(sent[20:])
    server = upstream.accept()
    expect(server, sent)
    server.sendall(SUBSCRIBED * 6)
    expect(client, SUBSCRIBED * 6)


SIZE = 9_000_000
EARLY = {
    "resp": (
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % SIZE, b"-ERR too large\r\n",
        words("SUBSCRIBE", "c"), {words("RESET"): b"+RESET\r\n"},
    ),
    "memcached": (
        b"set k 0 0 %d\r\n" % SIZE, b"SERVER_ERROR object too large for cache\r\n",
        b"mg k v q\r\n", {b"version\r\n": b"VERSION 1.6.18\r\n"},
    ),
}  # fmt: skip
"""A request's head, the answer to it, what begins a tunnel, and what the proxy itself may ask."""


@pytest.mark.parametrize("protocol", EARLY)
def test_a_tunnel_does_not_begin_behind_half_a_request(rig: Rig, protocol: str) -> None:
    """It was answered early, and the server is slow to read on: its end waits to be sent."""
    head, answer, tunnel, talk = EARLY[protocol]
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = sharing(rig, protocol, upstream, slab_bytes=65_536, slabs=4)
    client = proxy.connect()
    client.sendall(head)
    server = upstream.accept()
    if protocol == "memcached":
        expect(server, b"version\r\n")
        server.sendall(talk[b"version\r\n"])
    expect(server, head)
    server.sendall(answer)
    expect(client, answer)
    body = bytes(SIZE) + b"\r\n"
    rest = memoryview(body + tunnel)
    client.setblocking(False)
    came = bytearray()
    while not came.endswith(tunnel):
        with contextlib.suppress(BlockingIOError):  # ahead of the server, always
            while rest:
                rest = rest[client.send(rest) :]
        if not is_silent(server, DEADLINE_S) and (data := server.recv(65_536)):
            came += data
        else:  # half a request was left behind with its pipe
            server, came = upstream.accept(), bytearray(body)
        for asked, reply in talk.items():
            if came.endswith(asked):
                del came[-len(asked) :]
                server.sendall(reply)
    assert came == body + tunnel

"""Requests that have begun and do not end: held, but not for ever and not without bound."""

import socket

from aegis.limits import HALVES_BYTES
from tests.faults.scripted import expect, expect_end, next_pipe, sharing, words
from tests.harness import Proxy, Rig, Upstream

REQUEST = words("SET", "k", "v" * 60_000)
HALF, REST = REQUEST[:50_000], REQUEST[50_000:]
SLOW = b"-ERR aegis: client_timeout\r\n"


def taken(proxy: Proxy, count: int) -> None:
    proxy.figures_when(lambda f: f.listeners[0].bytes[0] == count, f"{count} bytes to be read")


def begun(proxy: Proxy, count: int) -> list[socket.socket]:
    """Have so many clients send half a request, one after another."""
    clients = []
    for n in range(count):
        client = proxy.connect()
        client.sendall(HALF)
        taken(proxy, (n + 1) * len(HALF))
        clients.append(client)
    return clients


def answered(client: socket.socket, upstream: Upstream, rest: bytes) -> None:
    client.sendall(rest)
    server = upstream.accept()
    expect(server, REQUEST)
    server.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")


def test_the_half_that_began_first_makes_room_when_there_are_too_many(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=65_536, slabs=2)
    first, *others = begun(proxy, HALVES_BYTES // len(HALF) + 1)
    expect(first, SLOW)
    expect_end(first)
    first.close()
    proxy.closed_for("slow_request")
    answered(others[0], upstream, REST)


def test_one_that_is_owed_replies_hears_no_error_before_them(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=65_536, slabs=2)
    client = proxy.connect()
    client.sendall(words("GET", "a") + HALF)
    server = upstream.accept()
    expect(server, words("GET", "a"))
    for _ in range(HALVES_BYTES // len(HALF)):
        proxy.connect().sendall(HALF)
    expect_end(client)
    server.sendall(b"$1\r\nA\r\n")  # nobody's, and nobody gets it
    other = proxy.connect()
    other.sendall(words("GET", "b"))
    expect(server, words("GET", "b"))
    server.sendall(b"$1\r\nB\r\n")
    expect(other, b"$1\r\nB\r\n")


def test_what_waits_for_a_pipe_is_no_half(rig: Rig) -> None:
    """Whole requests wait for the server, not for their clients: they make no room."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=65_536, slabs=2)
    busy = proxy.connect()
    busy.sendall(words("BLPOP", "k", "0"))
    server = upstream.accept()
    expect(server, words("BLPOP", "k", "0"))
    clients = [proxy.connect() for _ in range(HALVES_BYTES // len(REQUEST) + 3)]
    for client in clients:
        client.sendall(REQUEST)
    taken(proxy, len(words("BLPOP", "k", "0")) + len(REQUEST) * len(clients))
    server.sendall(b"*-1\r\n")
    expect(busy, b"*-1\r\n")
    server = next_pipe(server, upstream)
    for _ in clients:
        expect(server, REQUEST)
        server.sendall(b"+OK\r\n")
    for client in clients:
        expect(client, b"+OK\r\n")


def test_a_client_that_leaves_in_the_middle_of_a_request_is_forgotten(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=65_536, slabs=2)
    for client in begun(proxy, HALVES_BYTES // len(HALF)):
        client.close()
    proxy.figures_when(lambda f: not f.sessions, "all to be gone")
    before = sum(proxy.figures().listeners[0].closed.values())
    clients = [proxy.connect() for _ in range(HALVES_BYTES // len(HALF))]
    for client in clients:
        client.sendall(HALF)
    answered(clients[0], upstream, REST)
    assert sum(proxy.figures().listeners[0].closed.values()) == before

"""Pins leave one pipe to those who share; one pin too many waits aside, and holds nobody up."""

import select
import socket

from tests.faults.scripted import expect, expect_end, sharing, transaction, words
from tests.harness import DEADLINE_S, Proxy, Rig, Upstream, reset

THREE = {"max_connections": 3}


def two_pinned(proxy: Proxy, upstream: Upstream) -> tuple[list[socket.socket], list[socket.socket]]:
    """Take two of three pipes; returns the clients, and the pipes they have."""
    clients = [proxy.connect() for _ in range(2)]
    return clients, [transaction(client, upstream) for client in clients]


def shared(client: socket.socket, pipe: socket.socket) -> None:
    """Be served on the pipe that is left."""
    client.sendall(words("GET", "a"))
    expect(pipe, words("GET", "a"))
    pipe.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")


def test_a_pin_too_many_does_not_hold_up_those_who_share(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend=THREE)
    two_pinned(proxy, upstream)
    third, other = proxy.connect(), proxy.connect()
    third.sendall(words("MULTI"))
    proxy.figures_when(lambda f: f.backends[0].waiting == 1, "the third to wait")
    other.sendall(words("GET", "a"))
    pipe = upstream.accept()
    expect(pipe, words("GET", "a"))
    pipe.sendall(b"$1\r\nA\r\n")
    expect(other, b"$1\r\nA\r\n")
    for _ in range(3):
        shared(other, pipe)
    assert proxy.figures().backends[0].waiting == 1


def test_a_pin_that_was_parked_has_its_turn_when_another_ends_and_is_counted_once(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend=THREE)
    (first, _), (pipe, _) = two_pinned(proxy, upstream)
    third, other = proxy.connect(), proxy.connect()
    third.sendall(words("MULTI"))
    left = upstream.accept()
    shared(other, left)
    first.sendall(words("EXEC"))
    expect(pipe, words("EXEC"))
    pipe.sendall(b"*0\r\n")
    expect(first, b"*0\r\n")
    expect(pipe, words("RESET"))
    pipe.sendall(b"+RESET\r\n")
    given = speaks(pipe, left)
    expect(given, words("MULTI"))
    given.sendall(b"+OK\r\n")
    expect(third, b"+OK\r\n")
    shared(other, left if given is pipe else pipe)
    assert proxy.figures().pools[0].pins == {"multi": 3}


def test_a_pin_that_is_parked_too_long_is_told_so(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={**THREE, "queue_timeout_s": 0.3})
    two_pinned(proxy, upstream)
    third, other = proxy.connect(), proxy.connect()
    third.sendall(words("MULTI"))
    expect(third, b"-ERR aegis: queue_timeout\r\n")
    expect_end(third)
    shared(other, upstream.accept())
    assert proxy.figures().pools[0].pins == {"multi": 2}


def test_a_parked_pin_that_leaves_takes_no_turn(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend=THREE)
    (first, _), (pipe, _) = two_pinned(proxy, upstream)
    third, fourth = proxy.connect(), proxy.connect()
    third.sendall(words("MULTI"))
    proxy.figures_when(lambda f: f.backends[0].waiting == 1, "the third to wait")
    fourth.sendall(words("WATCH", "w"))
    proxy.figures_when(lambda f: f.backends[0].waiting == 2, "the fourth to wait")
    reset(third)
    proxy.figures_when(lambda f: f.backends[0].waiting == 1, "the third to have left")
    left = upstream.accept()
    first.close()
    expect(pipe, words("RESET"))
    pipe.sendall(b"+RESET\r\n")
    given = speaks(pipe, left)
    expect(given, words("WATCH", "w"))
    given.sendall(b"+OK\r\n")
    expect(fourth, b"+OK\r\n")


def speaks(*pipes: socket.socket) -> socket.socket:
    """Return the pipe on which something comes."""
    ready, _, _ = select.select(pipes, [], [], DEADLINE_S)
    return ready[0]

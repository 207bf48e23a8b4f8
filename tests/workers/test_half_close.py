"""One side has said all; the other has not."""

import random
import socket

import pytest

from tests.harness import KINDS, Kind, Peer, Rig, is_silent, pump, receive, receive_all


@pytest.mark.parametrize("kind", KINDS)
def test_half_close_reaches_the_server_before_the_session_ends(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind)
    client, server = proxy.pair(upstream)
    client.sendall(b"SELECT 1")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b"SELECT 1"
    assert is_silent(client, 0.1)
    assert proxy.figures().sessions == 1
    server.sendall(b"the answer" * 10_000)
    server.close()
    assert receive_all(client) == b"the answer" * 10_000
    proxy.closed_for("client_eof")


@pytest.mark.parametrize("kind", KINDS)
def test_half_close_from_the_server_leaves_the_client_its_say(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind)
    client, server = proxy.pair(upstream)
    server.sendall(b"I only listen")
    server.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b"I only listen"
    client.sendall(b"and I talk" * 10_000)
    client.close()
    assert receive_all(server) == b"and I talk" * 10_000
    proxy.closed_for("server_eof")


def test_both_sides_may_half_close_at_once(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    client.sendall(b"bye")
    server.sendall(b"so long")
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b"so long"
    assert receive_all(server) == b"bye"
    figures = proxy.figures_when(lambda f: not f.sessions, "the session has ended")
    closed = figures.listeners[0].closed
    assert closed["client_eof"] + closed["server_eof"] == 1


@pytest.mark.parametrize("slabs", [2, 256])
def test_an_end_comes_after_all_bytes_even_through_a_blocked_sink(
    slabs: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = rig.proxy(upstream.address, slabs=slabs, slab_bytes=4096)
    client, server = proxy.pair(upstream)
    data = rng.randbytes(2_000_000)
    sender, reader = Peer(client, data, finish=True), Peer(server)
    pump([sender], lambda: len(sender.outgoing) < 1_900_000, rng)  # nobody reads yet
    pump([sender, reader], lambda: reader.ended, rng)
    assert reader.incoming == data
    server.setblocking(True)
    server.sendall(b"got it")
    client.setblocking(True)
    assert receive(client, 6) == b"got it"

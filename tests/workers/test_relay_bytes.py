"""What goes in on one side comes out on the other: every byte, once, in order, both ways."""

import random
from hashlib import sha256

import pytest

from tests.harness import KINDS, Kind, Peer, Rig, pump, receive

SMALL_BUFFER = 4096  # the kernel's minimum is about as small: nearly every write is partial


@pytest.mark.parametrize("slab_bytes", [64, 65_536])
@pytest.mark.parametrize("server_kind", KINDS)
@pytest.mark.parametrize("client_kind", KINDS)
def test_every_byte_arrives_in_both_directions(
    client_kind: Kind, server_kind: Kind, slab_bytes: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(server_kind)
    proxy = rig.proxy(upstream.address, kind=client_kind, slab_bytes=slab_bytes)
    size = 300_000 if slab_bytes == 64 else 3_000_000
    request, answer = rng.randbytes(size), rng.randbytes(size)
    client, server = (
        Peer(sock, data, finish=True)
        for sock, data in zip(proxy.pair(upstream), (request, answer), strict=True)
    )
    pump([client, server], lambda: client.ended and server.ended, rng)
    assert sha256(server.incoming).digest() == sha256(request).digest()
    assert sha256(client.incoming).digest() == sha256(answer).digest()
    figures = proxy.figures_when(lambda f: not f.sessions, "the session has ended")
    assert figures.listeners[0].bytes == [size, size]


@pytest.mark.parametrize("slabs", [2, 256])
@pytest.mark.parametrize("slab_bytes", [64, 1000, 65_536])
def test_many_sessions_with_small_socket_buffers_keep_their_bytes_apart(
    slab_bytes: int, slabs: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(buffer_bytes=SMALL_BUFFER)
    proxy = rig.proxy(
        upstream.address, buffer_bytes=SMALL_BUFFER, slab_bytes=slab_bytes, slabs=slabs
    )
    sessions: list[tuple[Peer, Peer]] = []
    sent: list[tuple[bytes, bytes]] = []
    for _ in range(25):
        data = rng.randbytes(rng.randint(1, 40_000)), rng.randbytes(rng.randint(1, 40_000))
        client, server = proxy.pair(upstream, receive_buffer=SMALL_BUFFER)
        sessions.append((Peer(client, data[0], finish=True), Peer(server, data[1], finish=True)))
        sent.append(data)
    peers = [peer for session in sessions for peer in session]
    pump(peers, lambda: all(peer.ended for peer in peers), rng)
    got = [(bytes(server.incoming), bytes(client.incoming)) for client, server in sessions]
    assert [tuple(map(len, pair)) for pair in got] == [tuple(map(len, pair)) for pair in sent]
    assert got == sent


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_may_speak_first(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind)
    client, server = proxy.pair(upstream)
    server.sendall(b"220 ready\r\n")
    assert receive(client, 11) == b"220 ready\r\n"


def test_what_a_client_sends_before_the_server_is_connected_arrives(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(rig.refused_address(), upstream.address)
    client = proxy.connect()
    client.sendall(b"early")
    server = upstream.accept()
    assert receive(server, 5) == b"early"


def test_a_client_that_has_said_all_and_closed_before_the_server_is_connected_is_heard(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(rig.refused_address(), upstream.address)
    client = proxy.connect()
    client.sendall(b"last words")
    client.close()
    server = upstream.accept()
    assert receive(server, 100) == b"last words"
    server.close()
    proxy.closed_for("client_eof")


def test_small_messages_go_back_and_forth_without_delay_or_loss(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, slab_bytes=64)
    client, server = proxy.pair(upstream)
    for size in [*range(1, 130), 4095, 4096, 4097]:  # around one slab, four slabs, the rounds' cap
        client.sendall(b"q" * size)
        assert receive(server, size) == b"q" * size
        server.sendall(b"a" * size)
        assert receive(client, size) == b"a" * size

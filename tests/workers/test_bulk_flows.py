"""What carries a lot goes through kernel pipes: the same bytes, ends and accounts as by copying."""

import random
import resource
import socket
from typing import Any

import pytest

from aegis.figures import Figures
from tests.harness import (
    KINDS,
    Kind,
    Peer,
    Proxy,
    Rig,
    Upstream,
    fill,
    parked,
    pump,
    receive,
    reset,
)
from workers.kernel_pipes import KernelPipes

STREAM_BYTES = 16 << 20
BLOCKING_BYTES = 64 << 20  # more than any socket buffers on the way hold


def both_ways(proxy: Proxy, upstream: Upstream, rng: random.Random) -> Figures:
    """Move megabytes each way at once and compare them."""
    data = [rng.randbytes(STREAM_BYTES) for _ in range(2)]
    socks = proxy.pair(upstream)
    client, server = (Peer(s, d, finish=True) for s, d in zip(socks, data, strict=True))
    pump([client, server], lambda: client.ended and server.ended, rng)
    assert [server.incoming, client.incoming] == data
    for sock in socks:
        sock.close()
    return proxy.figures()


def blocked(
    proxy: Proxy, upstream: Upstream, block: bytes
) -> tuple[socket.socket, socket.socket, int]:
    """Open a session whose server does not read and fill it; returns how much its client sent."""
    client, server = proxy.pair(upstream)
    return client, server, fill(client, block * (BLOCKING_BYTES // len(block)))


@pytest.mark.parametrize("kind", KINDS)
def test_megabytes_both_ways_are_spliced_and_arrive_as_they_were(
    kind: Kind, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind)
    figures = both_ways(proxy, upstream, rng)
    assert figures.listeners[0].bytes == [STREAM_BYTES, STREAM_BYTES]
    assert 0 < figures.spliced_bytes <= 2 * STREAM_BYTES


@pytest.mark.parametrize("config", [{"kernel_pipes": 0}, {"slab_bytes": 32_768}])
def test_without_kernel_pipes_and_with_small_slabs_everything_is_copied(
    config: dict[str, Any], rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, **config)
    assert both_ways(proxy, upstream, rng).spliced_bytes == 0


def test_once_it_carries_little_again_a_session_copies_again(rig: Rig, rng: random.Random) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    sender, reader = Peer(client, rng.randbytes(STREAM_BYTES)), Peer(server)
    pump([sender, reader], lambda: len(reader.incoming) == STREAM_BYTES, rng)
    client.setblocking(True)
    server.setblocking(True)
    for _ in range(2):  # what comes first may still be spliced, and ends it
        before = proxy.figures().spliced_bytes
        client.sendall(b"little")
        assert receive(server, 6) == b"little"
    assert proxy.figures().spliced_bytes == before > 0


def test_more_slow_readers_than_kernel_pipes_copy_and_lose_nothing(
    rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kernel_pipes=2)
    block = rng.randbytes(1 << 20)
    slow = [blocked(proxy, upstream, block) for _ in range(3)]
    figures = proxy.figures()
    assert figures.kernel_pipes_used == 1, "the last one stays hot"
    assert figures.slabs_used == 2
    for client, server, sent in slow:
        client.shutdown(socket.SHUT_WR)
        reader = Peer(server)
        pump([reader], lambda reader=reader: reader.ended, rng)  # type: ignore[misc]
        assert reader.incoming == (block * (sent // len(block) + 1))[:sent]
        server.shutdown(socket.SHUT_WR)
    proxy.figures_when(lambda f: not parked(f), "all is given back")


@pytest.mark.parametrize("who", ["client", "server"])
def test_what_a_reset_leaves_in_a_kernel_pipe_reaches_nobody(
    who: str, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kernel_pipes=2)
    for _ in range(4):  # each pipe has been the one that was left full
        client, server, _ = blocked(proxy, upstream, b"left" * 65_536)
        assert proxy.figures().kernel_pipes_used == 1
        reset(client if who == "client" else server)
        proxy.figures_when(lambda f: not f.sessions, "it went")
        client.close()
        server.close()
    before = proxy.figures()
    assert before.kernel_pipes_used == 0
    assert both_ways(proxy, upstream, rng).spliced_bytes > before.spliced_bytes


def test_where_the_kernel_grants_fewer_pipes_there_are_fewer() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    figures = Figures(0, 1, "starting", [], [], 2)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        assert KernelPipes(4, figures).spare == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

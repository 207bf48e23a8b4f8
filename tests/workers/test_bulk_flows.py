"""What carries a lot goes through kernel pipes: the same bytes, ends and accounts as by copying."""

import random
import resource
import signal
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


def gush(proxy: Proxy, client: socket.socket, stream: bytes) -> int:
    """Send what fits while the worker sleeps, so that it wakes to a lot; returns how much."""
    proxy.worker.freeze()
    sent = fill(client, stream)
    proxy.worker.signal(signal.SIGCONT)
    return sent


def blocked(
    proxy: Proxy, upstream: Upstream, block: bytes
) -> tuple[socket.socket, socket.socket, int]:
    """Open a session whose server does not read and fill it; returns how much its client sent."""
    client, server = proxy.pair(upstream)
    return client, server, fill(client, block * (BLOCKING_BYTES // len(block)))


def blocked_by_a_full_pipe(
    proxy: Proxy, upstream: Upstream, block: bytes
) -> tuple[socket.socket, socket.socket, int]:
    """The same, until one is: what comes last may be so little that a slab holds it."""
    for _ in range(30):
        client, server, sent = blocked(proxy, upstream, block)
        if proxy.figures().kernel_pipes_used:
            return client, server, sent
        client.close()
        server.close()
        proxy.figures_when(lambda f: not f.sessions, "it went")
    raise AssertionError("no flow was held up with a full kernel pipe")


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
    sent = gush(proxy, client, rng.randbytes(STREAM_BYTES))
    assert len(receive(server, sent)) == sent
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
    slow = [blocked_by_a_full_pipe(proxy, upstream, block)]
    slow += [blocked(proxy, upstream, block) for _ in range(2)]
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
        client, server, _ = blocked_by_a_full_pipe(proxy, upstream, b"left" * 65_536)
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

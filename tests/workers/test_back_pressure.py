"""A reader that does not read holds back its own sender, and nobody else."""

import random
import socket

import pytest

from tests.harness import KINDS, Kind, Peer, Proxy, Rig, Upstream, fill, parked, pump, receive

STREAM_BYTES = 64 << 20  # more than any socket buffers on the way hold
BUFFER = 8192
MAX_TURNS = 60  # in a second: ten ticks, a few messages; a loop that spins makes thousands


def slow_pair(
    proxy: Proxy, upstream: Upstream, rng: random.Random
) -> tuple[Peer, socket.socket, int]:
    """Open a session whose server does not read; its client has been filled until it blocked."""
    client, server = proxy.pair(upstream)
    stream = rng.randbytes(1 << 20) * (STREAM_BYTES >> 20)
    sent = fill(client, stream)
    return Peer(client, stream[sent : sent + 200_000], finish=True), server, sent


def expect(sent: int, sender: Peer, server: socket.socket, rng: random.Random) -> None:
    """Read everything and check that all came, and the end."""
    total = sent + len(sender.outgoing)
    reader = Peer(server)
    pump([sender, reader], lambda: reader.ended, rng)
    assert len(reader.incoming) == total
    block = bytes(reader.incoming[: 1 << 20])
    assert reader.incoming == (block * (total // len(block) + 1))[:total]


def echo_megabyte(proxy: Proxy, upstream: Upstream, rng: random.Random) -> None:
    """Move a megabyte each way through a session of its own."""
    data = rng.randbytes(1 << 20)
    client, server = (Peer(sock, data, finish=True) for sock in proxy.pair(upstream))
    pump([client, server], lambda: client.ended and server.ended, rng)
    assert client.incoming == server.incoming == data
    client.sock.close()
    server.sock.close()


@pytest.mark.parametrize("kernel_pipes", [0, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_blocks_its_sender_with_one_buffer_and_nobody_else(
    kind: Kind, kernel_pipes: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind, kernel_pipes=kernel_pipes)
    sender, server, sent = slow_pair(proxy, upstream, rng)
    assert parked(proxy.figures()) == 1
    echo_megabyte(proxy, upstream, rng)
    assert parked(proxy.figures()) == 1
    expect(sent, sender, server, rng)
    proxy.figures_when(lambda f: not parked(f), "the buffer is back")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slab_bytes", [64, 65_536])
def test_with_all_slabs_taken_others_go_on_and_every_byte_still_arrives(
    slab_bytes: int, kind: Kind, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(kind, buffer_bytes=BUFFER)
    proxy = rig.proxy(
        upstream.address,
        kind=kind,
        buffer_bytes=BUFFER,
        slabs=2,
        slab_bytes=slab_bytes,
        kernel_pipes=0,
    )
    blocked = [slow_pair(proxy, upstream, rng) for _ in range(3)]
    figures = proxy.figures()
    assert figures.slabs_used == 1
    assert figures.slab_shortages > 0
    if slab_bytes > 64:
        echo_megabyte(proxy, upstream, rng)
    client, server = proxy.pair(upstream)
    client.sendall(b"hello")
    assert receive(server, 5) == b"hello"
    server.sendall(b"world")
    assert receive(client, 5) == b"world"
    for sender, slow_server, sent in blocked:
        expect(sent, sender, slow_server, rng)
    proxy.figures_when(lambda f: f.slabs_used == 0, "the slab is back")


@pytest.mark.parametrize("slabs", [2, 8])
def test_both_directions_of_a_session_may_be_blocked_at_once(
    slabs: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(buffer_bytes=BUFFER)
    proxy = rig.proxy(upstream.address, buffer_bytes=BUFFER, slabs=slabs, kernel_pipes=0)
    client, server = proxy.pair(upstream, receive_buffer=BUFFER)
    up, down = rng.randbytes(16 << 20), rng.randbytes(16 << 20)
    sent = fill(client, up), fill(server, down)
    assert proxy.figures().slabs_used == min(2, slabs - 1)
    assert proxy.turns_in_a_heartbeat() < MAX_TURNS
    ends = (
        Peer(client, up[sent[0] : sent[0] + 100_000], finish=True),
        Peer(server, down[sent[1] : sent[1] + 100_000], finish=True),
    )
    pump(ends, lambda: all(end.ended for end in ends), rng)
    assert ends[1].incoming == up[: sent[0] + 100_000]
    assert ends[0].incoming == down[: sent[1] + 100_000]


@pytest.mark.parametrize(("slabs", "kernel_pipes"), [(2, 0), (8, 0), (8, 16)])
def test_a_blocked_session_costs_no_cpu_whatever_its_client_does(
    slabs: int, kernel_pipes: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream(buffer_bytes=BUFFER)
    proxy = rig.proxy(upstream.address, slabs=slabs, kernel_pipes=kernel_pipes)
    blocked = [slow_pair(proxy, upstream, rng) for _ in range(2)]
    blocked[0][1].shutdown(socket.SHUT_WR)  # with the next line: both ends, hence a hang-up,
    blocked[0][0].sock.shutdown(socket.SHUT_WR)  # at a client that is not read from
    blocked[1][0].sock.close()
    before = proxy.worker.cpu_s()
    assert proxy.turns_in_a_heartbeat() < MAX_TURNS
    assert proxy.worker.cpu_s() - before < 0.5
    assert proxy.figures().sessions == 2
    for sender, server, sent in blocked:
        reader = Peer(server)
        pump([reader], lambda reader=reader: reader.ended, rng)  # type: ignore[misc]
        assert len(reader.incoming) == sent
        sender.sock.close()
        server.close()
    proxy.figures_when(lambda f: not f.sessions, "both sessions have ended")


def test_a_unix_client_that_hangs_up_while_it_is_not_read_from_costs_no_cpu(
    rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream("unix")
    proxy = rig.proxy(upstream.address, kind="unix")
    sender, server, sent = slow_pair(proxy, upstream, rng)
    sender.sock.close()
    assert proxy.turns_in_a_heartbeat() < MAX_TURNS
    reader = Peer(server)
    pump([reader], lambda: reader.ended, rng)
    assert len(reader.incoming) == sent


def test_an_idle_session_owns_no_slab_and_an_idle_worker_hardly_turns(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, slabs=2)
    pairs = [proxy.pair(upstream) for _ in range(30)]
    for client, server in pairs:
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
    figures = proxy.figures()
    assert figures.sessions == 30
    assert figures.slabs_used == 0
    assert proxy.turns_in_a_heartbeat() < MAX_TURNS

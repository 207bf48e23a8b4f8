"""A session goes as fast as it may and no faster, each way for itself."""

import socket
from time import monotonic

import pytest

from tests.harness import Rig, receive, receive_all, reset

RATE = 100_000
MORE = 150_000  # than the second's worth that may go at once


@pytest.mark.parametrize("slabs", [2, 256])
@pytest.mark.parametrize("way", ["upload", "download"])
def test_the_long_run_is_held_to_the_rate(way: str, slabs: int, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address, slabs=slabs, slab_bytes=4096, listener={f"{way}_bytes_per_s": RATE}
    )
    client, server = proxy.pair(upstream)
    source, sink = (client, server) if way == "upload" else (server, client)
    data = bytes(range(256)) * ((RATE + MORE) // 256)
    began = monotonic()
    source.sendall(data)
    source.shutdown(socket.SHUT_WR)
    assert receive_all(sink) == data
    assert monotonic() - began >= (len(data) - RATE) / RATE - 0.1  # a tick's grace
    other = b"the other way is free" * 20_000
    sink.sendall(other)
    sink.close()
    assert receive_all(source) == other


def test_what_one_second_brings_goes_at_once_and_again_after_a_pause(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"upload_bytes_per_s": 1 << 30})
    client, server = proxy.pair(upstream)
    for _ in range(3):
        client.sendall(bytes(1 << 20))
        assert len(receive(server, 1 << 20)) == 1 << 20


def test_a_very_low_rate_moves_on_all_the_same(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"download_bytes_per_s": 5})
    client, server = proxy.pair(upstream)
    server.sendall(b"seven..")
    assert receive(client, 7) == b"seven.."


def test_a_session_that_is_held_does_not_keep_the_loop_busy(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"upload_bytes_per_s": 1000})
    client, server = proxy.pair(upstream)
    client.sendall(bytes(100_000))
    assert len(receive(server, 1000)) == 1000
    assert proxy.turns_in_a_heartbeat() < 100


def test_a_session_that_is_held_hears_of_resets_and_leaves_nothing(rig: Rig) -> None:
    upstream = rig.upstream()
    both = {"upload_bytes_per_s": 1000, "download_bytes_per_s": 1000}
    proxy = rig.proxy(upstream.address, listener=both)
    before = proxy.fds()
    for _ in range(5):
        client, server = proxy.pair(upstream)
        client.sendall(bytes(10_000))
        server.sendall(bytes(10_000))
        assert len(receive(server, 1000)) == 1000
        reset(client)
        with pytest.raises(ConnectionResetError):
            receive_all(server)
        server.close()
    proxy.closed_for("client_reset", 5)
    assert proxy.fds() == before

"""A reset travels on as a reset, and takes nothing with it that had arrived before."""

import errno
import random
import socket

import pytest

from tests.harness import Peer, Rig, fill, parked, pump, receive, receive_all, reset, wait_until

STREAM_BYTES = 64 << 20  # more than any socket buffers on the way hold


def socket_error(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_a_client_reset_reaches_the_server_as_a_reset(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    reset(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    proxy.closed_for("client_reset")


def test_a_server_reset_reaches_the_client_as_a_reset(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.closed_for("server_reset")


def test_a_reset_after_half_close_is_still_a_reset(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    reset(client)
    # After the end of the stream a reset is EPIPE (tcp_reset in net/ipv4/tcp_input.c).
    assert wait_until(lambda: socket_error(server), "a reset") == errno.EPIPE
    proxy.closed_for("client_reset")


@pytest.mark.parametrize("unread_bytes", [2, 20_000, STREAM_BYTES])
@pytest.mark.parametrize(("slab_bytes", "answer_bytes"), [(64, 500), (65_536, 20_000)])
def test_an_early_answer_reaches_the_client_although_the_server_left_bytes_unread(
    slab_bytes: int, answer_bytes: int, unread_bytes: int, rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, slab_bytes=slab_bytes)
    client, server = proxy.pair(upstream)
    if unread_bytes == STREAM_BYTES:
        fill(client, bytes(STREAM_BYTES))
    else:
        client.sendall(bytes(unread_bytes))
    assert server.recv(1) == b"\0"  # more has come, or is on its way
    answer = rng.randbytes(answer_bytes)
    server.sendall(answer)
    server.close()  # with unread bytes: the kernel resets
    assert receive(client, len(answer)) == answer
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.closed_for("server_reset")


def test_an_early_answer_that_a_slow_client_has_not_taken_yet_is_not_thrown_away(
    rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream, receive_buffer=4096)
    client.sendall(b"xx")
    assert server.recv(1) == b"x"
    answer = rng.randbytes(50_000)
    server.sendall(answer)
    proxy.figures_when(
        lambda f: f.listeners[0].bytes[1] == len(answer) and not parked(f),
        "the answer is in the kernel's hands, on its way to the client",
    )
    server.close()  # with an unread byte: the kernel resets
    assert receive(client, len(answer)) == answer


def test_a_server_that_answers_and_closes_while_the_client_still_sends_is_heard(
    rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    answer = rng.randbytes(10_000)
    server.sendall(answer)
    server.close()  # cleanly: the reset comes with the client's next bytes
    assert receive(client, len(answer)) == answer
    peer = Peer(client, bytes(STREAM_BYTES))
    with pytest.raises(ConnectionError):
        pump([peer], lambda: not peer.outgoing, rng)
    proxy.closed_for("server_reset")


def test_a_paused_client_that_resets_ends_the_session_at_once(rig: Rig) -> None:
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    fill(client, bytes(STREAM_BYTES))
    assert parked(proxy.figures()) == 1
    reset(client)
    proxy.closed_for("client_reset")
    with pytest.raises(ConnectionResetError):
        receive_all(server)


def test_a_slow_client_gets_what_the_server_sent_before_it_reset_and_then_the_reset(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, buffer_bytes=4096)
    client, server = proxy.pair(upstream, receive_buffer=4096)
    fill(server, bytes(STREAM_BYTES))
    assert parked(proxy.figures()) == 1
    passed = proxy.figures().listeners[0].bytes[1]
    reset(server)
    assert receive(client, passed) == bytes(passed)
    with pytest.raises(ConnectionResetError):
        receive_all(client)
    proxy.closed_for("server_reset")


def test_a_client_that_does_not_read_holds_a_reset_session_no_longer_than_a_fin_timeout(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"client_fin_timeout_s": 0.5}, buffer_bytes=4096)
    client, server = proxy.pair(upstream, receive_buffer=4096)
    fill(server, bytes(STREAM_BYTES))
    reset(server)
    proxy.closed_for("server_reset")
    with pytest.raises(ConnectionResetError):
        receive_all(client)


def test_a_client_reset_with_both_directions_blocked_ends_the_session_at_once(rig: Rig) -> None:
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = rig.proxy(upstream.address, buffer_bytes=4096)
    client, server = proxy.pair(upstream, receive_buffer=4096)
    fill(client, bytes(STREAM_BYTES))
    fill(server, bytes(STREAM_BYTES))
    reset(client)
    proxy.closed_for("client_reset")


def test_a_reset_while_the_server_is_being_dialled_passes_on_or_ends_there(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(rig.refused_address(), upstream.address)
    for _ in range(20):
        reset(proxy.connect())
    figures = proxy.figures_when(
        lambda f: f.listeners[0].accepted > 0 and not f.sessions, "all sessions have ended"
    )
    closed = {reason for reason, count in figures.listeners[0].closed.items() if count}
    assert closed <= {"client_reset"}


@pytest.mark.parametrize("first", ["client", "server"])
def test_resets_from_both_sides_end_a_blocked_session_at_once(first: str, rig: Rig) -> None:
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = rig.proxy(upstream.address, buffer_bytes=4096)
    client, server = proxy.pair(upstream, receive_buffer=4096)
    fill(client, bytes(STREAM_BYTES))
    fill(server, bytes(STREAM_BYTES))
    for sock in (client, server) if first == "client" else (server, client):
        reset(sock)
    figures = proxy.figures_when(lambda f: not f.sessions, "the session has ended")
    assert not parked(figures)

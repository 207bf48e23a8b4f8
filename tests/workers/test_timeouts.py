"""Each silence has its limit, and each limit its reason."""

import socket
from time import monotonic

from tests.harness import Rig, Upstream, fill, is_silent, receive

LONG_S = 3600.0


def full_backlog(rig: Rig, upstream: Upstream) -> None:
    """Connect to a server that accepts nobody, until its kernel drops the next SYN."""
    while True:
        sock = rig.own(socket.socket(upstream.sock.family, socket.SOCK_STREAM))
        sock.settimeout(0.3)
        try:
            sock.connect(upstream.sock.getsockname())
        except TimeoutError:
            return


def test_an_idle_session_ends_and_not_before_its_time(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"idle_timeout_s": 0.5})
    before = monotonic()
    client, server = proxy.pair(upstream)
    assert client.recv(1) == b""
    assert server.recv(1) == b""
    assert monotonic() - before >= 0.5
    proxy.closed_for("idle_timeout")


def test_traffic_in_one_direction_keeps_a_session_alive_past_its_idle_timeout(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"idle_timeout_s": 1.0})
    client, server = proxy.pair(upstream)
    until = monotonic() + 2.5
    while monotonic() < until:
        server.sendall(b".")
        assert receive(client, 1) == b"."
        assert is_silent(client, 0.2)
    assert proxy.figures().sessions == 1
    assert client.recv(1) == b""
    proxy.closed_for("idle_timeout")


def test_a_blocked_session_is_idle_too_and_gives_its_slab_back(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"idle_timeout_s": 1.5})
    client, _server = proxy.pair(upstream)
    fill(client, bytes(64 << 20))
    assert proxy.closed_for("idle_timeout").slabs_used == 0


def test_without_an_idle_timeout_a_silent_session_stays(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"idle_timeout_s": 0.0})
    client, server = proxy.pair(upstream)
    assert is_silent(client, 0.5)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"


def test_a_client_that_stays_silent_after_the_servers_end_is_closed(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address, listener={"client_fin_timeout_s": 0.5, "idle_timeout_s": LONG_S}
    )
    client, server = proxy.pair(upstream)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    assert server.recv(1) == b""
    proxy.closed_for("client_fin_timeout")


def test_a_server_that_stays_silent_after_the_clients_end_is_closed(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address,
        listener={"idle_timeout_s": LONG_S, "client_fin_timeout_s": LONG_S},
        backend={"server_fin_timeout_s": 0.5},
    )
    client, server = proxy.pair(upstream)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    assert client.recv(1) == b""
    proxy.closed_for("server_fin_timeout")


def test_a_server_that_does_not_answer_the_handshake_is_given_up(rig: Rig) -> None:
    upstream = rig.upstream(backlog=0)
    full_backlog(rig, upstream)
    proxy = rig.proxy(upstream.address, backend={"connect_timeout_s": 0.5})
    before = monotonic()
    client = proxy.connect()
    assert client.recv(1) == b""
    assert monotonic() - before >= 0.5
    assert proxy.closed_for("connect_timeout").servers[0].connect_errors == {"ETIMEDOUT": 1}


def test_after_a_server_that_does_not_answer_the_next_one_is_tried(rig: Rig) -> None:
    silent, upstream = rig.upstream(backlog=0), rig.upstream()
    full_backlog(rig, silent)
    proxy = rig.proxy(silent.address, upstream.address, backend={"connect_timeout_s": 0.3})
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    figures = proxy.figures()
    assert [server.connections for server in figures.servers] == [0, 1]


def test_a_unix_server_whose_backlog_is_full_is_given_up_in_time_and_counted(rig: Rig) -> None:
    upstream = rig.upstream("unix", backlog=0)
    rig.own(socket.socket(socket.AF_UNIX)).connect(upstream.sock.getsockname())
    proxy = rig.proxy(upstream.address, backend={"connect_timeout_s": 0.5})
    client = proxy.connect()
    assert client.recv(1) == b""
    figures = proxy.closed_for("connect_timeout")
    assert sum(figures.servers[0].connect_errors.values()) == 1


def test_a_unix_server_whose_backlog_is_full_is_waited_for(rig: Rig) -> None:
    upstream = rig.upstream("unix", backlog=0)
    rig.own(socket.socket(socket.AF_UNIX)).connect(upstream.sock.getsockname())
    proxy = rig.proxy(upstream.address)
    client = proxy.connect()
    client.sendall(b"patience")
    assert is_silent(client, 0.3)
    upstream.accept()
    assert receive(upstream.accept(), 8) == b"patience"

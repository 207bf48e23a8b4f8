"""Limits of sessions in one worker: exact, in order, and what is refused is counted by reason."""

import socket

import pytest

from aegis.messages import listener_limit
from tests.harness import Proxy, Rig, is_silent, receive, receive_all
from tests.workers.test_proxy_header import TRUSTED


def bring(proxy: Proxy, count: int, source: str = "") -> list[socket.socket]:
    return [proxy.connect(source=source) for _ in range(count)]


def refused(clients: list[socket.socket]) -> list[socket.socket]:
    """Return those that hear an end at once; the others are silent."""
    return [client for client in clients if not is_silent(client, 0.2)]


@pytest.mark.parametrize("whole", [True, False])
def test_so_many_sessions_and_no_more(whole: bool, rig: Rig) -> None:
    upstream = rig.upstream()
    if whole:
        proxy = rig.proxy(upstream.address, max_sessions=5)
    else:
        proxy = rig.proxy(upstream.address, listener={"max_sessions": 5})
    clients = bring(proxy, 12)
    servers = [upstream.accept() for _ in range(5)]
    assert is_silent(upstream.sock, 0.1)
    gone = refused(clients)
    assert len(gone) == 7
    for client in gone:
        assert receive_all(client) == b""
        client.close()
    reason = "total_limit" if whole else "listener_limit"
    figures = proxy.figures_when(lambda f: f.sessions == 5, "the others have gone")
    assert figures.listeners[0].closed[reason] == 7
    (mine,) = figures.limits
    assert (mine.name, mine.open) == (listener_limit("" if whole else "front"), 5)
    next(client for client in clients if client not in gone).close()
    servers[0].close()
    servers[1].close()
    proxy.figures_when(lambda f: f.sessions < 5, "one has left")
    proxy.pair(upstream)


def test_a_place_is_given_on_only_when_the_server_s_connection_is_closed(rig: Rig) -> None:
    """With a server that takes two connections, a third would be one too many."""
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"max_sessions": 2})
    for _ in range(50):
        one, two = proxy.pair(upstream), proxy.pair(upstream)
        for client, server in (one, two):
            client.close()
            assert receive_all(server) == b""
            server.close()
        proxy.figures_when(lambda f: not f.sessions and not f.limits[0].open, "both have gone")


def test_both_limits_count_and_each_has_its_reason(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"max_sessions": 3}, max_sessions=2)
    clients = bring(proxy, 4)
    assert len(refused(clients)) == 2
    figures = proxy.figures()
    assert figures.listeners[0].closed["total_limit"] == 2
    assert [(f.name, f.open) for f in figures.limits] == [
        (listener_limit(), 2),
        (listener_limit("front"), 2),
    ]


def test_one_address_has_its_own_limit(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener={"max_sessions_per_client": 2})
    hosts = ("127.0.0.2", "127.0.0.3")
    clients = {host: bring(proxy, 4, host) for host in hosts}
    assert [len(refused(clients[host])) for host in hosts] == [2, 2]
    assert proxy.figures().listeners[0].closed["client_limit"] == 4
    for client in (*clients["127.0.0.2"], *clients["127.0.0.3"]):
        client.close()
    for _ in range(4):
        upstream.accept().close()
    proxy.figures_when(lambda f: f.sessions == 0, "all have gone")
    assert is_silent(proxy.connect(source="127.0.0.2"), 0.2)


def test_one_address_may_come_only_so_often(rig: Rig) -> None:
    upstream = rig.upstream()
    slow = {"accept_rate_per_client": 0.001, "accept_burst_per_client": 3, "protocol": "resp"}
    proxy = rig.proxy(upstream.address, listener=slow)
    for _ in range(3):
        client, server = proxy.pair(upstream)
        client.close()
        server.close()
    client = proxy.connect()
    assert receive_all(client) == b"-ERR aegis: client_rate\r\n"
    client.close()
    figures = proxy.figures_when(lambda f: not f.sessions, "all have gone")
    assert figures.listeners[0].closed["client_rate"] == 1


def test_limits_go_by_the_address_that_a_header_says(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED | {"max_sessions_per_client": 1})
    clients = []
    for host in ("203.0.113.1", "203.0.113.1", "203.0.113.2"):
        client = proxy.connect()
        client.sendall(f"PROXY TCP4 {host} 10.0.0.1 1 2\r\n".encode())
        proxy.figures()
        clients.append(client)
    assert [is_silent(client, 0.2) for client in clients] == [True, False, True]


def test_a_tunnel_goes_on_counting_for_its_client(rig: Rig) -> None:
    """A shared session that becomes a plain one is the same client."""
    upstream = rig.upstream()
    front = {"protocol": "resp", "pooling": "multiplex", "max_sessions_per_client": 1}
    proxy = rig.proxy(upstream.address, listener=front)
    client = proxy.connect()
    client.sendall(b"MONITOR\r\n")
    server = upstream.accept()
    assert receive(server, 9) == b"MONITOR\r\n"
    server.sendall(b"+OK\r\n")
    assert receive(client, 5) == b"+OK\r\n"
    assert receive_all(proxy.connect()).startswith(b"-ERR")
    client.close()
    server.close()
    proxy.figures_when(lambda f: not f.sessions, "it has gone")
    other = proxy.connect()
    other.sendall(b"PING\r\n")
    assert receive(upstream.accept(), 6) == b"PING\r\n"


def test_whoever_is_refused_after_its_address_was_counted_is_not_counted(rig: Rig) -> None:
    upstream = rig.upstream()
    limits = {"max_sessions_per_client": 2, "max_sessions": 1}
    proxy = rig.proxy(upstream.address, listener=limits)
    one = proxy.pair(upstream)
    for _ in range(5):
        assert receive_all(proxy.connect()) == b""
    for sock in one:
        sock.close()
    proxy.figures_when(lambda f: not f.sessions, "it has gone")
    proxy.pair(upstream)
    assert proxy.figures().listeners[0].closed["client_limit"] == 0

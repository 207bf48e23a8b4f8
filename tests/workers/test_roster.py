"""Servers that appear, change their weight, are let go and are forgotten while a worker serves."""

import socket
from time import monotonic

from aegis.messages import ServerWish
from tests.faults.scripted import expect, sharing
from tests.harness import DEADLINE_S, Proxy, Rig, Upstream, is_silent, receive, receive_all, reset


def wish(upstream: Upstream, weight: int = 100, **more: object) -> ServerWish:
    return ServerWish(upstream.address, weight, **more)  # type: ignore[arg-type]


def opens_on(proxy: Proxy, upstream: Upstream) -> tuple[socket.socket, socket.socket]:
    """Open a session that must come to this server."""
    client, server = proxy.pair(upstream)
    client.sendall(b"hello")
    assert receive(server, 5) == b"hello"
    return client, server


def test_a_server_that_appears_gets_sessions_and_one_that_goes_keeps_those_it_has(
    rig: Rig,
) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = rig.proxy(first.address)
    client, server = opens_on(proxy, first)
    figures = proxy.want(wish(second))
    assert [row.address for row in figures.servers] == [first.address, second.address]
    for _ in range(3):
        opens_on(proxy, second)
    client.sendall(b"still here")
    assert receive(server, 10) == b"still here"
    client.close()
    assert receive_all(server) == b""
    server.close()
    proxy.figures_when(lambda f: len(f.servers) == 1, "the first server is forgotten")
    proxy.want(wish(first), wish(second, 0))
    opens_on(proxy, first)


def test_reply_times_of_a_server_are_forgotten_with_it(rig: Rig) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = sharing(rig, "line", first)
    client = proxy.connect()
    client.sendall(b"question\n")
    server = first.accept()
    expect(server, b"question\n")
    server.sendall(b"answer\n")
    expect(client, b"answer\n")
    assert list(proxy.figures().pools[0].reply_seconds) == [first.address]
    proxy.want(wish(second))
    figures = proxy.figures_when(lambda f: len(f.servers) == 1, "the first server is forgotten")
    assert not figures.pools[0].reply_seconds


def test_sessions_are_cut_at_the_instant_and_no_sooner(rig: Rig) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = rig.proxy(first.address)
    client, server = opens_on(proxy, first)
    at = monotonic() + 0.4
    proxy.want(wish(first, 0, cut_at=at), wish(second))
    assert receive_all(client) == b""
    assert monotonic() >= at
    assert receive_all(server) == b""
    proxy.closed_for("drain_deadline")
    assert proxy.figures().cut == 1
    opens_on(proxy, second)


def test_sessions_of_a_server_that_is_down_are_reset_and_are_no_cuts(rig: Rig) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = rig.proxy(first.address)
    client, server = opens_on(proxy, first)
    figures = proxy.want(wish(first, 0, cut_at=monotonic(), reset=True), wish(second))
    for sock in (client, server):
        try:
            assert sock.recv(1) != b"", "an end would look like a clean one"
        except ConnectionResetError:
            continue
    assert proxy.closed_for("server_down").cut == figures.cut == 0


def test_without_any_server_clients_are_closed_at_once(rig: Rig) -> None:
    proxy = rig.proxy()
    assert proxy.connect().recv(1) == b""
    proxy.closed_for("connect_failed")


def test_clients_that_come_before_the_servers_are_known_are_served_when_they_are(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(known=False)
    client = proxy.connect()
    client.sendall(b"hello")
    assert is_silent(client, 0.2)
    assert proxy.figures().backends[0].waiting == 1
    proxy.want(wish(upstream))
    assert receive(upstream.accept(), 5) == b"hello"


def test_a_share_of_a_servers_connections_is_kept_and_who_finds_no_room_waits(rig: Rig) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = rig.proxy(first.address, second.address)
    shares = {f"db/{first.address}": 1, f"db/{second.address}": 2}
    proxy.want(wish(first), wish(second), shares=shares)
    clients = [proxy.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    figures = proxy.figures_when(lambda f: f.backends[0].waiting == 2, "two wait")
    assert [server.connections for server in figures.servers] == [1, 2]
    server = first.accept()
    clients[int(receive(server, 1))].close()
    assert receive_all(server) == b""
    server.close()
    first.accept()
    figures = proxy.figures()
    assert [server.connections for server in figures.servers] == [1, 2]
    assert figures.backends[0].waiting == 1
    proxy.want(wish(first), wish(second), shares={f"db/{second.address}": 2})
    first.accept()  # it is not limited any more
    assert proxy.figures().backends[0].waiting == 0


def test_a_share_that_shrinks_takes_nobody_new_until_enough_have_left(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    pairs = [opens_on(proxy, upstream) for _ in range(3)]
    proxy.want(wish(upstream), shares={f"db/{upstream.address}": 1})
    waiting = proxy.connect()
    proxy.figures_when(lambda f: f.backends[0].waiting == 1, "one waits")
    for client, server in pairs:
        assert is_silent(waiting, 0.05)
        client.close()
        assert receive_all(server) == b""
        server.close()
    waiting.sendall(b"x")
    assert receive(upstream.accept(), 1) == b"x"


def test_spare_connections_to_a_server_that_is_let_go_are_closed(rig: Rig) -> None:
    first, second = rig.upstream(), rig.upstream()
    proxy = rig.proxy(first.address, listener={"pooling": "warm"}, backend={"pool_min": 2})
    spares = [first.accept(), first.accept()]
    proxy.figures_when(lambda f: f.pools[0].pipes["idle"] == 2, "two spares")
    proxy.want(wish(first, 0), wish(second))
    assert [receive_all(spare) for spare in spares] == [b"", b""]
    second.accept()
    second.accept()


def test_failures_in_a_row_end_with_the_servers_first_word(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    proxy.want(wish(upstream, observed=True))
    for failures in (1, 2):
        client, server = opens_on(proxy, upstream)
        reset(server)
        assert receive_reset(client)
        figures = proxy.figures()
        assert figures.servers[0].failures == {"server_reset": failures}
        assert figures.servers[0].failures_in_a_row == failures
    client, server = opens_on(proxy, upstream)
    assert proxy.figures().servers[0].failures_in_a_row == 2, "that it accepts says nothing"
    server.sendall(b"hi")
    assert receive(client, 2) == b"hi"
    figures = proxy.figures()
    assert figures.servers[0].failures_in_a_row == 0
    assert figures.servers[0].failures == {"server_reset": 2}
    server.sendall(b"more")
    assert receive(client, 4) == b"more"


def test_a_worker_tells_of_failures_at_once(rig: Rig) -> None:
    proxy = rig.proxy(rig.refused_address())
    proxy.figures()
    before = monotonic()
    assert proxy.connect().recv(1) == b""
    report = proxy.bus.report(
        proxy.worker.pid, lambda r: r.figures.servers[0].failures_in_a_row == 1, "a failure"
    )
    assert report.figures.servers[0].failures == {"connect": 1}
    assert monotonic() - before < DEADLINE_S


def receive_reset(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True

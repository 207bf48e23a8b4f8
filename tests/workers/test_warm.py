"""Pooling `warm`: connections opened ahead, each used once, for any protocol."""

import socket

from tests.harness import Proxy, Rig, Upstream, receive, wait_until


def warm(rig: Rig, upstream: Upstream, pool_min: int = 2, **backend: float) -> Proxy:
    return rig.proxy(
        upstream.address,
        listener={"pooling": "warm"},
        backend={"pool_min": pool_min, **backend},
    )


def idle(proxy: Proxy, count: int) -> None:
    proxy.figures_when(lambda f: f.pools[0].pipes["idle"] == count, f"{count} spare connections")


def test_a_client_is_paired_with_a_connection_opened_before_it_came(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream)
    spares = [upstream.accept(), upstream.accept()]
    idle(proxy, 2)
    client = proxy.connect()
    client.sendall(b"hello")
    assert receive(spares[0], 5) == b"hello"
    spares[0].sendall(b"world")
    assert receive(client, 5) == b"world"
    upstream.accept()  # in its place
    figures = proxy.figures_when(lambda f: f.pools[0].pipes["idle"] == 2, "a new spare")
    assert (figures.pools[0].hits, figures.pools[0].misses) == (1, 0)


def test_what_the_server_says_first_waits_for_the_client(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream, 1)
    spare = upstream.accept()
    spare.sendall(b"220 ready\r\n")
    idle(proxy, 1)
    assert receive(proxy.connect(), 11) == b"220 ready\r\n"


def test_a_spare_that_the_server_ends_is_replaced_and_given_to_nobody(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream, 1)
    spare = upstream.accept()
    idle(proxy, 1)
    spare.close()
    successor = upstream.accept()
    proxy.figures_when(
        lambda f: f.pools[0].losses == {"server_lost": 1} and f.pools[0].pipes["idle"] == 1,
        "a successor of the spare that has ended",
    )
    client = proxy.connect()
    client.sendall(b"x")
    assert receive(successor, 1) == b"x"


def test_without_a_spare_a_client_dials(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream, 1)
    clients = [proxy.connect() for _ in range(5)]
    for client in clients:
        client.sendall(b"x")
    served: list[socket.socket] = []
    while len(served) < 5:
        server = upstream.accept()
        server.settimeout(0.2)
        try:
            assert server.recv(1) == b"x"
        except TimeoutError:
            continue  # a spare
        served.append(server)
    figures = proxy.figures()
    assert figures.pools[0].hits + figures.pools[0].misses == 5


def test_spares_make_room_for_clients_within_max_connections(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address,
        listener={"pooling": "warm"},
        backend={"pool_min": 2, "max_connections": 2},
    )
    first, second = upstream.accept(), upstream.accept()
    idle(proxy, 2)
    one, two = proxy.connect(), proxy.connect()
    for client, server in ((one, first), (two, second)):
        client.sendall(b"x")
        assert receive(server, 1) == b"x"
    three = proxy.connect()
    proxy.figures_when(lambda f: f.backends[0].waiting == 1, "the third client to wait")
    one.close()
    assert first.recv(1) == b""
    first.close()
    three.sendall(b"y")
    assert receive(upstream.accept(), 1) == b"y"
    assert proxy.figures().backends[0].open == 2


def test_spares_that_are_old_are_replaced(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream, 1, max_idle_s=0.3)
    spare = upstream.accept()
    assert spare.recv(1) == b""
    upstream.accept()
    assert proxy.figures().pools[0].losses == {}


def test_a_server_that_is_away_is_tried_again(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    proxy = rig.proxy(f"127.0.0.1:{port}", listener={"pooling": "warm"}, backend={"pool_min": 1})
    proxy.figures_when(
        lambda f: f.servers[0].connect_errors.get("ECONNREFUSED", 0) >= 2, "two attempts"
    )
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(10)
        server.accept()[0].close()


def test_a_drain_closes_the_spares_and_serving_again_opens_them(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = warm(rig, upstream, 1)
    spare = upstream.accept()
    idle(proxy, 1)
    proxy.bus.publish("drained")
    proxy.await_phase("drained")
    assert spare.recv(1) == b""
    proxy.bus.publish("serving")
    upstream.accept()
    wait_until(lambda: proxy.figures().pools[0].pipes["idle"] == 1, "a spare")

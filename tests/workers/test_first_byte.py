"""A client that says nothing does not hold a connection for ever."""

import pytest

from tests.harness import Rig, is_silent, receive, receive_all
from tests.workers.test_proxy_header import HEADERS, TRUSTED

SOON = {"first_byte_timeout_s": 0.3}


@pytest.mark.parametrize("pooling", ["off", "warm"])
def test_a_silent_client_is_closed_although_its_server_has_spoken(pooling: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address, listener=SOON | {"pooling": pooling}, backend={"pool_min": 1}
    )
    if pooling == "warm":
        server = upstream.accept()
        proxy.figures_when(lambda f: f.pools[0].pipes.get("idle") == 1, "the spare is ready")
        client = proxy.connect()
    else:
        client, server = proxy.pair(upstream)
    server.sendall(b"a greeting")
    assert receive_all(client) == b"a greeting"
    client.close()
    proxy.closed_for("first_byte_timeout")
    assert receive_all(server) == b""


def test_a_client_that_has_said_a_byte_may_be_silent_then(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=SOON)
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"
    assert is_silent(client, 0.8)
    assert proxy.figures().listeners[0].bytes == [1, 0]


def test_a_silent_client_of_a_protocol_is_told_why(rig: Rig) -> None:
    upstream = rig.upstream()
    front = SOON | {"protocol": "resp", "pooling": "multiplex"}
    proxy = rig.proxy(upstream.address, listener=front)
    client = proxy.connect()
    assert receive_all(client) == b"-ERR aegis: first_byte_timeout\r\n"
    client.close()
    proxy.closed_for("first_byte_timeout")
    assert is_silent(upstream.sock, 0.05)


def test_half_a_request_is_a_byte(rig: Rig) -> None:
    front = SOON | {"protocol": "line", "pooling": "multiplex"}
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=front)
    client = proxy.connect()
    client.sendall(b"GE")
    assert is_silent(client, 0.8)
    client.sendall(b"T k\n")
    server = upstream.accept()
    assert receive(server, 6) == b"GET k\n"
    server.sendall(b"v\n")
    assert receive(client, 2) == b"v\n"


def test_a_header_is_not_what_the_client_says(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED | SOON)
    client = proxy.connect()
    client.sendall(HEADERS["v2"])
    with upstream.accept() as server:
        assert receive_all(server) == b""
    assert receive_all(client) == b""
    client.close()
    proxy.closed_for("first_byte_timeout")


def test_of_many_only_the_silent_are_closed(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=SOON)
    pairs = [proxy.pair(upstream) for _ in range(20)]
    for client, server in pairs[::2]:
        client.sendall(b"x")
        assert receive(server, 1) == b"x"
    for client, _ in pairs[1::2]:
        assert receive_all(client) == b""
        client.close()
    proxy.closed_for("first_byte_timeout", 10)
    assert proxy.figures().sessions == 10
    for client, server in pairs[::2]:
        client.close()
        server.close()

"""TLS clients go where the name in their hello leads, and TLS stays theirs and the server's."""

import contextlib
import socket
import ssl
from typing import Any

import pytest

from aegis.config_backend import Backend
from aegis.config_listener import SniRoute
from tests.aegis.test_client_hello import openssl_hello, records
from tests.certificates import Authority
from tests.harness import Proxy, Rig, Upstream, is_silent, receive, receive_all

NAMES = {
    "db1.example.org": "one",
    "DB1.Example.ORG": "one",
    "db2.example.org": "any",
    "deep.down.example.org": "any",
    "example.org": "default",
    "db1.example.com": "default",
    "xdb1.example.org": "any",
}


class Scene:
    """A proxy with three backends, and who listens behind each."""

    def __init__(self, rig: Rig, **listener: Any) -> None:
        self.servers: dict[str, Upstream] = {
            name: rig.upstream() for name in ("default", "one", "any")
        }
        routes = (
            SniRoute(name="db1.example.org", backend="one"),
            SniRoute(name="*.example.org", backend="any"),
        )
        pool_min = int(listener.get("pooling") == "warm")
        self.proxy: Proxy = rig.proxy(
            self.servers["default"].address,
            listener={"sni": routes, **listener},
            backend={"pool_min": pool_min},
            more_backends=tuple(
                Backend(name=name, servers=(self.servers[name].address,), pool_min=pool_min)
                for name in ("one", "any")
            ),
        )

    def accept(self, name: str) -> socket.socket:
        return self.servers[name].accept()


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_name_that_fits_leads_the_way(name: str, rig: Rig) -> None:
    scene = Scene(rig)
    hello = openssl_hello(name)
    client = scene.proxy.connect()
    client.sendall(hello)
    assert receive(scene.accept(NAMES[name]), len(hello)) == hello


@pytest.mark.parametrize(
    "said",
    [
        openssl_hello(None),
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\3\1\0\0",
        b"\x15\3\1\0\2\1\0",
    ],
    ids=["no name", "postgres", "http", "empty record", "alert"],
)
def test_who_asks_for_no_name_goes_to_the_default(said: bytes, rig: Rig) -> None:
    scene = Scene(rig)
    client = scene.proxy.connect()
    client.sendall(said)
    assert receive(scene.accept("default"), len(said)) == said


def test_a_hello_may_be_split_anywhere_and_lie_in_many_records(rig: Rig) -> None:
    scene = Scene(rig)
    whole = openssl_hello("db1.example.org")
    pieces = records(whole[5:], 50)
    for stream, cuts in ((whole, range(1, len(whole), 17)), (pieces, range(1, len(pieces), 41))):
        for cut in cuts:
            client = scene.proxy.connect()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(stream[:cut])
            scene.proxy.figures()  # the worker has had a turn in between
            client.sendall(stream[cut:])
            client.shutdown(socket.SHUT_WR)
            with scene.accept("one") as server:
                assert receive_all(server) == stream
            client.close()


def test_half_a_hello_does_not_keep_the_loop_busy(rig: Rig) -> None:
    scene = Scene(rig)
    hello = openssl_hello("db1.example.org")
    client = scene.proxy.connect()
    client.sendall(hello[:100])
    turns = scene.proxy.turns_in_a_heartbeat()
    assert turns < 60, "the bytes that are there are reported again and again"
    client.sendall(hello[100:])
    assert receive(scene.accept("one"), len(hello)) == hello


def test_half_a_hello_and_the_end_goes_to_the_default(rig: Rig) -> None:
    scene = Scene(rig)
    hello = openssl_hello("db1.example.org")
    client = scene.proxy.connect()
    client.sendall(hello[:100])
    client.shutdown(socket.SHUT_WR)
    assert receive_all(scene.accept("default")) == hello[:100]


def test_a_hello_that_does_not_come_is_not_waited_for_for_ever(rig: Rig) -> None:
    scene = Scene(rig, first_byte_timeout_s=0.3)
    client = scene.proxy.connect()
    client.sendall(openssl_hello("db1.example.org")[:100])
    with contextlib.suppress(ConnectionResetError):  # what it said was not read
        assert receive_all(client) == b""
    client.close()
    scene.proxy.closed_for("first_byte_timeout")
    assert all(is_silent(upstream.sock, 0.05) for upstream in scene.servers.values())


def test_the_handshake_is_the_client_s_and_the_server_s(rig: Rig) -> None:
    scene = Scene(rig)
    authority = Authority(rig.directory)
    context = authority.server_context(authority.issue("db1.example.org"))
    context.sni_callback = lambda sock, name, _: names.append(name)
    names: list[str | None] = []
    client = scene.proxy.connect()
    client.setblocking(False)
    theirs = authority.client_context().wrap_socket(
        client, server_hostname="db1.example.org", do_handshake_on_connect=False
    )
    with theirs:
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        server = scene.accept("one")
        server.setblocking(False)
        with context.wrap_socket(server, server_side=True, do_handshake_on_connect=False) as ours:
            shake_hands(theirs, ours)
            theirs.settimeout(20)
            ours.settimeout(20)
            ours.sendall(b"x" * 100_000)
            assert receive(theirs, 100_000) == b"x" * 100_000
            assert names == ["db1.example.org"]


def shake_hands(*ends: ssl.SSLSocket) -> None:
    left = set(ends)
    while left:
        for end in list(left):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                left.remove(end)


def test_each_route_has_its_own_connections_opened_ahead(rig: Rig) -> None:
    scene = Scene(rig, pooling="warm")
    spares = {name: scene.accept(name) for name in scene.servers}
    for name, backend in (("db1.example.org", "one"), ("a.example.org", "any"), ("x", "default")):
        hello = openssl_hello(name)
        client = scene.proxy.connect()
        client.sendall(hello)
        assert receive(spares[backend], len(hello)) == hello


def test_connections_are_counted_where_they_go(rig: Rig) -> None:
    scene = Scene(rig)
    hello = openssl_hello("db1.example.org")
    client = scene.proxy.connect()
    client.sendall(hello)
    assert receive(scene.accept("one"), len(hello)) == hello
    open_now = {f.address: f.connections for f in scene.proxy.figures().servers}
    assert open_now == {
        upstream.address: int(name == "one") for name, upstream in scene.servers.items()
    }

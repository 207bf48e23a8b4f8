"""Who may not come is told so, closed or dropped, as configured, and counted by reason."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.framers.registry import make_framer
from tests.harness import Kind, Rig, bound_socket, is_silent, receive_all, reset, wait_until
from workers.refusal import vanish

DENY_ALL = ("deny all",)


def has_net_admin() -> bool:
    """Whether a socket may be put into repair mode (TCP_REPAIR, linux/tcp.h)."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
        except PermissionError:
            return False
        return True


@pytest.mark.parametrize("protocol", ["line", "resp", "memcached", "http1"])
@pytest.mark.parametrize("pooling", ["off", "multiplex"])
def test_who_is_denied_is_told_so_in_its_protocol(protocol: str, pooling: str, rig: Rig) -> None:
    upstream = rig.upstream()
    front = {"access": DENY_ALL, "protocol": protocol, "pooling": pooling}
    proxy = rig.proxy(upstream.address, listener=front)
    client = proxy.connect()
    client.sendall(b"said before it was refused\r\n")
    words = make_framer(protocol).error("access_denied")
    assert receive_all(client) == words != b""
    client.close()
    proxy.closed_for("access_denied")


def test_a_client_that_is_told_and_does_not_go_is_closed_after_a_while(rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address, listener={"access": DENY_ALL, "protocol": "line"})
    client = proxy.connect()
    assert receive_all(client) == b"ERR access_denied\n"
    proxy.closed_for("access_denied")
    client.sendall(b"x")  # the first one finds out that nobody is there
    with pytest.raises(ConnectionError):
        wait_until(lambda: client.send(b"x") == 0, "a reset")


@pytest.mark.parametrize("front", [{"refusal": "error"}, {"refusal": "close", "protocol": "resp"}])
def test_a_close_is_an_end(front: dict[str, str], rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address, listener={"access": DENY_ALL, **front})
    assert receive_all(proxy.connect()) == b""
    proxy.closed_for("access_denied")


@pytest.mark.skipif(not has_net_admin(), reason="needs CAP_NET_ADMIN: run as root")
@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_who_is_dropped_hears_nothing_and_nothing_is_left_of_it(kind: Kind, rig: Rig) -> None:
    front = {"access": DENY_ALL, "refusal": "drop", "protocol": "line"}
    proxy = rig.proxy(rig.upstream().address, kind=kind, listener=front)
    before = proxy.fds()
    client = proxy.connect()
    proxy.closed_for("access_denied")
    assert proxy.fds() == before
    assert is_silent(client, 0.3)
    client.sendall(b"hello?")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody in particular for a while; whoever is so already stays it."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.mark.parametrize(
    ("kind", "level", "hops"),
    [
        ("tcp4", socket.IPPROTO_IP, socket.IP_TTL),
        ("tcp6", socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    ],
)
def test_without_the_capability_a_drop_is_a_reset_that_the_first_router_ends(
    kind: Kind, level: int, hops: int, tmp_path: Path
) -> None:
    """This client is nearer than that."""
    with bound_socket(kind, tmp_path) as listener:
        listener.listen()
        with socket.socket(listener.family) as client:
            client.connect(listener.getsockname())
            accepted = listener.accept()[0]
            with unprivileged():
                vanish(accepted)
            assert accepted.getsockopt(level, hops) == 1
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_client_of_a_unix_socket_cannot_be_dropped_and_is_closed(rig: Rig) -> None:
    front = {"access": ("deny unix:",), "refusal": "drop", "protocol": "line"}
    proxy = rig.proxy(rig.upstream("unix").address, kind="unix", listener=front)
    assert receive_all(proxy.connect()) == b""
    proxy.closed_for("access_denied")


def test_rules_go_by_the_client_s_address(rig: Rig) -> None:
    upstream = rig.upstream()
    rules = ("allow 127.0.0.2", "deny 127.0.0.0/29", "allow 127.0.0.9", "deny all")
    proxy = rig.proxy(upstream.address, listener={"access": rules})
    for host, welcome in (("127.0.0.2", True), ("127.0.0.3", False), ("127.0.0.9", True)):
        client = proxy.connect(source=host)
        if welcome:
            with upstream.accept() as server:
                server.sendall(b"hi")
            assert client.recv(2) == b"hi"
        else:
            assert receive_all(client) == b""
        client.close()
    assert receive_all(proxy.connect(source="127.0.0.10")) == b""
    figures = proxy.figures_when(lambda f: not f.sessions, "all have gone")
    closed = figures.listeners[0].closed
    assert closed["access_denied"] == 2
    assert figures.listeners[0].accepted == 4


def test_a_flood_of_the_denied_leaves_nothing_behind(rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address, listener={"access": DENY_ALL, "protocol": "resp"})
    before = proxy.fds()
    clients = [proxy.connect() for _ in range(400)]  # more than are told at a time
    told = sum(receive_all(client).startswith(b"-ERR") for client in clients)
    assert 256 <= told <= 400
    for client in clients:
        client.close()
    proxy.closed_for("access_denied", 400)
    assert proxy.fds() == before


def test_a_client_that_resets_while_it_is_told_is_gone(rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address, listener={"access": DENY_ALL, "protocol": "line"})
    before = proxy.fds()
    for _ in range(20):
        reset(proxy.connect())
    proxy.figures_when(lambda f: sum(f.listeners[0].closed.values()) == 20, "all have gone")
    assert proxy.fds() == before

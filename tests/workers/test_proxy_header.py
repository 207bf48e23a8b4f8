"""A client that says who it is: in any split, no byte lost, and only where it is believed."""

import contextlib
import socket
from typing import Any

import pytest

from aegis.config import Log
from aegis.proxy_protocol import Endpoints, build_v1, build_v2
from tests.harness import KINDS, Kind, Proxy, Rig, Upstream, is_silent, receive, receive_all

TRUSTED = {"proxy_protocol": "required", "trusted": ("127.0.0.1", "::1", "unix:")}
ENDS = Endpoints(("203.0.113.7", 4711), ("198.51.100.2", 6379))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TLVS = b"\x04\x00\x03abc" + b"\x02\x00\x0bexample.org" + b"\xee\x01\x00" + bytes(256)
HEADERS = {
    "v1": build_v1(ENDS),
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v2": build_v2(ENDS),
    "v2 with values": SIGNATURE
    + b"\x21\x11"
    + (12 + len(TLVS)).to_bytes(2, "big")
    + build_v2(ENDS)[16:]
    + TLVS,
    "v2 local": SIGNATURE + b"\x20\x00\x00\x00",
    "v2 local with bytes": SIGNATURE + b"\x20\x11\x00\x05" + b"PROXY",
}


def logged(rig: Rig, upstream: Upstream, **more: Any) -> Proxy:
    return rig.proxy(upstream.address, log=Log(sessions="-"), **more)


def said_by(proxy: Proxy, client: socket.socket) -> str:
    """Return whom the session log knows as the client, once its session has ended."""
    client.close()
    (record,) = proxy.bus.next_sessions()
    return record.client


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("header", HEADERS)
def test_what_follows_a_header_arrives_whole_and_the_log_knows_who_it_was(
    kind: Kind, header: str, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = logged(rig, upstream, kind=kind, listener=TRUSTED)
    client = proxy.connect()
    own = "unix" if kind == "unix" else "{}:{}".format(*client.getsockname())
    client.sendall(HEADERS[header] + b"PROXY is what I say")
    with upstream.accept() as server:
        assert receive(server, 19) == b"PROXY is what I say"
        server.sendall(b"well")
        assert receive(client, 4) == b"well"
    expected = own if "unknown" in header or "local" in header else "203.0.113.7:4711"
    assert said_by(proxy, client) == expected.replace("::1:", "[::1]:")


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_may_be_split_at_every_offset(header: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED)
    stream = HEADERS[header] + b"payload"
    turns = range(1, len(stream)) if len(stream) < 120 else (*range(1, 40), *range(40, 340, 23))
    for cut in turns:
        client = proxy.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(stream[:cut])
        proxy.figures()  # the worker has had a turn in between
        client.sendall(stream[cut:])
        with upstream.accept() as server:
            client.shutdown(socket.SHUT_WR)
            assert receive_all(server) == b"payload"
        client.close()
    proxy.closed_for("client_eof", len(turns))


def test_a_header_byte_by_byte_is_one(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED)
    client = proxy.connect()
    for byte in HEADERS["v1"] + b"payload":
        client.sendall(bytes([byte]))
        proxy.figures()
    with upstream.accept() as server:
        assert receive(server, 7) == b"payload"


def test_no_server_is_dialled_before_the_header_is_whole(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED)
    client = proxy.connect()
    client.sendall(HEADERS["v2"][:-1])
    assert is_silent(upstream.sock, 0.2)
    client.sendall(HEADERS["v2"][-1:])
    upstream.accept().sendall(b"a server that speaks first")
    assert receive(client, 26) == b"a server that speaks first"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "bad_proxy_header"),
        (SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12), "bad_proxy_header"),
        (b"PROXY TCP4 1.2", "client_reset"),
        (b"", "client_reset"),
    ],
)
def test_who_does_not_begin_with_a_header_is_refused(stream: bytes, reason: str, rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address, listener=TRUSTED)
    client = proxy.connect()
    client.sendall(stream)
    with contextlib.suppress(OSError):  # ENOTCONN: it has been refused already, with a reset
        client.shutdown(socket.SHUT_WR)
    try:
        assert receive_all(client) == b""
    except ConnectionResetError:
        assert reason == "bad_proxy_header", "its bytes were not read"
    client.close()
    proxy.closed_for(reason)


def test_a_header_of_a_client_that_is_not_trusted_is_not_even_read(rig: Rig) -> None:
    proxy = rig.proxy(
        rig.upstream().address,
        listener={"proxy_protocol": "required", "trusted": ("127.0.0.2",), "protocol": "line"},
    )
    client = proxy.connect()
    client.sendall(HEADERS["v1"] + b"PING\n")
    assert receive_all(client) == b"ERR untrusted_proxy\n"
    client.close()
    proxy.closed_for("untrusted_proxy")


def test_a_header_that_does_not_come_is_not_waited_for_for_ever(rig: Rig) -> None:
    front = TRUSTED | {"first_byte_timeout_s": 0.3, "protocol": "line"}
    proxy = rig.proxy(rig.upstream().address, listener=front)
    client = proxy.connect()
    client.sendall(b"PROXY TCP4 ")
    assert receive_all(client) == b"ERR first_byte_timeout\n"
    client.close()
    proxy.closed_for("first_byte_timeout")


def test_access_goes_by_the_address_that_the_header_says(rig: Rig) -> None:
    upstream = rig.upstream()
    rules = ("deny 203.0.113.0/24", "allow 127.0.0.0/8", "deny all")
    proxy = rig.proxy(upstream.address, listener=TRUSTED | {"access": rules, "protocol": "line"})
    for header, welcome in (("v1", False), ("v2 with values", False), ("v2 local", True)):
        client = proxy.connect()
        client.sendall(HEADERS[header])
        if welcome:
            upstream.accept().close()
            assert receive_all(client) == b""
        else:
            assert receive_all(client) == b"ERR access_denied\n"
        client.close()
    figures = proxy.figures_when(lambda f: not f.sessions, "all have gone")
    assert figures.listeners[0].closed["access_denied"] == 2


def test_requests_behind_a_header_are_shared_as_ever(rig: Rig) -> None:
    upstream = rig.upstream()
    front = TRUSTED | {"protocol": "line", "pooling": "multiplex"}
    proxy = rig.proxy(upstream.address, listener=front)
    clients = []
    for header in ("v1", "v2 with values"):
        clients.append(proxy.connect())
        clients[-1].sendall(HEADERS[header] + b"GET k\n")
    server = upstream.accept()
    assert receive(server, 12) == b"GET k\n" * 2
    server.sendall(b"one\ntwo\n")
    assert {receive(client, 4) for client in clients} == {b"one\n", b"two\n"}


def test_who_is_cut_is_named_by_the_header(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED)
    client = proxy.connect()
    client.sendall(HEADERS["v1"])
    upstream.accept()
    waiting = proxy.connect()
    waiting.sendall(b"PROXY")
    proxy.figures_when(lambda f: f.sessions == 2, "both are here")
    proxy.bus.publish("drained", timeout_s=0)
    report = proxy.await_phase("drained")
    assert sorted(cut.client for cut in report.cuts) == sorted(
        ["203.0.113.7:4711", "{}:{}".format(*waiting.getsockname())]
    )
    proxy.closed_for("drain_deadline", 2)

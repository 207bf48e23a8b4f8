"""The largest request and the deepest pipeline, exact in any split."""

import socket
from collections.abc import Callable
from functools import partial

import pytest

from aegis.framers.registry import make_framer
from tests.harness import Proxy, Rig, Upstream, is_silent, receive, receive_all, wait_until

LIMIT = 200


def line(size: int) -> bytes:
    return b"SET k ".ljust(size - 1, b"v") + b"\n"


def resp(size: int) -> bytes:
    """Return an inline command, or with more room an array."""
    if size < 60:
        return b"SET k ".ljust(size - 2, b"v") + b"\r\n"
    for length in range(size, 0, -1):
        request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (length, b"v" * length)
        if len(request) == size:
            return request
    raise AssertionError(size)


def memcached(size: int) -> bytes:
    for length in range(size, 0, -1):
        request = b"set k 0 0 %d\r\n%s\r\n" % (length, b"v" * length)
        if len(request) == size:
            return request
    raise AssertionError(size)


def http1(size: int) -> bytes:
    for length in range(size, 0, -1):
        head = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
        if len(head) + length == size:
            return head + b"v" * length
    raise AssertionError(size)


PROTOCOLS: dict[str, tuple[Callable[[int], bytes], bytes]] = {
    "line": (line, b"OK\n"),
    "resp": (resp, b"+OK\r\n"),
    "memcached": (memcached, b"STORED\r\n"),
    "http1": (http1, b"HTTP/1.1 204 No Content\r\n\r\n"),
}
POOLINGS = pytest.mark.parametrize("pooling", ["session", "multiplex"])


def limited(rig: Rig, address: str, protocol: str, pooling: str, slab_bytes: int = 65_536) -> Proxy:
    front = {"protocol": protocol, "pooling": pooling, "max_frame_bytes": LIMIT}
    return rig.proxy(address, listener=front, slab_bytes=slab_bytes)


def accept(upstream: Upstream, protocol: str) -> socket.socket:
    """Accept a pipe, and answer what it begins with."""
    server = upstream.accept()
    setup = make_framer(protocol).requests().setup
    if setup.replies:
        assert receive(server, len(setup.requests)) == setup.requests
        server.sendall(b"VERSION 1.6\r\n")
    return server


@pytest.mark.parametrize("protocol", PROTOCOLS)
@POOLINGS
@pytest.mark.parametrize("slab_bytes", [128, 65_536])
def test_a_request_of_the_limit_passes_and_one_byte_more_does_not(
    protocol: str, pooling: str, slab_bytes: int, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = limited(rig, upstream.address, protocol, pooling, slab_bytes=slab_bytes)
    make, reply = PROTOCOLS[protocol]
    client = proxy.connect()
    client.sendall(make(LIMIT))
    server = accept(upstream, protocol)
    assert receive(server, LIMIT) == make(LIMIT)
    server.sendall(reply)
    assert receive(client, len(reply)) == reply
    client.sendall(make(LIMIT + 1))
    assert receive_all(client) == make_framer(protocol).error("frame_too_large")
    client.close()
    proxy.closed_for("frame_too_large")
    # A line has no length, so one that is longer than a slab has begun to go when it is too long.
    assert is_silent(server, 0.1) or len(receive_all(server)) <= LIMIT


@pytest.mark.parametrize("protocol", ["line", "resp", "memcached"])
def test_small_requests_in_one_read_are_each_held_to_the_limit(protocol: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = limited(rig, upstream.address, protocol, "multiplex")
    make, reply = PROTOCOLS[protocol]
    sizes = [50, LIMIT, 60, LIMIT - 1, 70] * 3
    client = proxy.connect()
    requests = b"".join(make(size) for size in sizes)
    client.sendall(requests + make(LIMIT + 1) + make(50))
    server = accept(upstream, protocol)
    assert receive(server, len(requests)) == requests
    assert is_silent(client, 0.1), "its error has its turn, behind the replies that are due"
    server.sendall(reply * len(sizes))
    expected = reply * len(sizes) + make_framer(protocol).error("frame_too_large")
    assert receive_all(client) == expected
    client.close()
    proxy.closed_for("frame_too_large")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_byte_by_byte_it_is_the_same(protocol: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = limited(rig, upstream.address, protocol, "multiplex")
    make, reply = PROTOCOLS[protocol]
    client = proxy.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in make(LIMIT):
        client.send(bytes([byte]))
    server = accept(upstream, protocol)
    assert receive(server, LIMIT) == make(LIMIT)
    server.sendall(reply)
    assert receive(client, len(reply)) == reply
    for byte in make(LIMIT + 1)[:-1]:
        client.send(bytes([byte]))
    client.send(b"\n")
    assert receive_all(client) == make_framer(protocol).error("frame_too_large")


def test_what_is_announced_is_refused_before_it_comes(rig: Rig) -> None:
    proxy = limited(rig, rig.upstream().address, "resp", "multiplex")
    client = proxy.connect()
    client.sendall(b"*2\r\n$3\r\nGET\r\n$1000\r\n")
    assert receive_all(client) == b"-ERR aegis: frame_too_large\r\n"


def test_chunks_that_have_no_length_are_counted(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = limited(rig, upstream.address, "http1", "multiplex", slab_bytes=64)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for count, whole in ((10, True), (40, False)):
        client = proxy.connect()
        request = head + b"3\r\nabc\r\n" * count + b"0\r\n\r\n"
        assert (len(request) <= LIMIT) is whole
        client.sendall(request)
        if whole:
            with upstream.accept() as server:
                assert receive(server, len(request)) == request
                server.sendall(PROTOCOLS["http1"][1])
                assert receive(client, 27) == PROTOCOLS["http1"][1]
        else:
            assert receive_all(client) == make_framer("http1").error("frame_too_large")
        client.close()
    figures = proxy.figures_when(lambda f: not f.sessions, "both have gone")
    assert figures.listeners[0].closed["frame_too_large"] == 1


def test_a_close_says_nothing(rig: Rig) -> None:
    front = {
        "protocol": "line", "pooling": "multiplex", "max_frame_bytes": 20, "refusal": "close",
    }  # fmt: skip
    proxy = rig.proxy(rig.upstream().address, listener=front)
    client = proxy.connect()
    client.sendall(line(30))
    assert receive_all(client) == b""
    client.close()
    proxy.closed_for("frame_too_large")


def has_read(proxy: Proxy, count: int) -> bool:
    return proxy.figures().listeners[0].bytes[0] == count


def test_a_client_may_be_owed_so_many_replies_and_is_read_no_further(rig: Rig) -> None:
    upstream = rig.upstream()
    front = {"protocol": "line", "pooling": "multiplex", "max_pipelined": 3}
    proxy = rig.proxy(upstream.address, listener=front)
    client = proxy.connect()
    client.sendall(b"PING\n")
    server = upstream.accept()
    assert receive(server, 5) == b"PING\n"
    server.sendall(b"PONG\n")
    assert receive(client, 5) == b"PONG\n"
    for count in range(1, 5):  # one read each: what comes in one read goes on whole
        client.sendall(b"GET k\n")
        wait_until(partial(has_read, proxy, 5 + 6 * count), "it has read it")
    client.sendall(b"GET k\n" * 6)
    assert receive(server, 18) == b"GET k\n" * 3
    assert is_silent(server, 0.2)
    assert has_read(proxy, 29), "read no further than the fourth"
    server.sendall(b"v\n")
    assert receive(server, 6) == b"GET k\n"
    server.sendall(b"v\n")
    assert receive(server, 36) == b"GET k\n" * 6
    server.sendall(b"v\n" * 8)
    assert receive(client, 20) == b"v\n" * 10

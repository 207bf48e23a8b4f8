"""A pipe that a client of http1 had alone: others have it as it is, if nothing is left on it."""

import socket

import pytest

from tests.faults.scripted import expect, expect_end, get, page, sharing
from tests.harness import Proxy, Rig, Upstream

UPGRADE = get("/", "Connection: upgrade", "Upgrade: echo")
CONNECT = b"CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n"
PURGE = get("/x", method="PURGE")
CONTENT = get("/x", "Content-Length: 5") + b"GET /"
CHUNKED = get("/x", "Transfer-Encoding: chunked", method="DELETE") + b"1\r\nx\r\n0\r\n\r\n"
BOUND = get("/x", "Authorization: NTLM TlRM")
UPGRADE_WITH_CONTENT = get("/", "Upgrade: h2c", "Content-Length: 2") + b"GE"
LONG_GET = get("/x", "Content-Length: 300000") + b"x" * 300_000
EXPECTING = get("/x", "Content-Length: 5", "Expect: 100-continue", method="PUT")
REFUSED = page(b"no", status="404 Not Found")
POOLINGS = pytest.mark.parametrize("pooling", ["multiplex", "session"])


def answered(proxy: Proxy, upstream: Upstream, request: bytes) -> socket.socket:
    """Let a client ask and leave when it has been answered; returns the pipe."""
    client = proxy.connect()
    client.sendall(request)
    server = upstream.accept()
    expect(server, request)
    server.sendall(REFUSED)
    expect(client, REFUSED)
    client.close()
    return server


def serves(proxy: Proxy, server: socket.socket) -> None:
    """Let another client ask, on this pipe."""
    with proxy.connect() as other:
        other.sendall(get("/other"))
        expect(server, get("/other"))
        server.sendall(page(b"other"))
        expect(other, page(b"other"))


@POOLINGS
@pytest.mark.parametrize(
    "request_", [UPGRADE, CONNECT, PURGE], ids=["upgrade", "connect", "method"]
)
def test_after_its_only_reply_the_pipe_is_anybodys(rig: Rig, pooling: str, request_: bytes) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, pooling=pooling)
    server = answered(proxy, upstream, request_)
    serves(proxy, server)
    assert proxy.figures().pools[0].opened == 1


@POOLINGS
@pytest.mark.parametrize(
    "request_",
    [CONTENT, CHUNKED, BOUND, UPGRADE_WITH_CONTENT, LONG_GET],
    ids=["content", "chunked", "authentication", "upgrade with content", "long"],
)
def test_a_pipe_that_may_keep_something_is_closed(rig: Rig, pooling: str, request_: bytes) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, pooling=pooling)
    expect_end(answered(proxy, upstream, request_))
    with proxy.connect() as other:
        other.sendall(get("/other"))
        serves_now = upstream.accept()
        expect(serves_now, get("/other"))
        serves_now.sendall(page(b"other"))
        expect(other, page(b"other"))


@POOLINGS
def test_a_request_answered_before_its_end_takes_its_pipe_with_it(rig: Rig, pooling: str) -> None:
    """A server that does not read the rest as a body reads it as a request."""
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, pooling=pooling)
    client = proxy.connect()
    client.sendall(EXPECTING)
    server = upstream.accept()
    expect(server, EXPECTING)
    server.sendall(REFUSED)
    expect(client, REFUSED)
    client.sendall(b"hello")
    expect(server, b"hello")
    client.close()
    expect_end(server)
    with proxy.connect() as other:
        other.sendall(get("/other"))
        expect(upstream.accept(), get("/other"))


def test_a_session_keeps_its_pipe_between_requests_and_leaves_it_clean(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, pooling="session")
    client, other = proxy.connect(), proxy.connect()
    client.sendall(get("/1") + get("/2", method="HEAD"))
    server = upstream.accept()
    expect(server, get("/1"))
    other.sendall(get("/other"))
    server.sendall(page(b"1"))
    expect(client, page(b"1"))
    expect(server, get("/2", method="HEAD"))  # the other waits: the pipe is the client's
    head = page(b"22").removesuffix(b"22")
    server.sendall(head)
    expect(client, head)
    client.close()
    expect(server, get("/other"))
    server.sendall(page(b"other"))
    expect(other, page(b"other"))


def test_a_client_that_leaves_a_session_without_its_reply_takes_the_pipe_along(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, pooling="session")
    client = proxy.connect()
    client.sendall(get("/1"))
    server = upstream.accept()
    expect(server, get("/1"))
    client.close()
    proxy.figures_when(lambda f: f.sessions <= 1, "the client's half to be seen")
    server.sendall(page(b"1"))  # to nobody, or to a pipe that is closed already
    with proxy.connect() as other:
        other.sendall(get("/other"))
        start = server.recv(1)
        pipe = server if start else upstream.accept()
        expect(pipe, get("/other")[len(start) :])
        pipe.sendall(page(b"other"))
        expect(other, page(b"other"))

"""A proxy whose servers are played by the test itself, word by word.

    client ─▶ worker ─▶ Upstream.accept(): the test reads exactly what must come and says what it
                        likes, in segments of its choice

Nothing here chooses by chance: whoever wants load and chance uses tests/faults/checker.py.
"""

import socket
from collections.abc import Iterable
from typing import Any

from tests.harness import Proxy, Rig, Upstream, receive


def words(*parts: str | bytes) -> bytes:
    """Write a RESP request."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw)


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Write an HTTP request without a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *fields, "", ""]
    return "\r\n".join(lines).encode()


def page(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """Write an HTTP response with a body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def sharing(
    rig: Rig,
    protocol: str,
    *upstreams: Upstream,
    pooling: str = "multiplex",
    listener: dict[str, Any] | None = None,
    backend: dict[str, Any] | None = None,
    buffer_bytes: int = 0,
    **config: Any,
) -> Proxy:
    """Start a worker whose clients share pipes to the scripted servers; one pipe unless told."""
    return rig.proxy(
        *(upstream.address for upstream in upstreams),
        listener={"protocol": protocol, "pooling": pooling, **(listener or {})},
        backend={"max_connections": 1, **(backend or {})},
        buffer_bytes=buffer_bytes,
        **config,
    )


def asked(rig: Rig) -> tuple[Upstream, Proxy, socket.socket, socket.socket]:
    """Have a client's `GET a` at a server of Redis; returns the upstream, proxy and both ends."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    return upstream, proxy, client, server


def expect(sock: socket.socket, what: bytes) -> None:
    """Read exactly these bytes."""
    assert receive(sock, len(what)) == what


def expect_end(sock: socket.socket) -> None:
    """Read the end of the stream, and nothing before it; a reset counts as an end."""
    try:
        assert sock.recv(4096) == b""
    except ConnectionResetError:
        return


def in_pieces(sock: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send each piece as a segment of its own (TCP_NODELAY)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        sock.sendall(piece)


def next_pipe(server: socket.socket, upstream: Upstream) -> socket.socket:
    """Return the pipe for others after a client that had one alone: reset, or a fresh one."""
    said = receive(server, len(words("RESET")))
    if not said:
        return upstream.accept()
    assert said == words("RESET")
    server.sendall(b"+RESET\r\n")
    return server


def transaction(client: socket.socket, upstream: Upstream) -> socket.socket:
    """Begin one; returns the pipe it is on."""
    client.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")
    return server

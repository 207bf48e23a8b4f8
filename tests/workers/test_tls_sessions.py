"""TLS at the listener, to the server, or both, for every way of pooling; peers are stock ssl."""

import contextlib
import random
import socket
import ssl
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from aegis.config_tls import BackendTls, ListenerTls
from aegis.messages import Desired
from tests.certificates import Authority, Pair
from tests.harness import (
    DEADLINE_S,
    Proxy,
    Rig,
    Upstream,
    is_silent,
    receive,
    receive_all,
    reset,
)

NAME = "db.example.org"
SIDES = pytest.mark.parametrize("sides", ["client", "server", "both"])
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


class Scene:
    """A proxy that speaks TLS on some of its sides, and peers that do as it does."""

    def __init__(self, rig: Rig, sides: str, **more: Any) -> None:
        self.rig = rig
        self.authority = Authority(rig.directory)
        self.pair: Pair = self.authority.issue(NAME)
        self.client_side = sides in {"client", "both"}
        self.server_side = sides in {"server", "both"}
        self.upstream: Upstream = rig.upstream(buffer_bytes=more.pop("buffer_bytes", 0))
        self.client_context = self.authority.client_context()
        self.server_context = self.authority.server_context(self.pair)
        listener, backend = dict(more.pop("listener", {})), dict(more.pop("backend", {}))
        if self.client_side:
            listener.setdefault(
                "tls", ListenerTls(certificate=self.pair.certificate, key=self.pair.key)
            )
        if self.server_side:
            backend.setdefault("tls", BackendTls(server_name=NAME, ca=self.authority.root))
        self.proxy: Proxy = rig.proxy(
            self.upstream.address, listener=listener, backend=backend, **more
        )

    def connect(self, **more: Any) -> socket.socket:
        """Connect a client; one that speaks TLS has shaken hands."""
        client = self.proxy.connect(**more)
        if self.client_side:
            client = self.rig.own(
                self.client_context.wrap_socket(
                    client, server_hostname=NAME, suppress_ragged_eofs=False
                )
            )
        return client

    def accept(self) -> socket.socket:
        """Accept what the worker has dialled; the worker shakes hands meanwhile."""
        server = self.upstream.accept()
        if self.server_side:
            server = self.rig.own(
                self.server_context.wrap_socket(
                    server, server_side=True, suppress_ragged_eofs=False
                )
            )
        return server

    def pair_up(self) -> tuple[socket.socket, socket.socket]:
        client = self.connect()
        return client, self.accept()


def end_writing(sock: socket.socket) -> None:
    """Say that all is said: close_notify without waiting for the peer's, or a FIN."""
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock._sslobj.shutdown()  # type: ignore[attr-defined]
        sock.settimeout(20)
    else:
        sock.shutdown(socket.SHUT_WR)


def rest_of(sock: socket.socket) -> bytes:
    """Return everything up to the end, which must be a clean one."""
    parts = bytearray()
    with contextlib.suppress(ssl.SSLZeroReturnError):  # what ours is called after end_writing
        while part := sock.recv(65_536):
            parts += part
    return bytes(parts)


def exchange(*talks: tuple[socket.socket, bytes, int]) -> list[bytes]:
    """Have each socket say all it has while it hears so many bytes; returns what each has heard.

    One thread: OpenSSL lets nobody read and write a connection in two.
    """
    socks = [sock for sock, _, _ in talks]
    unsaid = [memoryview(data) for _, data, _ in talks]
    heard = [bytearray() for _ in talks]
    give_up = monotonic() + DEADLINE_S
    for sock in socks:
        sock.setblocking(False)
    while any(unsaid) or any(len(h) < size for h, (_, _, size) in zip(heard, talks, strict=True)):
        assert monotonic() < give_up, [len(each) for each in heard]
        for i, (sock, _, size) in enumerate(talks):
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if unsaid[i]:
                    unsaid[i] = unsaid[i][sock.send(unsaid[i][:50_000]) :]
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                if len(heard[i]) < size:
                    part = sock.recv(min(50_000, size - len(heard[i])))
                    assert part, f"the end came after {len(heard[i])} bytes"
                    heard[i] += part
    for sock in socks:
        sock.settimeout(DEADLINE_S)
    return [bytes(each) for each in heard]


@SIDES
@VERSIONS
@pytest.mark.parametrize("pooling", ["off", "warm"])
def test_bytes_go_both_ways_and_both_ends_pass(
    sides: str, version: str, pooling: str, rig: Rig, rng: random.Random
) -> None:
    scene = Scene(rig, sides, listener={"pooling": pooling}, backend={"pool_min": 1})
    for context in (scene.client_context, scene.server_context):
        context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[
            version
        ]
    spare = scene.accept() if pooling == "warm" else None
    if spare is not None:
        scene.proxy.figures_when(lambda f: f.pools[0].pipes.get("idle") == 1, "the spare is ready")
    client = scene.connect()
    server = spare or scene.accept()
    up, down = rng.randbytes(700_000), rng.randbytes(700_000)
    heard = exchange((client, up, len(down)), (server, down, len(up)))
    assert heard == [down, up]
    end_writing(client)
    assert rest_of(server) == b""
    server.sendall(b"the last word")
    end_writing(server)
    assert rest_of(client) == b"the last word"
    scene.proxy.closed_for("client_eof")


@SIDES
@pytest.mark.parametrize("pooling", ["session", "multiplex"])
def test_requests_are_shared_and_replies_come_back(sides: str, pooling: str, rig: Rig) -> None:
    front = {"protocol": "line", "pooling": pooling}
    scene = Scene(rig, sides, listener=front, backend={"max_connections": 1})
    one, two = scene.connect(), scene.connect()
    one.sendall(b"GET a\n")
    server = scene.accept()
    assert receive(server, 6) == b"GET a\n"
    server.sendall(b"1\n")
    assert receive(one, 2) == b"1\n"
    if pooling == "session":
        one.close()
    two.sendall(b"GET b\n")
    assert receive(server, 6) == b"GET b\n"
    server.sendall(b"2\n")
    assert receive(two, 2) == b"2\n"
    assert is_silent(scene.upstream.sock, 0.1)


@SIDES
def test_a_large_reply_goes_through_tiny_slabs_to_a_client_that_reads_late(
    sides: str, rig: Rig, rng: random.Random
) -> None:
    """Records do not fit into a slab, and slabs run out: what is held back is told of."""
    scene = Scene(rig, sides, slab_bytes=512, slabs=2, buffer_bytes=4096)
    client, server = scene.pair_up()
    up, down = rng.randbytes(150_000), rng.randbytes(150_000)
    heard = exchange((client, up, len(down)), (server, down, len(up)))
    assert heard == [down, up]
    end_writing(client)
    assert rest_of(server) == b""
    end_writing(server)
    assert rest_of(client) == b""


@SIDES
def test_many_requests_go_through_tiny_slabs(sides: str, rig: Rig) -> None:
    front = {"protocol": "line", "pooling": "multiplex"}
    scene = Scene(rig, sides, listener=front, slab_bytes=64, slabs=2)
    client = scene.connect()
    requests = b"".join(b"GET key-%d\n" % i for i in range(300))
    client.sendall(requests)
    server = scene.accept()
    assert receive(server, len(requests)) == requests
    replies = b"".join(b"value-%d\n" % i for i in range(300))
    server.sendall(replies)
    assert receive(client, len(replies)) == replies


@pytest.mark.parametrize("front", [{}, {"protocol": "line", "pooling": "multiplex"}])
def test_a_client_that_is_cut_short_is_a_reset(front: dict[str, str], rig: Rig) -> None:
    scene = Scene(rig, "client", listener=front)
    client = scene.connect()
    client.sendall(b"GET a\n")
    server = scene.accept()
    assert receive(server, 6) == b"GET a\n"
    socket.socket.shutdown(client, socket.SHUT_WR)  # TCP ends, TLS does not
    if not front:
        with pytest.raises(ConnectionResetError):
            server.recv(1)
    scene.proxy.closed_for("client_reset")


def test_a_server_that_is_cut_short_is_a_reset_behind_its_last_byte(rig: Rig) -> None:
    scene = Scene(rig, "server")
    client, server = scene.pair_up()
    server.sendall(b"half of it")
    socket.socket.shutdown(server, socket.SHUT_WR)
    assert receive(client, 10) == b"half of it"
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    scene.proxy.closed_for("server_reset")


def test_a_reset_of_the_server_cuts_the_client_short(rig: Rig) -> None:
    scene = Scene(rig, "client")
    client, server = scene.pair_up()
    client.sendall(b"hello")
    assert receive(server, 5) == b"hello"
    reset(server)
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        client.recv(1)
    scene.proxy.closed_for("server_reset")


# --- handshakes ------------------------------------------------------------------------------


def test_a_client_certificate_is_asked_for_and_has_to_hold(rig: Rig) -> None:
    authority = Authority(rig.directory)
    pair = authority.issue(NAME)
    tls = ListenerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.root)
    scene = Scene(rig, "client", listener={"tls": tls})
    stranger = Authority(rig.directory)
    for own, welcome in (
        (authority.issue("me.example"), True),
        (stranger.issue("me.example"), False),
        (None, False),
    ):
        scene.client_context = authority.client_context(own)
        if welcome:
            client, server = scene.pair_up()
            server.sendall(b"hello")
            assert receive(client, 5) == b"hello"
            client.close()
            server.close()
            continue
        with pytest.raises((ssl.SSLError, ConnectionResetError)):  # it hears of it when it reads
            scene.connect().recv(1)
    figures = scene.proxy.figures_when(lambda f: not f.sessions, "all have gone")
    assert figures.listeners[0].closed["tls_failed"] == 2
    (tls_figures,) = figures.client_tls
    assert tls_figures.handshakes == 1
    assert set(tls_figures.errors) == {
        "CERTIFICATE_VERIFY_FAILED", "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST"), (b"", "EOF"), (b"PING\n" * 4, None)],
)
def test_who_does_not_speak_tls_is_refused_with_a_reason(
    said: bytes, reason: str | None, rig: Rig
) -> None:
    scene = Scene(rig, "client")
    client = scene.proxy.connect()
    client.sendall(said)
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        receive_all(client)  # an alert, perhaps
    client.close()
    figures = scene.proxy.closed_for("tls_failed")
    (tls,) = figures.client_tls
    assert sum(tls.errors.values()) == 1
    assert reason is None or tls.errors == {reason: 1}
    assert is_silent(scene.upstream.sock, 0.05), "no server was dialled for it"


def test_a_handshake_that_does_not_end_is_not_waited_for_for_ever(rig: Rig) -> None:
    scene = Scene(rig, "client", listener={"first_byte_timeout_s": 0.3})
    client = scene.proxy.connect()
    client.sendall(b"\x16\3\1")
    assert receive_all(client) == b""
    client.close()
    scene.proxy.closed_for("first_byte_timeout")


def test_a_certificate_of_a_server_has_to_hold_and_the_next_server_is_tried(rig: Rig) -> None:
    scene = Scene(rig, "server", backend={"balance": "first", "connect_attempts": 3})
    stranger = Authority(rig.directory)
    scene.server_context = stranger.server_context(stranger.issue(NAME))
    client = scene.proxy.connect()
    with pytest.raises(ssl.SSLError):
        scene.accept()
    assert receive_all(client) == b""
    figures = scene.proxy.closed_for("connect_failed")
    (server,) = figures.servers
    assert server.connect_errors == {"TLS_CERTIFICATE_VERIFY_FAILED": 1}
    (tls,) = figures.server_tls
    assert (tls.handshakes, tls.errors) == (0, {"CERTIFICATE_VERIFY_FAILED": 1})


def test_a_server_that_accepts_and_does_not_shake_hands_is_given_up(rig: Rig) -> None:
    scene = Scene(rig, "server", backend={"connect_timeout_s": 0.3, "connect_attempts": 1})
    client = scene.proxy.connect()
    with scene.upstream.accept() as silent:
        assert receive_all(client) == b""
        assert silent.recv(1) == b"\x16", "it was spoken to in TLS"
    scene.proxy.closed_for("connect_timeout")


def test_pipes_to_a_server_whose_certificate_does_not_hold_are_none(rig: Rig) -> None:
    front = {"protocol": "line", "pooling": "multiplex"}
    scene = Scene(rig, "server", listener=front)
    scene.server_context = scene.authority.server_context(scene.authority.issue("other.example"))
    client = scene.proxy.connect()
    client.sendall(b"GET a\n")
    with pytest.raises(ssl.SSLError):
        scene.accept()
    assert receive_all(client).startswith(b"ERR")
    client.close()
    scene.proxy.closed_for("connect_failed")


def test_the_address_is_verified_where_no_name_is_configured(rig: Rig) -> None:
    authority = Authority(rig.directory)
    scene = Scene(rig, "server", backend={"tls": BackendTls(ca=authority.root)})
    scene.server_context = authority.server_context(authority.issue("127.0.0.1"))
    client, server = scene.pair_up()
    server.sendall(b"hello")
    assert receive(client, 5) == b"hello"


def test_we_show_servers_a_certificate_if_we_have_one(rig: Rig) -> None:
    authority = Authority(rig.directory)
    own = authority.issue("proxy.example.org")
    tls = BackendTls(server_name=NAME, ca=authority.root, certificate=own.certificate, key=own.key)
    scene = Scene(rig, "server", backend={"tls": tls})
    scene.server_context = authority.server_context(authority.issue(NAME))
    scene.server_context.load_verify_locations(authority.root)
    scene.server_context.verify_mode = ssl.CERT_REQUIRED
    _, server = scene.pair_up()
    assert isinstance(server, ssl.SSLSocket)
    certificate = server.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", "proxy.example.org"),)


def test_certificates_are_exchanged_in_place_and_sessions_go_on(rig: Rig) -> None:
    scene = Scene(rig, "client")
    before, server = scene.pair_up()
    other = "renewed.example.org"
    scene.authority.renew(scene.pair, other)
    tell(scene.proxy, "1")
    client = scene.proxy.connect()
    client = rig.own(scene.client_context.wrap_socket(client, server_hostname=other))
    scene.upstream.accept().sendall(b"new")
    assert receive(client, 3) == b"new"
    before.sendall(b"still here")
    assert receive(server, 10) == b"still here"


def test_certificates_that_cannot_be_read_change_nothing(rig: Rig) -> None:
    scene = Scene(rig, "client")
    Path(scene.pair.key).write_text("junk")
    why = f"certificates stay as they were: {scene.pair.key}: no private key in PEM format"
    scene.proxy.expects(why)
    tell(scene.proxy, "1")
    client, server = scene.pair_up()
    server.sendall(b"as ever")
    assert receive(client, 7) == b"as ever"
    assert why in scene.proxy.worker.log()


def tell(proxy: Proxy, fingerprint: str) -> None:
    """Want the files read again."""
    desired = proxy.bus.desired
    proxy.bus.desired = Desired(
        controller=desired.controller,
        epoch=desired.epoch + 1,
        goal="serving",
        deadline=0.0,
        tls=fingerprint,
    )
    proxy.await_phase("serving")

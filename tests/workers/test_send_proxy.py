"""A server is told who the client is, before the client's first byte."""

import pytest

from aegis.proxy_protocol import Endpoints, HeaderParser, build_v1, build_v2
from tests.harness import KINDS, Kind, Rig, receive, receive_all
from tests.workers.test_proxy_header import HEADERS, TRUSTED

VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def parsed(header: bytes) -> HeaderParser:
    parser = HeaderParser()
    assert parser.feed(header) == len(header)
    assert parser.done
    return parser


@VERSIONS
@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_the_header_names_the_client_and_where_it_came(version: str, kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind=kind, backend={"send_proxy": version})
    client = proxy.connect()
    client.sendall(b"the first byte")
    with upstream.accept() as server:
        said = b""
        while not said.endswith(b"the first byte"):
            said += server.recv(1)
        ends = parsed(said.removesuffix(b"the first byte")).endpoints
        assert ends is not None
        assert ends.source == client.getsockname()[:2]
        assert ends.destination == client.getpeername()[:2]
        server.sendall(b"well")
        assert receive(client, 4) == b"well"


@VERSIONS
def test_it_is_said_although_the_client_says_nothing(version: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, backend={"send_proxy": version})
    client = proxy.connect()
    header = build(version, Endpoints(client.getsockname(), client.getpeername()))
    assert receive(upstream.accept(), len(header)) == header


def build(version: str, ends: Endpoints) -> bytes:
    return (build_v1 if version == "v1" else build_v2)(ends)


@VERSIONS
def test_a_client_of_a_unix_socket_is_not_known(version: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind="unix", backend={"send_proxy": version})
    client = proxy.connect()
    client.close()
    with upstream.accept() as server:
        assert parsed(receive_all(server)).endpoints is None


@VERSIONS
@pytest.mark.parametrize("header", ["v1", "v2 with values"])
def test_what_a_header_has_said_is_passed_on(version: str, header: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, listener=TRUSTED, backend={"send_proxy": version})
    client = proxy.connect()
    client.sendall(HEADERS[header])
    client.close()
    with upstream.accept() as server:
        ends = parsed(receive_all(server)).endpoints
    assert ends == (("203.0.113.7", 4711), ("198.51.100.2", 6379))


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_is_said_to_the_next_server_as_well(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    servers = (rig.refused_address(), upstream.address)
    proxy = rig.proxy(*servers, backend={"send_proxy": "v2", "balance": "first"})
    client = proxy.connect()
    client.sendall(b"hello")
    with upstream.accept() as server:
        assert receive(server, 33).endswith(b"hello")

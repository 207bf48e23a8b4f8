"""The exporter's HTTP server among clients that are slow, silent, many or rude."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from control.exporter.server import Server
from tests.harness import DEADLINE_S, bound_socket, receive_all, wait_until

BIG = b"x" * (32 << 20)  # more than the sockets' buffers take
START = Callable[..., Server]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    body = BIG if environ["PATH_INFO"] == "/big" else b"hello"
    if environ["PATH_INFO"] == "/fail":
        raise OSError("as if the client were gone")
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[START]:
    """Starts servers on loopback; after the test none of their threads is left."""
    threads = threading.active_count()
    with ExitStack() as own:

        def make(**limits: float) -> Server:
            sock = own.enter_context(bound_socket("tcp4", tmp_path))
            server = Server(sock, application, **limits)  # type: ignore[arg-type]
            own.callback(server.stop)
            server.start()
            return server

        yield make
    wait_until(lambda: threading.active_count() == threads, "the end of the server's threads")


@pytest.fixture
def connect() -> Iterator[Callable[[Server, bytes], socket.socket]]:
    """Opens clients that send something and are closed with the test."""
    with ExitStack() as own:

        def make(server: Server, sent: bytes) -> socket.socket:
            sock = own.enter_context(socket.socket())
            sock.settimeout(DEADLINE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(server.socket.getsockname())
            sock.sendall(sent)
            return sock

        yield make


CONNECT = Callable[[Server, bytes], socket.socket]
REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def is_cut(sock: socket.socket) -> bool:
    """Whether the server ends the connection; waits for it."""
    try:
        return receive_all(sock)[-5:] != b"hello"
    except ConnectionResetError:
        return True


def test_a_client_that_sends_half_a_request_is_cut_when_its_time_is_over(
    start: START, connect: CONNECT
) -> None:
    server = start(timeout_s=0.3)
    before = monotonic()
    assert is_cut(connect(server, REQUEST[:-2]))
    assert monotonic() - before >= 0.3


def test_sending_a_byte_now_and_then_buys_no_time(start: START, connect: CONNECT) -> None:
    server = start(timeout_s=0.3)
    client = connect(server, b"GET / HTTP/1.1\r\nX: ")

    def dripped_until_cut() -> bool:
        try:
            client.send(b"y")
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    wait_until(dripped_until_cut, "the end of a client that drips")


def test_a_client_that_does_not_read_is_cut_when_its_time_is_over(
    start: START, connect: CONNECT
) -> None:
    client = connect(start(timeout_s=0.3), REQUEST.replace(b"/", b"/big", 1))
    poll_end = wait_until(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "a reset")
    assert poll_end


def test_one_client_too_many_costs_the_oldest_its_place(start: START, connect: CONNECT) -> None:
    server = start(most=3)
    waiting = [connect(server, b"GET") for _ in range(3)]
    assert receive_all(connect(server, REQUEST)).endswith(b"hello")
    assert is_cut(waiting[0])
    for client in waiting[1:]:
        client.sendall(REQUEST[3:])
        assert receive_all(client).endswith(b"hello")


def test_however_many_hang_the_next_is_answered(start: START, connect: CONNECT) -> None:
    server = start(most=5)
    for _ in range(50):
        connect(server, b"GET / HT")
    assert receive_all(connect(server, REQUEST)).endswith(b"hello")
    assert threading.active_count() < 5 + 10


@pytest.mark.parametrize("rude", [b"", b"\r\n", b"\x00\xff\r\n\r\n", b"GET / HTTP/9\r\n\r\n"])
def test_clients_that_are_gone_or_rude_harm_nobody(
    start: START, connect: CONNECT, rude: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    for _ in range(20):
        connect(server, rude).close()
    connect(server, REQUEST.replace(b"/", b"/fail", 1))
    assert receive_all(connect(server, REQUEST)).endswith(b"hello")
    assert server.running
    assert caplog.records == []


def test_the_end_does_not_wait_for_slow_clients(start: START, connect: CONNECT) -> None:
    server = start()
    clients = [connect(server, b"GET") for _ in range(3)]
    assert receive_all(connect(server, REQUEST)).endswith(b"hello")  # all have been accepted
    before = monotonic()
    server.stop()
    assert monotonic() - before < 2
    assert all(is_cut(client) for client in clients)

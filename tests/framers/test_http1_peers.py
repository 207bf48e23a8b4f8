"""http1 between real peers: Chronos, http.server, nginx; http.client and ab.

What the framer counts on a real connection is checked against http.client reading the same bytes.
`Pipe.serve` is a multiplexer in ten lines: it shows how the parsers are to be used.
"""

import http.client
import http.server
import io
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from aegis.framers.contract import Verdict
from aegis.framers.http1 import Http1
from aegis.framers.http1_requests import Http1Requests
from aegis.framers.http1_syntax import CONNECT, HEAD
from tests.framers.test_http1_vectors import frames_of
from tests.harness import wait_until
from tests.ops.test_chronos_process import DEADLINE_S, Chronos, read_all, running


class Pipe:
    """One connection to a server, and what follows its replies."""

    def __init__(self, framer: Http1, sock: socket.socket) -> None:
        self.framer = framer
        self.sock = sock
        sock.settimeout(DEADLINE_S)
        self.replies = framer.replies()

    def serve(self, client: Http1Requests, request: bytes) -> bytes:
        """Send a whole request as a shared pipe may see it; return its reply."""
        stop, count, special = client.scan(bytearray(request), 0, len(request))
        if special is not None:
            assert special.verdict in (Verdict.PIN, Verdict.TUNNEL_IF_ACCEPTED)
            stop, count = special.end, special.replies
        assert (stop, count) == (len(request), 1)
        self.sock.sendall(request if client.forward is None else client.forward)
        return self.reply(client.note)

    def reply(self, note: int) -> bytes:
        taken = bytearray()
        while piece := bytearray(self.sock.recv(1_000)):
            stop, count = self.replies.feed(piece, 0, len(piece), 1, note)
            taken += piece[:stop]
            assert stop == len(piece), "bytes that nobody asked for"
            if count:
                return bytes(taken)
        assert self.replies.end()
        return bytes(taken)


class Recorded(io.BytesIO):
    """A socket, to http.client, that has received all it will."""

    def makefile(self, _mode: str) -> "Recorded":
        return self

    def close(self) -> None:
        """Stay open: http.client closes what it takes for one reply's stream."""


def read_reply(stream: Recorded, method: str) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(cast(Any, stream), method=method)
    response.begin()
    return response.status, response.read()


def parsed(reply: bytes, method: str = "GET") -> tuple[int, bytes]:
    stream = Recorded(reply)
    found = read_reply(stream, method)
    assert stream.tell() == len(reply)
    return found


def count_alike(replies: bytes, notes: list[int]) -> None:
    """Check the ends of all replies in a stream against http.client's, in splits of any kind."""
    stream, ends = Recorded(replies), []
    for note in notes:
        read_reply(stream, "HEAD" if note & HEAD else "GET")
        ends.append(stream.tell())
    assert ends[-1] == len(replies)
    for size in (len(replies), 1, 7, 1_000):
        parser, found, owed = Http1().replies(), [], iter(notes)
        note = next(owed)
        for at in range(0, len(replies), size):
            piece = bytearray(replies[at : at + size])
            start = 0
            while start < len(piece):
                start, count = parser.feed(piece, start, len(piece), 1, note)
                if count:
                    found.append(at + start)
                    note = next(owed, 0)
        assert found == ends


# --- Chronos ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chronos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronos]:
    with running(tmp_path_factory.mktemp("http1") / "db") as server:
        yield server


def random_request(rng: random.Random) -> bytes:
    method = rng.choice(["GET", "GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS"])
    path = rng.choice(["/", "/kv/a", "/kv/b", f"/kv/{rng.randrange(9)}", "/nowhere"])
    minor = rng.choice([0, 1, 1])
    connection = rng.choice(["", "", "Connection: close\r\n", "Connection: keep-alive\r\n"])
    head = f"{method} {path} HTTP/1.{minor}\r\nHost: x\r\n{connection}".encode()
    if method not in ("PUT", "POST"):
        return head + b"\r\n"
    body = rng.randbytes(rng.choice([0, 1, 10, 5_000]))
    if method == "PUT" and "/kv/" in path and rng.random() < 0.2:  # else Chronos would close
        head += b"Expect: 100-continue\r\n"
    if minor and rng.random() < 0.5:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_replies_of_chronos_to_a_long_mix_are_counted_exactly(
    chronos: Chronos, rng: random.Random
) -> None:
    requests = [random_request(rng) for _ in range(500)]
    frames = frames_of(b"".join(requests), rng.sample(range(1, 100_000), 50))
    assert [frame.size for frame in frames] == [len(request) for request in requests]
    sent = [frame.forward or one for frame, one in zip(frames, requests, strict=True)]
    with chronos.connect() as sock:
        writer = threading.Thread(target=sock.sendall, args=(b"".join(sent),))
        writer.start()
        received = bytearray()
        parser, owed, start = Http1().replies(), [frame.note for frame in frames], 0
        for note in owed:  # it never closes: nobody's wish to close has reached it
            while True:
                start, count = parser.feed(received, start, len(received), 1, note)
                if count:
                    break
                piece = sock.recv(65_536)
                assert piece
                received += piece
            assert not parser.last
        writer.join()
        sock.shutdown(socket.SHUT_WR)
        assert received[start:] + read_all(sock) == b""
    count_alike(bytes(received), owed)


def test_many_clients_of_one_request_each_share_one_pipe(chronos: Chronos) -> None:
    framer = Http1()
    pipe = Pipe(framer, chronos.connect())
    with closing(pipe.sock):
        for number in range(100):
            value = b"value %d" % number
            put = b"PUT /kv/%d HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (
                number,
                len(value),
                value,
            )
            for version, lines in ((b"1.0", b""), (b"1.1", b"Host: x\r\nConnection: close\r\n")):
                client = framer.requests()
                assert parsed(pipe.serve(client, put)) == (200, b"OK\n")
                assert client.close_after
                get = b"GET /kv/%d HTTP/%b\r\n%b\r\n" % (number, version, lines)
                assert parsed(pipe.serve(framer.requests(), get)) == (200, value)
                assert not pipe.replies.last


def test_chronos_is_alive_to_the_ping(chronos: Chronos) -> None:
    pipe = Pipe(Http1(), chronos.connect())
    with closing(pipe.sock):
        pipe.sock.sendall(pipe.framer.ping)
        pipe.reply(0)
        assert not pipe.replies.failed


@pytest.mark.skipif(
    shutil.which("ab") is None and not os.environ.get("CI"),
    reason="ab is not installed: apt-get install apache2-utils",
)
def test_ab_without_k_is_served_by_one_pipe(chronos: Chronos) -> None:
    framer = Http1()
    pipe = Pipe(framer, chronos.connect())
    with closing(pipe.sock), socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with subprocess.Popen(["ab", "-q", "-n20", "-c4", url], stdout=subprocess.PIPE) as ab:
            for _ in range(20):
                sock, _address = listener.accept()
                with sock:
                    client = framer.requests()
                    sock.sendall(pipe.serve(client, sock.recv(4_096)))
                    assert client.close_after
            assert ab.stdout is not None
            report = ab.stdout.read().decode()
    assert "Complete requests:      20" in report
    assert "Failed requests:        0" in report


# --- http.server and http.client -------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Every way of framing a reply."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = b"%b %b" % (self.path.encode(), self.rfile.read(length))
        status = {"/204": 204, "/304": 304, "/missing": 404, "/broken": 500}.get(self.path, 200)
        if self.path == "/hints":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        if self.path == "/upgrade" and self.headers.get("Upgrade"):
            self.send_response(101)
            self.end_headers()
            self.wfile.write(self.rfile.readline())
            self.close_connection = True
            return
        self.send_response(status)
        if self.path == "/rest":
            self.send_header("Connection", "close")
        elif self.path == "/chunked" and self.protocol_version == "HTTP/1.1":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(protocol: str) -> Iterator[tuple[str, int]]:
    """Run http.server; yield its address."""
    handler = type("Speaking", (Handler,), {"protocol_version": protocol})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield "127.0.0.1", server.server_port
        finally:
            server.shutdown()
            thread.join()


PATHS = ["/", "/chunked", "/204", "/304", "/missing", "/broken", "/rest"]


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_http_client_gets_what_http_server_sends(protocol: str, method: str) -> None:
    framer = Http1()
    with serving(protocol) as address, ExitStack() as own:
        pipe = None
        for path in PATHS:
            if pipe is None:
                pipe = Pipe(framer, own.enter_context(socket.create_connection(address)))
            requests = framer.requests()
            ours, theirs = map(own.enter_context, socket.socketpair())
            client = http.client.HTTPConnection("test")
            client.sock = theirs
            ours.settimeout(DEADLINE_S)
            body = "body" if method == "POST" else None
            headers = {"Connection": "close"} if path == "/chunked" else {}
            client.request(method, path, body, headers)
            ours.sendall(pipe.serve(requests, ours.recv(65_536)))
            ours.shutdown(socket.SHUT_WR)
            with client.getresponse() as response:
                got = response.read()
            empty = method == "HEAD" or path in ("/204", "/304")
            assert got == (b"" if empty else f"{path} {body or ''}".encode())
            assert requests.close_after == (path == "/chunked")
            assert pipe.replies.last == (protocol == "HTTP/1.0" or path == "/rest")
            assert pipe.replies.failed == (path == "/broken")
            if pipe.replies.last:
                assert pipe.sock.recv(1) == b""
                pipe = None


def test_early_hints_are_part_of_the_reply() -> None:
    with serving("HTTP/1.1") as address, socket.create_connection(address) as sock:
        pipe = Pipe(Http1(), sock)
        reply = pipe.serve(pipe.framer.requests(), b"GET /hints HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 103 ")
        assert reply.endswith(b"/hints ")


def test_a_client_that_waits_for_100_continue_is_streamed() -> None:
    head = b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with serving("HTTP/1.1") as address:
        pipe = Pipe(Http1(), socket.create_connection(address))
        client = pipe.framer.requests()
        with closing(pipe.sock):
            assert client.scan(bytearray(head), 0, len(head)) == (0, 0, None)
            assert client.stream_now
            assert client.follow(bytearray(head), 0, len(head)) == (len(head), False)
            pipe.sock.sendall(head)
            interim = bytearray(pipe.sock.recv(1_000))
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert pipe.replies.feed(interim, 0, len(interim), 1, client.note) == (len(interim), 0)
            assert client.follow(bytearray(b"body"), 0, 4) == (4, True)
            pipe.sock.sendall(b"body")
            assert parsed(pipe.reply(client.note)) == (200, b"/ body")


def test_an_accepted_upgrade_is_a_tunnel() -> None:
    upgrade = b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
    with serving("HTTP/1.1") as address:
        pipe = Pipe(Http1(), socket.create_connection(address))
        with closing(pipe.sock):
            assert pipe.serve(pipe.framer.requests(), upgrade).startswith(b"HTTP/1.1 101 ")
            assert pipe.replies.tunnel
            pipe.sock.sendall(b"echo\n")
            assert read_all(pipe.sock) == b"echo\n"


def test_a_declined_connect_is_an_ordinary_reply(chronos: Chronos) -> None:
    pipe = Pipe(Http1(), chronos.connect())
    client = pipe.framer.requests()
    with closing(pipe.sock):
        reply = pipe.serve(client, b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n")
        assert client.note == CONNECT
        assert parsed(reply)[0] in (404, 405, 501)
        assert not pipe.replies.tunnel


# --- nginx -----------------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {0}/pid; error_log {0}/log;
events {{ worker_connections 32; }}
http {{
  access_log off; gzip on; gzip_types *; gzip_min_length 1; keepalive_requests 10000;
  client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c;
  uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;
  server {{
    listen unix:{0}/s; root {0};
    location /204 {{ return 204; }}
    location /503 {{ return 503 busy; }}
  }}
}}
"""


@pytest.fixture
def nginx() -> Iterator[Path]:
    """Run nginx; yield its socket's path."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    with TemporaryDirectory(prefix="aegis-") as directory:
        root = Path(directory)
        root.chmod(0o755)  # without a master it still drops what it can
        (root / "page").write_bytes(b"page " * 1_000)
        (root / "conf").write_text(NGINX.format(root))
        command = [program, "-p", directory, "-e", f"{root}/log", "-c", f"{root}/conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                wait_until((root / "s").exists, "nginx listens")
                yield root / "s"
            finally:
                process.terminate()


def test_replies_of_nginx_to_a_long_mix_are_counted_exactly(
    nginx: Path, rng: random.Random
) -> None:
    requests = []
    for _ in range(300):
        method = rng.choice(["GET", "GET", "HEAD", "POST"])
        path = rng.choice(["/page", "/page", "/missing", "/204", "/503", "/"])
        minor = rng.choice([0, 1, 1])
        lines = rng.choice(
            ["", "Range: bytes=5-9\r\n", "Range: bytes=0-1,5-6\r\n", "Accept-Encoding: gzip\r\n"]
        )
        lines += rng.choice(["", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n"])
        lines += rng.choice(["", "Connection: close\r\n"])
        lines += "Content-Length: 0\r\n" if method == "POST" else ""
        requests.append(f"{method} {path} HTTP/1.{minor}\r\nHost: x\r\n{lines}\r\n".encode())
    framer = Http1()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        wait_until(lambda: sock.connect_ex(str(nginx)) == 0, "nginx accepts")
        pipe = Pipe(framer, sock)
        received, notes = bytearray(), []
        for request in requests:
            client = framer.requests()
            received += pipe.serve(client, request)
            notes.append(client.note)
            assert not pipe.replies.last
    assert bytes(received).count(b"Transfer-Encoding: chunked") > 1
    count_alike(bytes(received), notes)

"""HTTP on Chronos' port: behaviour through a real process, properties of the parser alone."""

import http.client
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ops.chronos.http_head import Action, Head, parse_head
from ops.chronos.http_reader import HttpReader, Request
from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_HEAD_BYTES, MAX_REQUEST_LINE_BYTES, MAX_VALUE_BYTES
from tests.ops.test_chronos_process import DEADLINE_S, Chronos, read_all, read_exactly, running

PUT = b"PUT /kv/k HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /kv/k HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def chronos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronos]:
    with running(tmp_path_factory.mktemp("http") / "db") as server:
        yield server


@pytest.fixture
def client(chronos: Chronos) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(chronos.host, chronos.port, timeout=DEADLINE_S)
    connection.connect()
    yield connection
    connection.close()


def exchange(
    client: http.client.HTTPConnection, method: str, target: str, body: bytes | None = None
) -> tuple[int, bytes]:
    sock = client.sock
    client.request(method, target, body)
    with client.getresponse() as response:
        answer = response.status, response.read()
    assert client.sock is sock, "the connection was not kept"
    return answer


def statuses(replies: bytes) -> list[int]:
    """Return the status of each reply in a stream of them, every body of exact length."""
    found = []
    while replies:
        head, _, rest = replies.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        found.append(int(status.split()[1]))
        lengths = [int(f.split()[1]) for f in fields if f.lower().startswith(b"content-length:")]
        assert len(lengths) == (found[-1] != 100), head
        assert len(rest) >= sum(lengths)
        replies = rest[sum(lengths) :]
    return found


def test_a_value_is_put_read_and_deleted_on_one_connection(
    client: http.client.HTTPConnection,
) -> None:
    value = bytes(range(256)) * 10
    assert exchange(client, "PUT", "/kv/a", value) == (200, b"OK\n")
    assert exchange(client, "GET", "/kv/a") == (200, value)
    assert exchange(client, "HEAD", "/kv/a") == (200, b"")
    assert exchange(client, "DELETE", "/kv/a") == (200, b"OK\n")
    assert exchange(client, "GET", "/kv/a")[0] == 404
    assert exchange(client, "HEAD", "/kv/a") == (404, b"")
    assert exchange(client, "PUT", "/kv/a", b"") == (200, b"OK\n")
    assert exchange(client, "GET", "/kv/a") == (200, b"")


def test_a_key_is_percent_decoded_and_a_query_is_no_part_of_it(
    client: http.client.HTTPConnection, chronos: Chronos
) -> None:
    assert exchange(client, "PUT", "/kv/%41%20%2f/%3f%00?q=1", b"v")[0] == 200
    assert exchange(client, "GET", "/kv/A%20//%3F%00") == (200, b"v")
    assert exchange(client, "GET", f"http://{chronos.host}:1/kv/A%20//%3F%00") == (200, b"v")
    for target in ("/kv/%4", "/kv/%zz", "/kv/%"):
        assert exchange(client, "GET", target)[0] == 400


def test_the_page_is_plain_text_and_head_tells_its_length(
    client: http.client.HTTPConnection,
) -> None:
    client.request("GET", "/")
    with client.getresponse() as page:
        text = page.read()
        assert page.headers["Content-Type"].startswith("text/plain")
    client.request("HEAD", "/")
    with client.getresponse() as head:
        assert int(head.headers["Content-Length"]) == len(text) > 0
        assert head.read() == b""


def test_what_is_refused_politely_keeps_the_connection(client: http.client.HTTPConnection) -> None:
    for method, target, status in [
        ("GET", "/nothing", 404),
        ("GET", "/kv/", 404),
        ("GET", "/kv", 404),
        ("PUT", "/nothing", 404),
        ("POST", "/kv/a", 405),
        ("DELETE", "/", 405),
        ("PUT", "/", 405),
        ("BREW", "/", 501),
        ("get", "/", 501),
    ]:
        body = b"body" if method in ("PUT", "POST", "BREW") else None
        got, text = exchange(client, method, target, body)
        assert (method, target, got) == (method, target, status)
        assert text
    client.request("POST", "/kv/a", b"x")
    with client.getresponse() as response:
        assert response.headers["Allow"] == "GET, HEAD, PUT, DELETE"
        response.read()


def test_values_pass_between_the_protocols(chronos: Chronos) -> None:
    assert statuses(chronos.ask(PUT + b"Content-Length: 5\r\n\r\n a b ")) == [200]
    assert chronos.ask(b"GET k\n") == b" a b \n"
    for value in (b"a\nb", b"\r", b"\n"):
        chronos.ask(PUT + b"Content-Length: %d\r\n\r\n" % len(value) + value)
        refused = b"ERR value holds a line break; read it over HTTP\nPONG\n"
        assert chronos.ask(b"GET k\nPING\n") == refused
    assert chronos.ask(b"SET k line\n") == b"OK\n"
    assert chronos.ask(GET).endswith(b"\r\n\r\nline")


def test_pipelined_requests_see_the_writes_before_them(chronos: Chronos) -> None:
    sent = b"".join(PUT + b"Content-Length: 3\r\n\r\n%03d" % i + GET for i in range(500))
    replies = chronos.ask(sent)
    assert statuses(replies) == [200] * 1000
    values = [part[:3] for part in replies.split(b"octet-stream\r\nContent-Length: 3\r\n\r\n")[1:]]
    assert values == [b"%03d" % i for i in range(500)]


def test_http_1_0_closes_unless_asked_to_keep_and_is_told_so(chronos: Chronos) -> None:
    with chronos.connect() as sock:
        for _ in range(3):  # as `ab -k` does it
            sock.sendall(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += read_exactly(sock, 1)
            assert b"\r\nConnection: keep-alive\r\n" in head
            read_exactly(sock, int(head.partition(b"Content-Length: ")[2].split()[0]))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n")
        reply = http.client.HTTPResponse(sock)
        reply.begin()
        assert reply.headers["Connection"] == "close"
        reply.read()
        reply.close()
        assert sock.recv(1) == b""


def test_connection_close_is_honoured_and_what_follows_is_not_executed(chronos: Chronos) -> None:
    closing = b"DELETE /kv/gone HTTP/1.1\r\nHost: x\r\nConnection: a, Close\r\n\r\n"
    replies = chronos.ask(closing + PUT + b"Content-Length: 2\r\n\r\nno" + GET)
    assert statuses(replies) == [200]
    assert b"\r\nConnection: close\r\n" in replies


def test_a_body_is_asked_for_and_then_taken(chronos: Chronos) -> None:
    for framing, body in [
        (b"Content-Length: 4\r\n", b"body"),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
    ]:
        with chronos.connect() as sock:
            sock.sendall(PUT + framing + b"Expect: 100-Continue\r\n\r\n")
            asked = b"HTTP/1.1 100 Continue\r\n\r\n"
            assert read_exactly(sock, len(asked)) == asked
            sock.sendall(body + GET)
            reply = http.client.HTTPResponse(sock)
            reply.begin()
            assert (reply.status, reply.read()) == (200, b"OK\n")
            reply.close()
    assert chronos.ask(GET).endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("fields", "status"),
    [(b"Content-Length: %d\r\n" % (MAX_VALUE_BYTES + 1), 413), (b"", 411)],
)
def test_a_body_that_will_be_refused_is_not_asked_for(
    chronos: Chronos, fields: bytes, status: int
) -> None:
    with chronos.connect() as sock:
        sock.sendall(PUT + fields + b"Expect: 100-continue\r\n\r\n")
        replies = b""
        while piece := sock.recv(4096):
            replies += piece
    assert statuses(replies) == [status]


def test_a_client_that_sends_a_body_unasked_can_read_why_it_was_refused(chronos: Chronos) -> None:
    size = 8 * MAX_VALUE_BYTES
    reply = chronos.ask(PUT + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
    assert statuses(reply) == [413]


def test_the_greatest_value_is_taken_and_one_byte_more_is_not(chronos: Chronos) -> None:
    value = b"v" * MAX_VALUE_BYTES
    chunked = PUT + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n"
    assert statuses(chronos.ask(chunked % (len(value), value) + b"0\r\n\r\n")) == [200]
    assert chronos.ask(GET).endswith(b"\r\n\r\n" + value)
    assert chronos.ask(b"GET k\n") == value + b"\n"
    assert statuses(chronos.ask(chunked % (len(value), value) + b"1\r\nx\r\n0\r\n\r\n")) == [413]


AMBIGUOUS = [
    PUT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    PUT + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    PUT + b"Content-Length: 1, 1\r\n\r\nx",
    PUT + b"Content-Length: +1\r\n\r\nx",
    PUT + b"Content-Length: 1_0\r\n\r\nx",
    PUT + b"Content-Length: -1\r\n\r\nx",
    PUT + b"Content-Length:\r\n\r\nx",
    PUT + b"Content-Length : 1\r\n\r\nx",
    PUT + b" Content-Length: 1\r\n\r\nx",
    PUT + b"X: a\r\n folded\r\n\r\n",
    PUT + b"X: a\nContent-Length: 1\r\n\r\nx",
    PUT + b"X: a\rContent-Length: 1\r\n\r\nx",
    PUT + b"X: a\0b\r\n\r\n",
    PUT + b"no colon\r\n\r\n",
    PUT + b": no name\r\n\r\n",
    PUT + b"Host: y\r\n\r\n",
    b"PUT /kv/k HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /kv/k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\t HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: x\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nbad trailer\r\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\n\r\n",
    PUT + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 300 + b"\r\nx\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("sent", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    chronos: Chronos, sent: bytes
) -> None:
    before = b"DELETE /kv/k HTTP/1.1\r\nHost: x\r\n\r\n"
    replies = chronos.ask(before + sent + GET * 3)
    assert statuses(replies) == [200, 400]
    assert b"\r\nConnection: close\r\n" in replies
    assert statuses(chronos.ask(GET)) == [404]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (PUT + b"\r\n", 411),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * MAX_REQUEST_LINE_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (PUT + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (PUT + b"X: a\r\n" * MAX_HEAD_BYTES, 431),
        (PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: a\r\n" * 4000, 431),
    ],
)
def test_what_is_too_long_or_unknown_is_refused_with_its_own_status(
    chronos: Chronos, sent: bytes, status: int
) -> None:
    assert statuses(chronos.ask(sent + GET)) == [status]


def test_a_request_byte_by_byte_is_answered_alike(chronos: Chronos) -> None:
    chunks = b"3;ext\r\nabc\r\n00\r\nTrailer: t\r\n\r\n"
    sent = b"\r\n" + PUT + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks + GET
    with chronos.connect() as sock:
        for byte in sent:
            sock.send(bytes((byte,)))
        sock.shutdown(socket.SHUT_WR)
        replies = read_all(sock)
    assert statuses(replies) == [200, 200]
    assert replies.endswith(b"\r\n\r\nabc")


def requests(pieces: list[bytes]) -> list[Request]:
    """Return what a reader makes of the pieces; it must not keep more than one request."""
    inbox = Inbox()
    reader = HttpReader(inbox)
    found = []
    for piece in pieces:
        inbox.feed(piece)
        while (request := reader.next()) is not None:
            if request[0].action is not Action.CONTINUE:  # depends on the split, and should
                found.append(request)
            if request[0].closes:
                return found
        assert len(inbox) <= MAX_HEAD_BYTES + MAX_VALUE_BYTES
    return found


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


PARTS = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"Host: x\r\n",
        GET,
        PUT,
        PUT + b"Content-Length: 3\r\n\r\nabc",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Length: 7\r\n",
        b"1\r\nx\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"X: " + b"a" * 9000 + b"\r\n",
        b"POST /no HTTP/1.0\r\nConnection: keep-alive\r\n",
    ]
)
STREAM = st.one_of(st.binary(max_size=300), st.lists(PARTS, max_size=8).map(b"".join))
CUTS = st.lists(st.integers(0, 600), max_size=40)


@given(data=STREAM, cuts=CUTS)
@example(data=AMBIGUOUS[10], cuts=list(range(200)))
@example(data=PUT + b"X: " + b"a" * 2 * MAX_HEAD_BYTES, cuts=[MAX_HEAD_BYTES])
def test_any_split_of_any_input_gives_the_requests_of_the_whole(
    data: bytes, cuts: list[int]
) -> None:
    assert requests(split(data, cuts)) == requests([data])


@pytest.mark.parametrize("sent", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_at_every_split(sent: bytes) -> None:
    whole = requests([sent])
    assert [head.status for head, _ in whole] == [400]
    for cut in range(1, len(sent)):
        assert requests([sent[:cut], sent[cut:]]) == whole
    assert requests([bytes((byte,)) for byte in sent]) == whole


@given(
    bodies=st.lists(st.tuples(st.binary(max_size=100), st.none() | CUTS), max_size=6),
    cuts=CUTS,
)
def test_bodies_arrive_exactly_by_length_or_in_chunks(
    bodies: list[tuple[bytes, list[int] | None]], cuts: list[int]
) -> None:
    sent = b""
    for body, chunk_cuts in bodies:
        if chunk_cuts is None:
            sent += PUT + b"Content-Length: %d\r\n\r\n" % len(body) + body
            continue
        chunks = [chunk for chunk in split(body, chunk_cuts) if chunk]
        coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        sent += PUT + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    found = requests(split(sent, cuts))
    assert [body for _, body in found] == [body for body, _ in bodies]
    assert all(head.action is Action.WRITE and head.key == b"k" for head, _ in found)


@given(block=st.binary(max_size=200))
def test_any_head_is_understood_or_refused(block: bytes) -> None:
    assert isinstance(parse_head(block + b"\r\n\r\n"), Head)

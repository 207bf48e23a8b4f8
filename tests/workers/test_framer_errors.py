"""Bytes that break a protocol are counted by who sent them and by the framer's word for it."""

import pytest

from tests.faults.scripted import asked, expect, get, page, sharing, words
from tests.harness import Rig, receive_all

ONE = {
    "resp": (words("GET", "a"), b"$1\r\nA\r\n"),
    "line": (b"GET a\n", b"A\n"),
    "http1": (get("/"), page(b"A")),
    "memcached": (b"get a\r\n", b"END\r\n"),
}
"""A request and its reply."""
TOO_LONG = b"GET " + b"k" * (1 << 21) + b"\n"


@pytest.mark.parametrize(
    ("protocol", "said", "kind"),
    [
        ("resp", b"*1\r\n?\r\n", "malformed"),
        ("resp", b"POST / HTTP/1.1\r\n", "http"),
        ("line", b"GET / HTTP/1.1\r\n", "http"),
        ("line", TOO_LONG, "too_long"),
        ("http1", b"GET  / HTTP/1.1\r\n\r\n", "bad_line"),
        ("memcached", b"\x80\0\0\0\0\0\0\0", "binary"),
    ],
)
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind one"])
def test_a_clients_error_has_one_kind_and_one_reason_wherever_it_comes(
    protocol: str, said: bytes, kind: str, behind: bool, rig: Rig
) -> None:
    request, reply = ONE[protocol]
    upstream = rig.upstream()
    proxy = sharing(rig, protocol, upstream)
    client = proxy.connect()
    client.sendall(request * behind + said)
    if behind:
        server = upstream.accept()
        if protocol == "memcached":  # what a fresh pipe is asked
            expect(server, b"version\r\n")
            server.sendall(b"VERSION 1.6.18\r\n")
        expect(server, request)
        server.sendall(reply)
        expect(client, reply)
    receive_all(client)
    client.close()
    figures = proxy.closed_for("protocol_error")
    assert figures.pools[0].errors == {"client": {kind: 1}, "server": {}}


def test_a_client_that_says_quit_has_made_no_error(rig: Rig) -> None:
    proxy = sharing(rig, "resp", rig.upstream())
    client = proxy.connect()
    client.sendall(words("QUIT"))
    assert receive_all(client) == b"+OK\r\n"
    client.close()
    figures = proxy.closed_for("refused_request")
    assert figures.pools[0].errors == {"client": {}, "server": {}}


def test_a_servers_error_is_its_own(rig: Rig) -> None:
    _, proxy, client, server = asked(rig)
    server.sendall(b"no reply\r\n")
    expect(client, b"-ERR aegis: protocol_error\r\n")
    pool = proxy.figures().pools[0]
    assert pool.errors == {"client": {}, "server": {"malformed": 1}}
    assert pool.losses == {"protocol_error": 1}

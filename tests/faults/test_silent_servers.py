"""reply_timeout_s: a server that says nothing with replies due is given up, and nobody else is."""

from typing import Any

from tests.faults.scripted import expect, expect_end, sharing, words
from tests.harness import Rig, is_silent, reset

IMPATIENT = {"reply_timeout_s": 0.4}
ERROR = b"-ERR aegis: reply_timeout\r\n"


def test_all_who_wait_for_a_silent_server_are_told_and_a_new_pipe_is_opened(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend=IMPATIENT)
    first, second = proxy.connect(), proxy.connect()
    first.sendall(words("GET", "1"))
    server = upstream.accept()
    expect(server, words("GET", "1"))
    second.sendall(words("GET", "2") * 2)
    expect(server, words("GET", "2") * 2)
    expect(first, ERROR)
    expect(second, ERROR * 2)
    expect_end(server)
    second.sendall(words("GET", "3"))
    server = upstream.accept()
    expect(server, words("GET", "3"))
    server.sendall(b"$1\r\n3\r\n")
    expect(second, b"$1\r\n3\r\n")
    assert proxy.figures().pools[0].losses == {"reply_timeout": 1}


def test_a_server_that_goes_on_talking_is_not_silent(rig: Rig) -> None:
    """The reply as a whole takes longer than the timeout; each piece of it does not."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"reply_timeout_s": 2.0})
    client = proxy.connect()
    client.sendall(words("GET", "a"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$10\r\n")
    expect(client, b"$10\r\n")
    for _ in range(10):
        assert is_silent(client, 0.3)
        server.sendall(b"x")
        expect(client, b"x")
    server.sendall(b"\r\n")
    expect(client, b"\r\n")


def test_a_client_that_does_not_take_its_replies_is_not_blamed_on_the_server(rig: Rig) -> None:
    upstream = rig.upstream()
    small: dict[str, Any] = {"slab_bytes": 4096, "slabs": 2, "buffer_bytes": 4096}
    proxy = sharing(rig, "resp", upstream, backend={"reply_timeout_s": 1.0}, **small)
    slow, other = proxy.connect(receive_buffer=4096), proxy.connect()
    slow.sendall(words("GET", "big"))
    server = upstream.accept()
    expect(server, words("GET", "big"))
    other.sendall(words("GET", "small"))
    expect(server, words("GET", "small"))
    reply = b"$30000\r\n" + bytes(30_000) + b"\r\n"
    server.sendall(reply + b"+S\r\n")
    assert is_silent(other, 2.0)
    # Everything the pipe has missed comes at once: the slow one takes its reply, and time is up.
    proxy.worker.process.suspend()
    slow_has = slow.recv(20_000)
    assert is_silent(other, 0.2)
    proxy.worker.process.resume()
    expect(slow, reply[len(slow_has) :])
    expect(other, b"+S\r\n")
    assert proxy.figures().pools[0].losses == {}


def test_one_that_waits_in_blpop_may_wait(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend=IMPATIENT)
    client = proxy.connect()
    client.sendall(words("BLPOP", "queue", "0"))
    server = upstream.accept()
    expect(server, words("BLPOP", "queue", "0"))
    assert is_silent(client, 1.2)
    server.sendall(b"*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n")
    expect(client, b"*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n")


def test_a_pipe_whose_clients_have_all_left_is_given_up_and_its_place_is_free(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"server_fin_timeout_s": 0.4})
    first, second = proxy.connect(), proxy.connect()
    first.sendall(words("GET", "1"))
    server = upstream.accept()
    expect(server, words("GET", "1"))
    second.sendall(words("GET", "2"))
    expect(server, words("GET", "2"))
    reset(first)
    assert is_silent(server, 1.0), "one of them still waits"
    reset(second)
    expect_end(server)
    third = proxy.connect()
    third.sendall(words("GET", "3"))
    server = upstream.accept()
    expect(server, words("GET", "3"))
    server.sendall(b"$1\r\n3\r\n")
    expect(third, b"$1\r\n3\r\n")
    assert proxy.figures().pools[0].losses == {"abandoned": 1}

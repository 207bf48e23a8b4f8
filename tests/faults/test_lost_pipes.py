"""What clients hear when the pipe that owes them replies dies: the error or the end, not both."""

import socket
from typing import Any

import pytest

from tests.faults.scripted import asked, expect, expect_end, get, page, sharing, words
from tests.harness import Proxy, Rig, Upstream, is_silent, receive, receive_all

ERROR = b"-ERR aegis: server_lost\r\n"


def test_each_unanswered_request_gets_the_error_once_and_none_is_sent_again(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    requests = words("GET", "a") + words("INCR", "b") + words("GET", "c")
    client.sendall(requests)
    server = upstream.accept()
    expect(server, requests)
    server.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")
    server.close()
    expect(client, ERROR * 2)
    client.sendall(words("GET", "d"))
    server = upstream.accept()
    expect(server, words("GET", "d"))
    server.sendall(b"$1\r\nD\r\n")
    expect(client, b"$1\r\nD\r\n")
    assert is_silent(client, 0.05)


def test_other_clients_of_the_pipe_hear_of_its_death_too(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    clients = [proxy.connect() for _ in range(3)]
    server = None
    for client in clients + clients:  # each is owed twice, in turn
        client.sendall(words("GET", "x"))
        server = server or upstream.accept()
        expect(server, words("GET", "x"))
    assert server is not None
    server.close()
    for client in clients:
        expect(client, ERROR * 2)
        assert is_silent(client, 0.05)


def test_half_a_reply_is_followed_by_the_end_and_not_by_an_error(rig: Rig) -> None:
    _, _, client, server = asked(rig)
    server.sendall(b"$10\r\nhalf")
    expect(client, b"$10\r\nhalf")
    server.close()
    expect_end(client)


def test_half_a_reply_behind_a_whole_one_is_followed_by_the_end(rig: Rig) -> None:
    """Both in one segment: that a reply has ended says nothing of the one behind it."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a") * 3)
    server = upstream.accept()
    expect(server, words("GET", "a") * 3)
    server.sendall(b"$1\r\nA\r\n$10\r\nhalf")
    server.close()
    assert receive_all(client) == b"$1\r\nA\r\n$10\r\nhalf"


def test_the_next_in_line_gets_the_error_when_the_first_has_half_a_reply(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    first, second = proxy.connect(), proxy.connect()
    first.sendall(words("GET", "a"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    second.sendall(words("GET", "b"))
    expect(server, words("GET", "b"))
    first.sendall(words("GET", "c"))
    expect(server, words("GET", "c"))
    server.sendall(b"$10\r\nhalf")
    expect(first, b"$10\r\nhalf")
    server.close()
    assert receive_all(first) == b""
    expect(second, ERROR)
    assert is_silent(second, 0.05)


def test_a_client_in_a_transaction_hears_that_its_idle_pipe_has_died(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")
    server.close()
    client.settimeout(5)
    client.sendall(words("INCR", "a"))  # whatever it gets: the transaction is no more
    answer = receive_all(client)
    assert answer in (b"", ERROR)


def test_a_client_whose_upload_was_answered_early_hears_that_the_server_has_closed(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream, slab_bytes=4096, slabs=4)
    client = proxy.connect()
    head = get("/kv/x", "Content-Length: 100000", method="PUT")
    client.sendall(head + bytes(50_000))
    server = upstream.accept()
    receive(server, len(head) + 50_000)
    server.sendall(page(b"too much", status="413 Content Too Large"))
    expect(client, page(b"too much", status="413 Content Too Large"))
    server.close()
    client.settimeout(5)
    expect_end(client)


def test_a_client_that_reads_nothing_does_not_keep_the_others_from_hearing(rig: Rig) -> None:
    """Its errors are more than a slab takes."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, buffer_bytes=4096, slab_bytes=512, slabs=4)
    deaf, other = proxy.connect(receive_buffer=4096), proxy.connect()
    deaf.sendall(words("GET", "a") * 1000)
    server = upstream.accept()
    receive(server, len(words("GET", "a")) * 1000)
    other.sendall(words("GET", "b"))
    expect(server, words("GET", "b"))
    server.close()
    other.settimeout(5)
    expect(other, ERROR)


def torn_off(rig: Rig, **backend: Any) -> tuple[Upstream, Proxy, socket.socket]:
    """Have a client leave amid a request that its server does not read; returns its connection."""
    upstream = rig.upstream(buffer_bytes=4096)
    proxy = sharing(rig, "resp", upstream, backend=backend)
    client = proxy.connect()
    client.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + bytes(300_000))
    server = upstream.accept()
    client.close()
    proxy.figures_when(lambda figures: not figures.sessions, "the client has left")
    return upstream, proxy, server


def test_a_pipe_that_is_given_up_counts_until_the_server_has_all_that_was_sent(rig: Rig) -> None:
    """Its end waits in our kernel behind what the server does not read: it is open still."""
    upstream, proxy, server = torn_off(rig)
    other = proxy.connect()
    other.sendall(words("PING"))
    assert is_silent(upstream.sock, 0.3), "a second connection, and the first is open"
    assert len(receive_all(server)) > 200_000
    expect(upstream.accept(), words("PING"))


def test_a_server_that_never_reads_its_end_is_reset(rig: Rig) -> None:
    upstream, proxy, server = torn_off(rig, server_fin_timeout_s=0.3)
    other = proxy.connect()
    other.sendall(words("PING"))
    expect(upstream.accept(), words("PING"))
    with pytest.raises(ConnectionResetError):
        receive_all(server)


def test_a_worker_that_drains_waits_for_a_server_that_has_not_heard_the_end(rig: Rig) -> None:
    """Its successor would be given the place; the deadline ends that, as everything."""
    _, proxy, server = torn_off(rig)
    proxy.bus.publish("stopped", timeout_s=60)
    proxy.await_phase("draining")
    turns = proxy.figures().turns
    proxy.figures_when(lambda figures: figures.turns > turns + 5, "it would have drained")
    proxy.await_phase("draining")
    receive_all(server)
    proxy.await_phase("stopped")
    assert proxy.worker.exit_code() == 0

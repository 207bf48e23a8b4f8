"""Clients that wait for a pipe, and clients that do not take their replies."""

import signal
from time import monotonic

from tests.faults.scripted import expect, expect_end, get, next_pipe, page, sharing, words
from tests.harness import Rig, fill, is_silent, receive, receive_all


def test_one_more_client_than_may_wait_is_told_so_and_closed(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"queue_max": 2})
    holder = proxy.connect()
    holder.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(holder, b"+OK\r\n")
    waiting = [proxy.connect() for _ in range(2)]
    for client in waiting:
        client.sendall(words("GET", "w"))
    assert is_silent(server, 0.1)
    late = proxy.connect()
    late.sendall(words("GET", "late"))
    expect(late, b"-ERR aegis: queue_full\r\n")
    expect_end(late)
    holder.close()
    server = next_pipe(server, upstream)
    expect(server, words("GET", "w") * 2)
    server.sendall(b"+W\r\n" * 2)
    for client in waiting:
        expect(client, b"+W\r\n")


def test_a_client_that_has_waited_too_long_is_told_so_and_closed(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"queue_timeout_s": 0.3})
    holder = proxy.connect()
    holder.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(holder, b"+OK\r\n")
    client = proxy.connect()
    began = monotonic()
    client.sendall(words("GET", "w"))
    expect(client, b"-ERR aegis: queue_timeout\r\n")
    assert monotonic() - began > 0.29
    expect_end(client)
    holder.sendall(words("DISCARD"))
    expect(server, words("DISCARD"))
    server.sendall(b"+OK\r\n")
    expect(holder, b"+OK\r\n")


def test_everybody_who_waited_is_served_although_the_pipe_takes_few_at_once(rig: Rig) -> None:
    """With tiny slabs the pipe is full after two requests: the rest must be woken later."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=64, slabs=4)
    holder = proxy.connect()
    holder.sendall(words("MULTI"))
    server = upstream.accept()
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(holder, b"+OK\r\n")
    waiting = [proxy.connect() for _ in range(10)]
    for client in waiting:
        client.sendall(words("GET", "key-of-some-length"))
    assert is_silent(server, 0.2)
    holder.close()
    server = next_pipe(server, upstream)
    size = len(words("GET", "key-of-some-length"))
    for _ in waiting:
        receive(server, size)
        server.sendall(b"+W\r\n")
    for client in waiting:
        expect(client, b"+W\r\n")


def test_a_client_that_pipelines_without_end_does_not_starve_one_that_needs_the_pipe(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"queue_timeout_s": 2.0})
    greedy, modest = proxy.connect(), proxy.connect()
    greedy.sendall(words("GET", "g") * 2)
    server = upstream.accept()
    expect(server, words("GET", "g") * 2)
    modest.sendall(words("MULTI"))
    size = len(words("GET", "g"))
    for _ in range(100):  # always one request ahead of its replies
        server.sendall(b"+G\r\n")
        expect(greedy, b"+G\r\n")
        greedy.sendall(words("GET", "g"))
        if is_silent(server, 0.05):
            break
        assert receive(server, size) == words("GET", "g")
    else:
        raise AssertionError("it never got its turn")
    server.sendall(b"+G\r\n")
    expect(greedy, b"+G\r\n")
    expect(server, words("MULTI"))
    server.sendall(b"+OK\r\n")
    expect(modest, b"+OK\r\n")


def test_a_slow_reader_on_a_shared_pipe_is_closed_so_that_the_others_go_on(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, buffer_bytes=4096, slab_bytes=4096, slabs=2)
    slow, other = proxy.connect(receive_buffer=4096), proxy.connect()
    slow.sendall(words("GET", "big"))
    server = upstream.accept()
    expect(server, words("GET", "big"))
    other.sendall(words("GET", "small"))
    expect(server, words("GET", "small"))
    server.sendall(b"$500000\r\n" + bytes(500_000) + b"\r\n" + b"+S\r\n")
    other.settimeout(15)
    expect(other, b"+S\r\n")
    assert len(receive_all(slow)) < 500_000


def test_a_new_client_is_not_put_behind_a_slow_reader_when_another_pipe_may_be_had(
    rig: Rig,
) -> None:
    upstream = rig.upstream(buffer_bytes=4096)
    room = {"max_connections": 2}
    proxy = sharing(rig, "resp", upstream, backend=room, buffer_bytes=4096, slab_bytes=4096)
    slow, other = proxy.connect(receive_buffer=4096), proxy.connect()
    slow.sendall(words("GET", "big"))
    server = upstream.accept()
    expect(server, words("GET", "big"))
    reply = b"$20000000\r\n" + bytes(20_000_000) + b"\r\n"
    fill(server, reply)
    other.sendall(words("GET", "small"))
    upstream.sock.settimeout(2)
    second = upstream.accept()
    expect(second, words("GET", "small"))
    second.sendall(b"+S\r\n")
    expect(other, b"+S\r\n")
    slow.close()


def test_a_slow_reader_that_reads_after_all_gets_every_byte(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, buffer_bytes=4096, slab_bytes=4096, slabs=2)
    slow, other = proxy.connect(receive_buffer=4096), proxy.connect()
    slow.sendall(words("GET", "big") * 2)
    server = upstream.accept()
    expect(server, words("GET", "big") * 2)
    other.sendall(words("GET", "small"))
    expect(server, words("GET", "small"))
    reply = b"$30000\r\n" + bytes(range(48, 58)) * 3000 + b"\r\n"
    server.sendall(reply * 2 + b"+S\r\n")
    assert is_silent(other, 0.1)
    expect(slow, reply * 2)
    expect(other, b"+S\r\n")


def test_answers_of_the_proxys_own_wait_for_a_client_that_is_slow_to_read(rig: Rig) -> None:
    """A thousand requests that no server hears of, sent before the first answer is read."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, buffer_bytes=4096, slab_bytes=512, slabs=4)
    client = proxy.connect(receive_buffer=4096)
    client.settimeout(1)
    sent = 0
    try:
        while sent < 20_000:
            client.sendall(words("CLIENT", "SETNAME", "me") * 100)
            sent += 100
    except TimeoutError:
        pass
    client.settimeout(5)
    expect(client, b"+OK\r\n" * (sent or 1))


def test_requests_of_one_turn_are_not_pipelined_where_the_protocol_forbids_it(rig: Rig) -> None:
    """The pipe that a turn gathers on takes no second request of HTTP, whoever comes first."""
    upstream = rig.upstream()
    proxy = sharing(rig, "http1", upstream)
    clients = [proxy.connect() for _ in range(3)]
    clients[0].sendall(get("/0"))
    server = upstream.accept()
    for client in clients:  # all are accepted now, and the pipe is idle
        if client is not clients[0]:
            client.sendall(get("/0"))
        expect(server, get("/0"))
        server.sendall(page(b"0"))
        expect(client, page(b"0"))
    proxy.worker.freeze()
    for number, client in enumerate(clients):
        client.sendall(get(f"/{number}"))
    proxy.worker.signal(signal.SIGCONT)
    for _ in clients:
        request = receive(server, len(get("/0")))
        number = int(request[5:6])
        assert is_silent(server, 0.1), "the next came before the reply"
        server.sendall(page(b"%d" % number))
        expect(clients[number], page(b"%d" % number))

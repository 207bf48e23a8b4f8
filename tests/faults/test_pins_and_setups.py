"""State that a request leaves on its connection stays with the client that asked for it."""

import socket

from tests.faults.scripted import expect, expect_end, next_pipe, sharing, transaction, words
from tests.harness import Rig, is_silent, receive, reset

TCP_ESTABLISHED = 1  # tcp_states.h; the first byte of struct tcp_info is the state
HELLO = b"%1\r\n+proto\r\n:3\r\n"


def test_a_pipe_serves_others_after_exec_without_a_trace_of_the_transaction(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client, other = proxy.connect(), proxy.connect()
    server = transaction(client, upstream)
    other.sendall(words("GET", "b"))
    client.sendall(words("INCR", "a"))
    expect(server, words("INCR", "a"))
    server.sendall(b"+QUEUED\r\n")
    expect(client, b"+QUEUED\r\n")
    assert is_silent(server, 0.1)  # the other's request is not in the transaction
    client.sendall(words("EXEC"))
    expect(server, words("EXEC"))
    server.sendall(b"*1\r\n:1\r\n")
    expect(client, b"*1\r\n:1\r\n")
    server = next_pipe(server, upstream)
    expect(server, words("GET", "b"))
    server.sendall(b"$1\r\nB\r\n")
    expect(other, b"$1\r\nB\r\n")


def test_a_client_that_leaves_in_a_transaction_takes_it_with_it(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client, other = proxy.connect(), proxy.connect()
    server = transaction(client, upstream)
    client.sendall(words("INCR", "a"))
    expect(server, words("INCR", "a"))
    reset(client)
    other.sendall(words("GET", "b"))
    expect_end(server)  # it owes a reply: it cannot be made clean
    server = upstream.accept()
    expect(server, words("GET", "b"))
    server.sendall(b"$1\r\nB\r\n")
    expect(other, b"$1\r\nB\r\n")


def test_bytes_behind_execs_reply_do_not_hide_behind_the_reset(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    server = transaction(client, upstream)
    client.sendall(words("EXEC"))
    expect(server, words("EXEC"))
    server.sendall(b"*0\r\n+RESET\r\n$4\r\nEV")
    expect(client, b"*0\r\n")
    rest = server.recv(100)
    if rest:
        server.sendall(b"+RESET\r\n")
        rest = server.recv(100)
    assert rest == b"", "the pipe goes on although the server said what nobody had asked for"


def test_a_database_of_one_client_is_not_anothers(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    chooser, other = proxy.connect(), proxy.connect()
    other.sendall(words("GET", "a"))
    plain = upstream.accept()
    expect(plain, words("GET", "a"))
    plain.sendall(b"$1\r\nA\r\n")
    expect(other, b"$1\r\nA\r\n")
    chooser.sendall(words("SELECT", "5"))
    fifth = upstream.accept()
    expect(fifth, words("SELECT", "5"))
    fifth.sendall(b"+OK\r\n")
    expect(fifth, words("SELECT", "5"))
    fifth.sendall(b"+OK\r\n")
    expect(chooser, b"+OK\r\n")
    for _ in range(3):
        other.sendall(words("GET", "a"))
        expect(plain, words("GET", "a"))
        plain.sendall(b"$1\r\nA\r\n")
        expect(other, b"$1\r\nA\r\n")
        chooser.sendall(words("GET", "a"))
        expect(fifth, words("GET", "a"))
        fifth.sendall(b"$1\r\n5\r\n")
        expect(chooser, b"$1\r\n5\r\n")


def test_a_setup_that_is_refused_is_the_clients_answer_and_no_pipe_keeps_it(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(words("AUTH", "wrong"))
    server = upstream.accept()
    expect(server, words("AUTH", "wrong"))
    server.sendall(b"-WRONGPASS no\r\n")
    expect(client, b"-WRONGPASS no\r\n")
    expect_end(server)
    other.sendall(words("GET", "a"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    expect(other, b"$1\r\nA\r\n")


def test_a_switch_whose_reply_is_lost_leaves_the_client_as_it_was(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    client = proxy.connect()
    client.sendall(words("SELECT", "5"))
    fifth = upstream.accept()
    expect(fifth, words("SELECT", "5"))  # the setup
    fifth.sendall(b"+OK\r\n")
    expect(fifth, words("SELECT", "5"))  # the client's own
    fifth.close()
    expect(client, b"-ERR aegis: server_lost\r\n")
    client.sendall(words("GET", "a"))
    plain = upstream.accept()
    expect(plain, words("GET", "a"))
    plain.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")


def test_a_switch_that_is_refused_leaves_the_client_as_it_was(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    client = proxy.connect()
    client.sendall(words("SELECT", "5"))
    fifth = upstream.accept()
    for _ in range(2):  # the setup, and the client's own
        expect(fifth, words("SELECT", "5"))
        fifth.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")
    client.sendall(words("HELLO", "3", "AUTH", "a", "b") + words("GET", "k"))
    server = upstream.accept()
    expect(server, words("AUTH", "a", "b") + words("HELLO", "3") + words("SELECT", "5"))
    server.sendall(b"-WRONGPASS no\r\n")
    expect(client, b"-WRONGPASS no\r\n")
    expect_end(server)
    expect(fifth, words("GET", "k"))
    fifth.sendall(b"$1\r\n5\r\n")
    expect(client, b"$1\r\n5\r\n")


def test_a_password_that_no_longer_holds_is_refused_where_it_once_held(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    client, late = proxy.connect(), proxy.connect()
    client.sendall(words("AUTH", "old"))
    owned = upstream.accept()
    for _ in range(2):
        expect(owned, words("AUTH", "old"))
        owned.sendall(b"+OK\r\n")
    expect(client, b"+OK\r\n")
    late.sendall(words("AUTH", "old") + words("GET", "k"))
    expect(owned, words("AUTH", "old"))
    owned.sendall(b"-WRONGPASS no\r\n")
    expect(late, b"-WRONGPASS no\r\n")
    plain = upstream.accept()  # never on the pipe that has been authenticated
    expect(plain, words("GET", "k"))
    plain.sendall(b"-NOAUTH no\r\n")
    expect(late, b"-NOAUTH no\r\n")
    client.sendall(words("GET", "k"))
    expect(owned, words("GET", "k"))
    owned.sendall(b"$1\r\nv\r\n")
    expect(client, b"$1\r\nv\r\n")


def test_a_refusal_that_comes_in_two_reads_reaches_the_client_whole(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("AUTH", "wrong"))
    server = upstream.accept()
    expect(server, words("AUTH", "wrong"))
    server.sendall(b"-WRONG")
    assert is_silent(client, 0.2)
    server.sendall(b"PASS no\r\n")
    expect(client, b"-WRONGPASS no\r\n")
    expect_end(server)


def test_a_setups_reply_may_be_longer_than_a_slab(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, slab_bytes=64, slabs=4)
    client = proxy.connect()
    client.sendall(words("HELLO", "3"))
    server = upstream.accept()
    expect(server, words("HELLO", "3"))
    reply = b"%2\r\n+proto\r\n:3\r\n+text\r\n+" + b"x" * 300 + b"\r\n"
    server.sendall(reply)
    expect(server, words("HELLO", "3"))
    server.sendall(reply)
    expect(client, reply)


def test_a_client_that_leaves_while_its_setup_is_under_way_leaves_nothing(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(words("HELLO", "3"))
    server = upstream.accept()
    expect(server, words("HELLO", "3"))
    reset(client)
    other.sendall(words("GET", "a"))
    proxy.figures_when(lambda f: f.sessions == 1, "the first to have left")
    server.sendall(HELLO)
    expect_end(server)  # its place is needed for a pipe without HELLO
    server = upstream.accept()
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    expect(other, b"$1\r\nA\r\n")


def test_a_server_that_closes_during_the_setup_is_not_dialled_without_pause(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"queue_timeout_s": 1.0})
    client = proxy.connect()
    client.sendall(words("SELECT", "1"))
    upstream.sock.settimeout(0.5)
    dialled = 0
    while True:
        try:
            server = upstream.accept()
        except TimeoutError:
            break
        dialled += 1
        server.close()
    assert dialled < 50, "each dial costs the server a process or a handshake"
    assert client.recv(100).startswith(b"-ERR")


def test_an_error_behind_a_select_is_not_taken_for_the_selects(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("SELECT", "1") + words("INCR", "text"))
    server = upstream.accept()
    expect(server, words("SELECT", "1"))
    server.sendall(b"+OK\r\n")
    expect(server, words("SELECT", "1"))
    if is_silent(server, 0.1):  # it may wait for the reply, so that it knows what it means
        server.sendall(b"+OK\r\n")
        expect(server, words("INCR", "text"))
        server.sendall(b"-ERR value is not an integer\r\n")
    else:
        expect(server, words("INCR", "text"))
        server.sendall(b"+OK\r\n-ERR value is not an integer\r\n")
    expect(client, b"+OK\r\n-ERR value is not an integer\r\n")
    client.sendall(words("GET", "a"))
    expect(server, words("GET", "a"))
    server.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")


def test_a_pipe_that_makes_room_is_closed_before_the_next_is_dialled(rig: Rig) -> None:
    """The server counts connections, not intentions: max_connections is never passed."""
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    clients = [proxy.connect() for _ in range(2)]
    pipes: list[socket.socket] = []
    for turn in range(200):
        requests = [words("SELECT", str(2 * turn + n + 100)) for n in range(2)]
        for client, request in zip(clients, requests, strict=True):
            client.sendall(request)
        for _ in clients:
            upstream.sock.settimeout(5)
            fresh = upstream.accept()
            pipes = [pipe for pipe in pipes if is_established(pipe)]
            assert len(pipes) < 2, f"three connections at one moment, in turn {turn}"
            pipes.append(fresh)
            request = receive(fresh, len(requests[0]))
            fresh.sendall(b"+OK\r\n")
            expect(fresh, request)
            fresh.sendall(b"+OK\r\n")
        for client in clients:
            expect(client, b"+OK\r\n")


def is_established(sock: socket.socket) -> bool:
    """Whether the worker has not closed its end."""
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return bool(state == TCP_ESTABLISHED)

"""Chronos against clients that are slow, rude, many or gone."""

import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ops.test_chronos_process import (
    DEADLINE_S,
    Chronos,
    read_all,
    read_exactly,
    running,
)

MIB = 1 << 20


@pytest.fixture
def chronos(tmp_path: Path) -> Iterator[Chronos]:
    with running(tmp_path / "db") as server:
        yield server
        assert server.process.poll() is None, server.stderr.read_text()


def test_a_client_that_shuts_down_its_side_still_gets_every_reply(chronos: Chronos) -> None:
    count = 20_000
    sent = b"".join(b"SET k %d\nGET k\n" % i for i in range(count))
    assert chronos.ask(sent) == b"".join(b"OK\n%d\n" % i for i in range(count))
    assert chronos.ask(b"") == b""


def test_replies_of_the_greatest_size_all_reach_a_client_that_shut_down(chronos: Chronos) -> None:
    value = b"v" * (MIB - 10)
    assert chronos.ask(b"SET k " + value + b"\n") == b"OK\n"
    assert chronos.ask(b"GET k\n" * 50) == (value + b"\n") * 50


def test_a_client_that_takes_no_output_is_not_read_and_holds_little_memory(
    chronos: Chronos,
) -> None:
    key, value = b"k" * 4000, b"v" * 65_536  # the reply is 16 times the request
    assert chronos.ask(b"SET %s %s\n" % (key, value)) == b"OK\n"
    request, reply = b"GET " + key + b"\n", value + b"\n"
    before = chronos.rss_bytes()
    with chronos.connect(receive_buffer_bytes=4096) as slow:
        slow.setblocking(False)
        sent = 0
        # Half a second without room means that the server reads no more.
        while select.select([], [slow], [], 0.5)[1]:
            position = sent % len(request)
            sent += slow.send((request * 16)[position:])
            assert sent < 64 * MIB, "the server reads on although nobody takes its replies"
        assert chronos.rss_bytes() - before < 16 * MIB
        idle_cpu_s = chronos.cpu_s()
        assert chronos.ask(b"PING\n") == b"PONG\n"
        assert chronos.cpu_s() - idle_cpu_s < 0.2, "the loop spins on a client it does not read"
        slow.settimeout(DEADLINE_S)
        for _ in range(sent // len(request)):
            assert read_exactly(slow, len(reply)) == reply
    assert chronos.rss_bytes() - before < 16 * MIB


def test_requests_that_arrived_wait_while_their_client_takes_no_output(chronos: Chronos) -> None:
    value = b"v" * (MIB - 10)
    assert chronos.ask(b"SET k " + value + b"\n") == b"OK\n"
    before = chronos.rss_bytes()
    with chronos.connect(receive_buffer_bytes=4096) as slow:
        slow.sendall(b"GET k\n" * 300)  # one packet, 300 MiB of replies
        assert read_exactly(slow, 1) == b"v"
        assert chronos.ask(b"PING\n") == b"PONG\n"
        assert chronos.rss_bytes() - before < 32 * MIB


def test_clients_that_reset_in_the_middle_hurt_nobody_else(chronos: Chronos) -> None:
    with chronos.connect() as steady:
        for i in range(200):
            rude = chronos.connect()
            rude.sendall(b"SET k v\nGET k\n" * (i * 10) + b"SET half")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.close()
            steady.sendall(b"PING\n")
            assert read_exactly(steady, 5) == b"PONG\n"


def test_the_replies_of_a_turn_reach_the_clients_they_belong_to(chronos: Chronos) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(chronos.connect()) for _ in range(100)]
        for turn in range(20):
            for i, sock in enumerate(clients):
                sock.sendall(b"SET %d %d\nGET %d\n" % (i, turn, i))
            for i, sock in enumerate(clients):
                expected = b"OK\n%d\n" % turn
                assert (i, read_exactly(sock, len(expected))) == (i, expected)


def test_without_descriptors_accepting_pauses_and_goes_on(chronos: Chronos) -> None:
    pid = chronos.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(fd for fd in range(soft) if fd not in used)
    # The limit is one above the highest number allowed, and the kernel gives the lowest free.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + 1, hard))
    with ExitStack() as stack:
        first = stack.enter_context(chronos.connect())
        first.sendall(b"PING\n")
        assert read_exactly(first, 5) == b"PONG\n"
        second = stack.enter_context(chronos.connect())  # as far as the kernel's queue
        second.sendall(b"PING\n")
        before_s = chronos.cpu_s()
        assert select.select([second], [], [], 0.5)[0] == []
        assert chronos.cpu_s() - before_s < 0.2, "the loop spins on the listener"
        first.close()
        assert read_exactly(second, 5) == b"PONG\n"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert chronos.ask(b"SET k v\nGET k\n") == b"OK\nv\n"


def test_descriptors_the_store_needs_are_never_given_to_clients(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))  # inherited; leaves 108 clients
    try:
        with running(tmp_path / "db") as chronos, ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            clients = [stack.enter_context(chronos.connect()) for _ in range(310)]
            for sock in clients:
                sock.sendall(b"SET k v\nCOMPACT\n")
            for sock in clients:
                assert read_exactly(sock, 16) == b"OK\nOK_COMPACTED\n"
                sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_idle_client_costs_little_memory(chronos: Chronos) -> None:
    with ExitStack() as stack:
        warm = [stack.enter_context(chronos.connect()) for _ in range(100)]
        for sock in warm:
            sock.sendall(b"PING\n")
            read_exactly(sock, 5)
        before = chronos.rss_bytes()
        idle = [stack.enter_context(chronos.connect()) for _ in range(500)]
        for sock in idle:
            sock.sendall(b"PING\n")
            read_exactly(sock, 5)
        assert (chronos.rss_bytes() - before) / len(idle) < 4096


def test_a_client_that_never_closes_after_a_refusal_is_closed(chronos: Chronos) -> None:
    with chronos.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\n\n")
        assert b" 400 " in read_all(sock)
        held = chronos.sockets()
        deadline = time.monotonic() + DEADLINE_S
        while chronos.sockets() == held:  # our end is not told of it
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)
    assert chronos.ask(b"PING\n") == b"PONG\n"

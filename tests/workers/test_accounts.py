"""Nothing is lost: sessions, fds, memory. (Every rig checks the sums once more when it ends.)"""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from tests.harness import DEADLINE_S, Proxy, Rig, Upstream, receive, reset


@contextmanager
def answering(upstream: Upstream, count: int) -> Iterator[None]:
    """Serve so many connections with one byte each."""

    def serve() -> None:
        for _ in range(count):
            server, _ = upstream.sock.accept()
            with server:
                server.settimeout(DEADLINE_S)
                if server.recv(1):
                    server.sendall(b"a")

    thread = Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def short_sessions(proxy: Proxy, upstream: Upstream, count: int) -> None:
    """Have so many clients come, get an answer and leave."""
    with answering(upstream, count):
        for _ in range(count):
            with socket.create_connection(proxy.sock.getsockname(), DEADLINE_S) as client:
                client.sendall(b"q")
                assert receive(client, 1) == b"a"
    proxy.figures_when(lambda f: not f.sessions, "all sessions have ended")


def test_fds_and_memory_return_to_where_they_were_after_thousands_of_short_sessions(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    short_sessions(proxy, upstream, 500)
    process = proxy.worker.process
    fds, memory = proxy.fds(), process.memory_info().rss
    short_sessions(proxy, upstream, 3000)
    assert proxy.fds() == fds
    assert process.memory_info().rss - memory < 1 << 20
    figures = proxy.figures()
    assert figures.listeners[0].accepted == 3500
    assert figures.servers[0].connects == 3500
    assert figures.listeners[0].bytes == [3500, 3500]


def test_sessions_that_end_in_every_way_leave_no_fd_and_add_up(
    rig: Rig, rng: random.Random
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, rig.refused_address(), slabs=2)
    fds = proxy.fds()
    for _ in range(150):
        client, server = proxy.pair(upstream)
        if rng.random() < 0.5:
            client.sendall(bytes(rng.randint(1, 200_000)))
        if rng.random() < 0.5:
            server.sendall(bytes(rng.randint(1, 50_000)))
        for sock in rng.sample([client, server], 2):
            rng.choice([reset, type(sock).close])(sock)
        if rng.random() < 0.2:
            figures = proxy.figures()
            front = figures.listeners[0]
            assert front.accepted == front.sessions + sum(front.closed.values())
    figures = proxy.figures_when(lambda f: not f.sessions, "all sessions have ended")
    assert figures.listeners[0].accepted == 150
    assert figures.listeners[0].closed["error"] == 0
    assert proxy.fds() == fds


def test_a_flood_of_clients_that_never_say_anything_holds_nobody_up(rig: Rig) -> None:
    upstream = rig.upstream(backlog=1000)
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    flood = [proxy.connect() for _ in range(300)]
    client.sendall(b"ping")
    assert receive(server, 4) == b"ping"
    proxy.figures_when(lambda f: f.sessions == 301, "all are in")
    for silent in flood:
        silent.close()
    for _ in flood:
        upstream.accept().close()
    proxy.figures_when(lambda f: f.sessions == 1, "all are gone")

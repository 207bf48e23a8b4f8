"""Clients that share pipes to several servers: who gets requests, and what becomes of those that
could not be written."""

import select
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

from aegis.messages import ServerWish
from tests.faults.scripted import expect, sharing, words
from tests.harness import Proxy, Rig, Upstream, receive, wait_until


class Answering:
    """A server that answers each line, and counts them."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.answered = 0
        self.connections: list[socket.socket] = []
        self._end = Event()
        self._thread = Thread(target=self._serve)

    def _serve(self) -> None:
        listening = self.upstream.sock
        while not self._end.is_set():
            ready = select.select([listening, *self.connections], [], [], 0.05)[0]
            for sock in ready:
                if sock is listening:
                    self.connections.append(listening.accept()[0])
                    continue
                lines = sock.recv(65536).count(b"\n")
                if not lines:
                    self.connections.remove(sock)
                    sock.close()
                    continue
                self.answered += lines
                sock.sendall(b"OK\n" * lines)
        for sock in self.connections:
            sock.close()

    def __enter__(self) -> "Answering":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def answering(rig: Rig, count: int) -> Iterator[list[Answering]]:
    with ExitStack() as own:
        yield [own.enter_context(Answering(rig.upstream())) for _ in range(count)]


def wishes(servers: Sequence[Answering], weights: Sequence[int]) -> list[ServerWish]:
    return [
        ServerWish(server.upstream.address, weight)
        for server, weight in zip(servers, weights, strict=True)
    ]


def ask(client: socket.socket, times: int) -> None:
    for _ in range(times):
        client.sendall(b"GET a\n")
        assert receive(client, 3) == b"OK\n"


def shares(servers: Sequence[Answering], proxy: Proxy, times: int) -> list[int]:
    """Ask so often, one after another; returns who has answered how much."""
    before = [server.answered for server in servers]
    ask(proxy.connect(), times)
    return [server.answered - old for server, old in zip(servers, before, strict=True)]


def proxy_of(rig: Rig, servers: Sequence[Answering], **backend: object) -> Proxy:
    return sharing(
        rig,
        "line",
        *(server.upstream for server in servers),
        backend={"max_connections": 0, **backend},
    )


def each_has_a_pipe(proxy: Proxy, servers: Sequence[Answering]) -> None:
    client = proxy.connect()

    def all_have() -> bool:
        ask(client, 1)
        return all(server.connections for server in servers)

    wait_until(all_have, "a pipe to each")


def test_requests_go_in_turn_by_weight(rig: Rig) -> None:
    with answering(rig, 3) as servers:
        proxy = proxy_of(rig, servers)
        proxy.want(*wishes(servers, [100, 200, 300]))
        each_has_a_pipe(proxy, servers)
        assert shares(servers, proxy, 600) == [100, 200, 300]


def test_with_least_conn_requests_go_to_who_owes_least(rig: Rig) -> None:
    upstreams = [rig.upstream(), rig.upstream()]
    proxy = sharing(
        rig,
        "resp",
        *upstreams,
        backend={"max_connections": 0, "balance": "least_conn", "pool_min": 2},
    )
    busy, idle = (upstream.accept() for upstream in upstreams)
    proxy.figures_when(lambda f: f.pools[0].pipes.get("idle") == 2, "both pipes are ready")
    waiting = proxy.connect()
    waiting.sendall(words("GET", "slow"))
    if not select.select([busy], [], [], 0.5)[0]:
        busy, idle = idle, busy
    expect(busy, words("GET", "slow"))
    client = proxy.connect()
    for _ in range(5):
        client.sendall(words("GET", "quick"))
        expect(idle, words("GET", "quick"))
        idle.sendall(b"$-1\r\n")
        expect(client, b"$-1\r\n")


def test_a_server_that_comes_back_gets_requests_although_others_have_all_the_pipes(
    rig: Rig,
) -> None:
    with answering(rig, 3) as servers:
        proxy = proxy_of(rig, servers, max_connections=2)
        proxy.want(*wishes(servers, [100, 100, 0]))
        each_has_a_pipe(proxy, servers[:2])
        proxy.want(*wishes(servers, [0, 100, 100]))
        each_has_a_pipe(proxy, servers[1:])
        counts = shares(servers, proxy, 100)
        assert counts[0] == 0
        assert min(counts[1:]) >= 40
        assert proxy.figures().backends[0].open <= 2


def test_a_server_that_is_let_go_loses_its_pipes_at_once_and_no_request(rig: Rig) -> None:
    with answering(rig, 2) as servers:
        proxy = proxy_of(rig, servers)
        each_has_a_pipe(proxy, servers)
        proxy.want(*wishes(servers, [100, 0]))
        assert shares(servers, proxy, 50) == [50, 0]
        wait_until(lambda: not servers[1].connections, "its pipes are closed")


def test_a_server_that_refuses_is_left_alone_and_the_others_serve(rig: Rig) -> None:
    with answering(rig, 2) as servers:
        proxy = sharing(
            rig,
            "line",
            *(server.upstream for server in servers),
            backend={"max_connections": 0},
        )
        refused = rig.refused_address()
        proxy.want(ServerWish(refused), *wishes(servers, [100, 100]))
        each_has_a_pipe(proxy, servers)
        counts = shares(servers, proxy, 300)
        assert sum(counts) == 300
        assert min(counts) >= 90
        (row,) = [row for row in proxy.figures().servers if row.address == refused]
        assert 1 <= row.connect_errors["ECONNREFUSED"] < 30, "not one for each of its turns"


def test_a_server_that_has_fallen_silent_is_given_no_more_while_others_answer(rig: Rig) -> None:
    with answering(rig, 2) as servers:
        silent = rig.upstream()
        addresses = [silent, *(server.upstream for server in servers)]
        backend = {"max_connections": 0, "pool_min": 3}
        proxy = sharing(rig, "line", *addresses, backend=backend)
        pipe = silent.accept()
        proxy.figures_when(lambda f: f.pools[0].pipes.get("idle") == 3, "a pipe to each")
        waiting = proxy.connect()
        while not select.select([pipe], [], [], 0)[0]:  # until it is the silent one's turn
            waiting.sendall(b"GET a\n")
            assert select.select([pipe, waiting], [], [], 20)[0]
            if select.select([waiting], [], [], 0)[0]:
                assert receive(waiting, 3) == b"OK\n"
        assert sum(shares(servers, proxy, 300)) == 300
        assert receive(pipe, 6) == b"GET a\n"
        pipe.sendall(b"OK\n")
        assert receive(waiting, 3) == b"OK\n"


def two_pipes(rig: Rig) -> tuple[Proxy, socket.socket, list[socket.socket]]:
    """Make a client and a pipe to each of two scripted servers."""
    upstreams = [rig.upstream(), rig.upstream()]
    proxy = sharing(rig, "resp", *upstreams, backend={"max_connections": 0, "pool_min": 2})
    servers = [upstream.accept() for upstream in upstreams]
    proxy.figures_when(lambda f: f.pools[0].pipes.get("idle") == 2, "both pipes are ready")
    return proxy, proxy.connect(), servers


def test_a_request_that_was_not_written_when_its_server_was_lost_goes_to_another(rig: Rig) -> None:
    """The request is gathered, then the server's end is met, before the turn's end sends it."""
    proxy, client, servers = two_pipes(rig)
    client.sendall(words("GET", "a"))
    turn = next(server for server in servers if select.select([server], [], [], 20)[0])
    expect(turn, words("GET", "a"))
    turn.sendall(b"$1\r\nA\r\n")
    expect(client, b"$1\r\nA\r\n")
    (next_one,) = [server for server in servers if server is not turn]
    proxy.worker.freeze()
    client.sendall(words("INCR", "b"))
    next_one.close()
    proxy.worker.signal(signal.SIGCONT)
    expect(turn, words("INCR", "b"))
    turn.sendall(b":1\r\n")
    expect(client, b":1\r\n")


def test_what_was_written_is_not_sent_again_and_what_was_not_keeps_its_order(rig: Rig) -> None:
    proxy, client, servers = two_pipes(rig)
    client.sendall(words("INCR", "a"))
    (lost,) = select.select(servers, [], [], 20)[0]
    expect(lost, words("INCR", "a"))
    (other,) = [server for server in servers if server is not lost]
    proxy.worker.freeze()
    client.sendall(words("INCR", "b"))
    lost.close()
    proxy.worker.signal(signal.SIGCONT)
    expect(client, b"-ERR aegis: server_lost\r\n")
    expect(other, words("INCR", "b"))
    other.sendall(b":7\r\n")
    expect(client, b":7\r\n")


def test_requests_of_many_clients_move_together(rig: Rig) -> None:
    proxy, first, servers = two_pipes(rig)
    clients = [first, *(proxy.connect() for _ in range(9))]
    proxy.figures_when(lambda f: f.sessions == 10, "all are in")
    proxy.worker.freeze()
    for number, client in enumerate(clients):
        client.sendall(words("GET", f"{number}"))
    for server in servers[:1]:
        server.close()
    proxy.worker.signal(signal.SIGCONT)
    said = receive(servers[1], sum(len(words("GET", f"{number}")) for number in range(10)))
    assert Counter(said.split(b"\r\n"))[b"GET"] == 10
    servers[1].sendall(b"".join(b"$1\r\n%s\r\n" % key for key in said.split(b"\r\n")[4::5]))
    for number, client in enumerate(clients):
        expect(client, b"$1\r\n%d\r\n" % number)

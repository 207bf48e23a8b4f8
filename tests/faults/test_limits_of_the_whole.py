"""Limits are stated for the whole proxy: two workers together keep them, and starve nobody."""

import errno
import random
import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.faults.asks import Ask
from tests.faults.poller import READ, WRITE, Poller
from tests.faults.resp_talk import RespTalk
from tests.faults.scripted import words
from tests.faults.servers import Redis
from tests.faults.shim import Shim
from tests.harness import Rig, is_silent, receive
from tests.proxy import FULL, Aegis, Proxies, connect, made, sockaddr

CLIENTS, TURNS = (1000, 50) if FULL else (120, 8)
KINDS = frozenset({"echo", "get", "incr", "transaction", "block"})
GIVE_UP_S = 600.0 if FULL else 60.0
UNFAIR = 20
"""Times the mean that the longest wait may be."""
HICCUP_S = 5.0
"""A busy machine may hold up anybody, whoever is served in which order."""


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with made() as proxies:
        yield proxies
        logs = "".join(aegis.log() for aegis in proxies.all)
        assert "Traceback" not in logs, logs


def sharing(proxies: Proxies, server: str, **backend: float) -> Aegis:
    """Start two workers that multiplex to one server."""
    aegis = proxies.new(server)
    front = {"bind": aegis.address, "protocol": "resp", "pooling": "multiplex"}
    aegis.configure(
        listeners={"front": front},
        backends={"db": {"servers": [server], **backend}},
        workers=2,
    )
    aegis.start()
    return aegis


class Asker:
    """A client that stays, and asks again as soon as it is answered."""

    def __init__(self, poller: Poller, address: tuple[str, int], talk: RespTalk) -> None:
        self.poller = poller
        self.talk = talk
        self.served = 0
        self.waits: dict[bool, list[float]] = {False: [], True: []}
        """By whether a pipe of its own was needed: for these the queue is another."""
        self._due: list[Ask] = []
        self._buf = bytearray()
        self._asked_at = 0.0
        self._pins = False
        self.sock = socket.socket()
        self.sock.setblocking(False)
        assert self.sock.connect_ex(address) in {0, errno.EINPROGRESS}
        poller.add(self.sock.fileno(), WRITE, self._begin)

    def _begin(self, mask: int) -> None:
        self.poller.remove(self.sock.fileno())
        self.poller.add(self.sock.fileno(), READ, self._hear)
        self._ask()

    def _ask(self) -> None:
        self._due = self.talk.next()
        self._asked_at = monotonic()
        data = b"".join(ask.data for ask in self._due)
        self._pins = b"MULTI" in data or b"BLPOP" in data
        self.sock.send(data)

    def _hear(self, mask: int) -> None:
        data = self.sock.recv(65_536)
        assert data, "closed"
        self._buf += data
        at = 0
        while self._due and (found := self.talk.parse(self._buf, at, self._due[0])):
            reply, at = found
            assert self._due.pop(0).fits(reply), reply
        del self._buf[:at]
        if not self._due:
            assert not self._buf, "more than was asked for"
            self.served += 1
            self.waits[self._pins].append(monotonic() - self._asked_at)
            self._ask()

    def close(self) -> None:
        self.poller.remove(self.sock.fileno())
        self.sock.close()


def test_the_server_never_sees_a_ninth_connection_and_no_client_starves(
    proxies: Proxies, rng: random.Random
) -> None:
    poller = Poller()
    server = Redis(proxies.directory)
    proxies.own.callback(server.close)
    shim = Shim(poller, rng, server.address)
    proxies.own.callback(shim.close)
    limits = {"max_connections": 8, "queue_timeout_s": GIVE_UP_S, "queue_max": 10_000}
    aegis = sharing(proxies, shim.address, **limits)
    address = sockaddr(aegis.address)
    askers = [
        Asker(poller, address, RespTalk(b"c%d-0" % n, random.Random(rng.random()), 1, KINDS))
        for n in range(CLIENTS)
    ]
    give_up = monotonic() + GIVE_UP_S
    while (fewest := min(asker.served for asker in askers)) < TURNS:
        assert monotonic() < give_up, f"somebody was served {fewest} times only"
        poller.turn()
    most = max(asker.served for asker in askers)
    print(f"{fewest} to {most} turns for each client, {shim.most} connections at one moment")
    for asker in askers:
        asker.close()
    assert 2 <= shim.most <= 8
    for pinned in (False, True):
        waits = [wait for asker in askers for wait in asker.waits[pinned]]
        mean, longest = sum(waits) / len(waits), max(waits)
        print(f"pinned {pinned}: {len(waits)} waits, mean {mean:.4f} s, longest {longest:.4f} s")
        assert longest < UNFAIR * mean + HICCUP_S


def test_one_connection_for_two_workers_whose_clients_all_want_it_starves_nobody(
    proxies: Proxies,
) -> None:
    server = Redis(proxies.directory)
    proxies.own.callback(server.close)
    limits = {"max_connections": 1, "queue_timeout_s": 2.0}
    aegis = sharing(proxies, "{}:{}".format(*server.address), **limits)
    enough = monotonic() + 5.0
    answers: list[bytes] = []

    def ask() -> None:
        with connect(aegis.address) as client:
            while monotonic() < enough:
                client.sendall(words("PING"))
                answers.append(receive(client, 7))

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert set(answers) == {b"+PONG\r\n"}


def test_pool_min_is_divided_over_the_workers(rig: Rig, proxies: Proxies) -> None:
    upstream = rig.upstream()
    aegis = sharing(proxies, upstream.address, pool_min=3, max_idle_s=0.2)
    for _ in range(3):
        upstream.accept()
    assert is_silent(upstream.sock, 0.5), "each worker keeps as many as both should"
    aegis.done("scale", "3")
    upstream.accept()  # the third worker's, which one of the others gives up
    assert is_silent(upstream.sock, 0.5), "the workers that were there keep as many as before"

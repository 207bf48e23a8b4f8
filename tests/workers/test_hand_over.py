"""Replacing a worker: no client is refused or reset, whoever holds the listening socket."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from tests.harness import DEADLINE_S, Kind, Proxy, Rig, Upstream, receive, wait_until


class Traffic:
    """Clients that connect, speak and leave, one after the other, and a server that answers."""

    def __init__(self, proxy: Proxy, upstream: Upstream) -> None:
        self.served = 0
        self.failures: list[str] = []
        self._proxy = proxy
        self._upstream = upstream.sock
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._clients) for _ in range(2)]
        self._threads.append(threading.Thread(target=self._server))

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        """Let it flow; at the end nothing may have failed."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def flows(self) -> None:
        """Wait until fifty more clients have been served."""
        enough = self.served + 50
        wait_until(lambda: self.served >= enough or self.failures, "clients are served")
        assert self.failures == []

    def _clients(self) -> None:
        while not self._stop.is_set():
            with socket.socket(self._proxy.sock.family) as client:
                client.settimeout(DEADLINE_S)
                try:
                    client.connect(self._proxy.sock.getsockname())
                    client.sendall(b"ping")
                    assert receive(client, 4) == b"pong"
                except (OSError, AssertionError) as error:
                    self.failures.append(repr(error))
                    return
            self.served += 1

    def _server(self) -> None:
        self._upstream.settimeout(0.1)
        while not self._stop.is_set() or any(t.is_alive() for t in self._threads[:2]):
            try:
                server, _ = self._upstream.accept()
            except TimeoutError:
                continue
            with server:
                server.settimeout(DEADLINE_S)
                if receive(server, 4) == b"ping":
                    server.sendall(b"pong")


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_replacing_a_worker_refuses_and_resets_nobody(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind=kind)
    with Traffic(proxy, upstream).running() as traffic:
        for _ in range(4):
            traffic.flows()
            old = proxy.workers[-1]
            new = proxy.spawn()
            proxy.await_phase("serving", new)
            proxy.bus.publish("serving", retired={old.pid: monotonic() + 60})
            proxy.await_phase("stopped", old)
            assert old.exit_code() == 0
        traffic.flows()


def test_a_drain_serves_everybody_it_does_not_refuse(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    for _ in range(3):
        with Traffic(proxy, upstream).running() as traffic:
            traffic.flows()
            proxy.bus.publish("drained", timeout_s=60)
            wait_until(lambda: len(traffic.failures) == 2, "both clients are refused")
        assert all("ConnectionRefusedError" in failure for failure in traffic.failures)
        proxy.bus.publish("serving")
        proxy.await_phase("serving")


def test_a_retired_worker_finishes_its_sessions_while_its_successor_serves(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    new = proxy.spawn()
    proxy.await_phase("serving", new)
    proxy.bus.publish("serving", retired={proxy.worker.pid: monotonic() + 60})
    proxy.await_phase("draining")
    for _ in range(20):
        proxy.pair(upstream)
    assert proxy.bus.ask(new.pid).listeners[0].accepted == 20
    client.sendall(b"old friend")
    assert receive(server, 10) == b"old friend"
    client.close()
    server.close()
    assert proxy.worker.exit_code() == 0


def test_the_deadline_of_a_retired_worker_cuts_its_sessions_only(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, _ = proxy.pair(upstream)
    proxy.await_phase("serving", proxy.spawn())
    proxy.bus.publish("serving", retired={proxy.worker.pid: monotonic() + 0.5})
    assert client.recv(1) == b""
    assert proxy.worker.exit_code() == 0
    other, server = proxy.pair(upstream)
    other.sendall(b"x")
    assert receive(server, 1) == b"x"


def test_a_killed_worker_leaves_its_queue_to_its_successor(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    proxy.worker.signal(signal.SIGKILL)
    proxy.worker.exit_code()
    client = proxy.connect()
    client.sendall(b"anybody?")
    proxy.await_phase("serving", proxy.spawn())
    assert receive(upstream.accept(), 8) == b"anybody?"


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_a_worker_that_starts_drained_opens_no_door_that_a_killed_one_left_open(
    kind: Kind, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind=kind)
    proxy.worker.signal(signal.SIGKILL)
    proxy.worker.exit_code()
    proxy.bus.publish("drained")
    new = proxy.spawn("drained")
    proxy.await_phase("drained", new)
    if kind == "unix":
        client = proxy.connect()
        client.settimeout(5.0)
        assert client.recv(1) == b""
    else:
        assert proxy.refuses()


def test_a_worker_that_starts_drained_serves_when_it_is_told_to(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, goal="drained")
    assert proxy.refuses()
    proxy.bus.publish("serving")
    proxy.await_phase("serving")
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"


def test_a_successor_serves_although_its_predecessor_was_killed_in_the_middle_of_a_drain(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    proxy.pair(upstream)
    proxy.bus.publish("drained", timeout_s=60)
    proxy.await_phase("draining")
    proxy.worker.signal(signal.SIGKILL)  # its filter still drops whoever comes
    proxy.worker.exit_code()
    proxy.bus.publish("serving")
    proxy.await_phase("serving", proxy.spawn())
    client, server = proxy.pair(upstream)
    client.sendall(b"x")
    assert receive(server, 1) == b"x"

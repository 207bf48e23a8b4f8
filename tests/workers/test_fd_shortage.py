"""A worker that runs out of file descriptors waits for some; it neither spins nor forgets."""

import resource
from pathlib import Path

import pytest

from tests.harness import Proxy, Rig, receive


def limit_fds(proxy: Proxy, spare: int) -> None:
    """Leave the worker so many fds above the highest that it has open now."""
    fds = Path(f"/proc/{proxy.worker.pid}/fd").iterdir()
    limit = max(int(fd.name) for fd in fds) + 1 + spare
    resource.prlimit(proxy.worker.pid, resource.RLIMIT_NOFILE, (limit, limit))


@pytest.mark.parametrize("spare", [12, 13])  # the last fd is taken by a server, or by a client
def test_a_worker_without_fds_pauses_accepting_and_serves_everybody_in_the_end(
    spare: int, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, backend={"connect_timeout_s": 60.0})
    limit_fds(proxy, spare)
    clients = [proxy.connect() for _ in range(20)]
    proxy.figures_when(lambda f: f.accept_pauses > 0, "a pause")
    before = proxy.worker.cpu_s()
    assert proxy.turns_in_a_heartbeat() < 150
    assert proxy.worker.cpu_s() - before < 1.0
    for number, client in enumerate(clients):  # accept() takes them in the order they came
        server = upstream.accept()
        client.sendall(b"%3d" % number)
        assert receive(server, 3) == b"%3d" % number
        client.close()
        server.close()
    figures = proxy.figures_when(lambda f: not f.sessions, "all sessions have ended")
    assert figures.listeners[0].accepted == 20
    assert figures.servers[0].connects == 20


def test_sessions_that_are_open_go_on_while_there_is_no_fd_for_new_ones(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    limit_fds(proxy, 0)
    waiting = proxy.connect()
    figures = proxy.figures_when(lambda f: f.accept_pauses > 1, "pauses")
    assert figures.listeners[0].accept_errors.keys() == {"EMFILE"}
    assert figures.sessions == 1
    for _ in range(50):
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
    client.close()
    server.close()
    waiting.sendall(b"at last")
    assert receive(upstream.accept(), 7) == b"at last"


def test_a_session_that_never_gets_a_server_socket_is_closed_in_time(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, backend={"connect_timeout_s": 0.5})
    limit_fds(proxy, 1)
    assert proxy.connect().recv(1) == b""
    proxy.closed_for("connect_timeout")

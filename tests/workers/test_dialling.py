"""Which server a session gets, and what happens when that one is not there."""

from pathlib import Path

import pytest

from tests.harness import KINDS, Kind, Rig


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_server_is_counted_and_the_next_one_serves(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(rig.refused_address(kind), upstream.address)
    for _ in range(4):
        proxy.pair(upstream)
    figures = proxy.figures_when(
        lambda f: [server.connects for server in f.servers] == [0, 4], "all four are connected"
    )
    assert figures.servers[0].connect_errors["ECONNREFUSED"] >= 1
    assert [server.connections for server in figures.servers] == [0, 4]


@pytest.mark.parametrize("attempts", [1, 2, 8])
def test_attempts_are_bounded_and_never_twice_with_one_server(attempts: int, rig: Rig) -> None:
    proxy = rig.proxy(
        *(rig.refused_address() for _ in range(4)), backend={"connect_attempts": attempts}
    )
    client = proxy.connect()
    assert client.recv(1) == b""
    figures = proxy.closed_for("connect_failed")
    errors = [server.connect_errors.get("ECONNREFUSED", 0) for server in figures.servers]
    assert sum(errors) == min(attempts, 4)
    assert max(errors) == 1


def test_a_unix_server_whose_file_is_missing_is_counted_by_its_errno(
    rig: Rig, tmp_path: Path
) -> None:
    proxy = rig.proxy(f"unix:{tmp_path}/none")
    assert proxy.connect().recv(1) == b""
    assert proxy.closed_for("connect_failed").servers[0].connect_errors == {"ENOENT": 1}


def test_round_robin_spreads_sessions_evenly(rig: Rig) -> None:
    upstreams = [rig.upstream() for _ in range(3)]
    proxy = rig.proxy(*(upstream.address for upstream in upstreams))
    for _ in range(12):
        proxy.connect()
    figures = proxy.figures_when(
        lambda f: sum(s.connects for s in f.servers) == 12, "all sessions are connected"
    )
    assert [server.connections for server in figures.servers] == [4, 4, 4]


def test_least_conn_prefers_the_emptier_server(rig: Rig) -> None:
    upstreams = [rig.upstream() for _ in range(2)]
    proxy = rig.proxy(
        *(upstream.address for upstream in upstreams), backend={"balance": "least_conn"}
    )
    clients = []
    for done in range(1, 7):
        clients.append(proxy.connect())
        proxy.figures_when(
            lambda f, done=done: sum(s.connects for s in f.servers) == done,  # type: ignore[misc]
            "connected",
        )
    assert [server.connections for server in proxy.figures().servers] == [3, 3]
    for _ in range(3):
        upstreams[0].accept().close()
    for client in clients:
        client.setblocking(False)
    for client in clients:
        client.close()
    for _ in range(3):
        upstreams[1].accept()  # these stay: their clients have closed, they have not
    proxy.figures_when(
        lambda f: [s.connections for s in f.servers] == [0, 3], "the first server is empty"
    )
    for done in range(7, 10):
        proxy.connect()
        proxy.figures_when(
            lambda f, done=done: sum(s.connects for s in f.servers) == done,  # type: ignore[misc]
            "connected",
        )
    assert [server.connections for server in proxy.figures().servers] == [3, 3]

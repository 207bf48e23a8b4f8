"""`aegis-ctl reload` and SIGHUP: only what has changed is touched, and no client notices."""

import contextlib
import signal
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from aegis.messages import Reload
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect, refuses, reserve


def current(aegis: Aegis) -> list[int]:
    """Return the pids of the workers that are not retired, by slot."""
    return [w.pid or 0 for w in aegis.workers() if not w.retired]


def inodes(pid: int) -> set[str]:
    """Return the listening TCP sockets of a process."""
    listening = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
    return held & listening


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_a_handful_of_reloads_under_load_lose_no_connection(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    with Load(aegis.address, clients=8, requests=3) as load:
        wait_until(lambda: len(load.attempts) > 50, "a load")
        for _ in range(4):
            before = current(aegis)
            aegis.done("reload", "--force")
            assert not set(before) & set(current(aegis))
            since = monotonic()
            wait_until(partial(load.served_since, since), "the load goes on")
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []
    wait_until(lambda: len(aegis.workers()) == 2, "the old ones have finished")


def test_a_reload_that_changes_nothing_replaces_nobody(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before, epoch = aegis.pids(), aegis.status().epoch
    assert "aegis is serving" in aegis.done("reload")
    assert (aegis.pids(), aegis.status().epoch) == (before, epoch)


def test_a_bad_file_changes_nothing_and_the_error_says_where(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before = aegis.pids(), aegis.status().epoch
    aegis.configure(echo.address, drain_timeout_s="soon", workers=3)
    result = aegis.ctl("reload")
    assert result.returncode == 1
    for part in (str(aegis.config_file), "drain_timeout_s", '"soon"'):
        assert part in result.stderr
    assert (aegis.pids(), aegis.status().epoch) == before
    aegis.kill(aegis.controller, signal.SIGHUP)
    wait_until(lambda: "nothing has changed" in aegis.log(), "SIGHUP says so in the log")
    assert aegis.pids() == before[0]


def test_a_port_that_is_taken_changes_nothing(proxies: Proxies, echo: Echo) -> None:
    one, other = proxies.started(echo.address), proxies.started(echo.address)
    before = one.pids()
    free = reserve(proxies.own, "tcp4", one.directory)
    binds = {"front": one.address, "new": free, "side": other.address}
    one.configure(echo.address, listeners={n: {"bind": b} for n, b in binds.items()})
    result = one.ctl("reload")
    assert result.returncode == 1
    assert f'listener "side": cannot bind {other.address}' in result.stderr
    assert one.pids() == before
    assert refuses(free), "nothing of it has been kept"


def test_sighup_reloads(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before = aegis.pids()
    aegis.configure(echo.address, drain_timeout_s=7)
    aegis.kill(aegis.controller, signal.SIGHUP)
    wait_until(lambda: not set(before) & set(current(aegis)), "all are replaced")
    aegis.pids()


def test_what_workers_do_not_go_by_replaces_no_worker(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    aegis.start("--detach")
    before, old = aegis.pids(), aegis.metrics
    wait_until(lambda: not refuses(old), "the exporter answers")
    aegis.metrics = reserve(proxies.own, "tcp4", aegis.directory)
    aegis.configure(echo.address, workers=3, lame_duck_s=0.1)
    aegis.done("reload")
    assert aegis.pids()[:2] == before
    wait_until(lambda: not refuses(aegis.metrics), "the exporter has moved")
    wait_until(lambda: refuses(old), "from where it was")
    exporter = aegis.status().exporter
    assert exporter is not None
    assert (exporter.restarts, exporter.bind) == (0, aegis.metrics)


def test_listeners_come_change_and_go_and_the_others_keep_their_sockets(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    kept = [inodes(pid) for pid in aegis.pids()]
    side, moved = (reserve(proxies.own, "tcp4", aegis.directory) for _ in range(2))
    front = {"front": {"bind": aegis.address}}
    with Load(aegis.address) as load:
        aegis.configure(echo.address, listeners=front | {"side": {"bind": side}})
        aegis.done("reload")
        with connect(side) as client:
            assert works(client)
            aegis.configure(echo.address, listeners=front | {"side": {"bind": moved}})
            aegis.done("reload")
            assert works(client), "who is on the old address finishes"
            with connect(moved) as another:
                assert works(another)
            wait_until(lambda: refuses(side), "the old address is closed")
        aegis.configure(echo.address, listeners={"renamed": {"bind": aegis.address}})
        aegis.done("reload")
        wait_until(lambda: refuses(moved), "a removed listener is closed")
        assert [inodes(pid) for pid in aegis.pids()] == kept
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []


def test_the_queue_of_a_removed_listener_is_served(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(workers=1)
    side = reserve(proxies.own, "tcp4", aegis.directory)
    both = {"front": {"bind": aegis.address}, "side": {"bind": side}}
    aegis.configure(echo.address, listeners=both, workers=1)
    aegis.start()
    (worker,) = aegis.pids()
    aegis.configure(echo.address, workers=1)
    aegis.kill(worker, signal.SIGSTOP)
    clients = [proxies.own.enter_context(connect(side)) for _ in range(30)]
    aegis.ask(Reload())
    wait_until(lambda: [w.phase for w in aegis.workers()][:1] == ["serving"], "a successor")
    aegis.kill(worker, signal.SIGCONT)
    assert all(works(client) for client in clients)
    wait_until(lambda: refuses(side), "then it is closed")


@pytest.mark.parametrize("pooling", ["off", "multiplex"])
def test_a_reload_serves_at_once_and_never_exceeds_max_connections(
    proxies: Proxies, echo: Echo, pooling: str
) -> None:
    aegis = proxies.new(workers=1)
    protocol = "raw" if pooling == "off" else "line"
    listeners = {"front": {"bind": aegis.address, "protocol": protocol, "pooling": pooling}}
    backends = {"db": {"servers": [echo.address], "max_connections": 2}}
    aegis.configure(listeners=listeners, backends=backends, workers=1)
    aegis.start()
    with connect(aegis.address) as staying:
        staying.sendall(b"one\n")
        assert staying.recv(4) == b"one\n"
        for _ in range(3):
            aegis.done("reload", "--force")
            with connect(aegis.address, timeout_s=5) as client:
                client.sendall(b"two\n")
                assert client.recv(4) == b"two\n"
            open_now = sum(s.connections for s in aegis.status().backends[0].servers)
            assert open_now <= 2
        if pooling == "off":
            staying.sendall(b"one\n")
            assert staying.recv(4) == b"one\n", "its worker finishes first"


def test_a_worker_that_is_retired_is_cut_at_the_hard_stop(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, hard_stop_s=1.0, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.done("reload", "--force")
        wait_until(lambda: not works(client), "the session is cut")
    wait_until(lambda: len(aegis.workers()) == 2, "the old generation is gone")


def test_a_drained_proxy_is_reloaded_without_opening(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.done("drain")
    before = current(aegis)
    aegis.done("reload", "--force")
    assert not set(before) & set(current(aegis))
    wait_until(lambda: aegis.status().phase == "drained", "it is drained")
    assert refuses(aegis.address)
    aegis.done("start")
    with connect(aegis.address) as client:
        assert works(client)

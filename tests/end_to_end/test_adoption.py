"""kill -9 of the controller, then `start`: the next one adopts the workers, or replaces them."""

import select
import signal
import socket
import subprocess
from functools import partial
from time import monotonic

import pytest

from tests.end_to_end.echo import Echo, Load, works
from tests.end_to_end.test_controller_killed import orphaned
from tests.end_to_end.test_worker_killed import has_died
from tests.harness import bound_socket, listening_address, wait_until
from tests.proxy import Aegis, Proxies, connect, refuses, reserve


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_workers_are_adopted_with_their_sessions(proxies: Proxies, echo: Echo, kind: str) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    with connect(aegis.address) as client, Load(aegis.address) as load:
        assert works(client)
        pids = orphaned(aegis)
        aegis.start()
        assert aegis.pids() == pids
        assert works(client)
        since = monotonic()
        wait_until(lambda: load.served_since(since) > 50, "the load goes on")
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []
    aegis.done("stop")
    assert aegis.left_over() == []


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_an_adopted_worker_that_dies_is_replaced_without_refusing_anyone(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    pids = orphaned(aegis)
    aegis.start()
    with Load(aegis.address, clients=6) as load:
        wait_until(lambda: len(load.attempts) > 20, "a load")
        for slot, pid in enumerate(pids):
            aegis.kill(pid)
            killed = monotonic()
            wait_until(partial(has_died, aegis, slot, 1), "it is noticed")
            assert set(aegis.pids()) & set(pids[: slot + 1]) == set()
            broken = [a for a in load.broken if a.began > killed]
            assert broken == []
    assert [a for a in load.attempts if a.refused] == []


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_a_worker_that_died_with_the_controller_is_replaced_without_refusing_anyone(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    pids = orphaned(aegis)
    aegis.kill(pids[1])
    with Load(aegis.address) as load:
        aegis.start()
        since = monotonic()
        wait_until(lambda: load.served_since(since) > 50, "the load goes on")
        now = aegis.pids()
        assert now[0] == pids[0]
        assert now[1] != pids[1]
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []


@pytest.mark.parametrize(
    "change", ["a timeout", "one worker more", "one worker fewer", "one listener more"]
)
def test_a_changed_configuration_replaces_what_it_concerns_and_refuses_nobody(
    proxies: Proxies, echo: Echo, change: str
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    with connect(aegis.address) as client, Load(aegis.address, clients=12) as load:
        assert works(client)
        wait_until(lambda: len(load.attempts) > 50, "a load")
        pids = orphaned(aegis)
        reconfigure(proxies, aegis, echo, change)
        aegis.start()
        assert works(client), "its worker finishes first"
        since = monotonic()
        wait_until(lambda: load.served_since(since) > 100, "the load goes on")
        current = [w.pid for w in aegis.workers() if not w.retired]
        kept = {"one worker more": pids, "one worker fewer": pids[:1]}.get(change, [])
        assert set(pids) & set(current) == set(kept)
        assert len(current) == {"one worker more": 3, "one worker fewer": 1}.get(change, 2)
    assert [a for a in load.attempts if a.refused] == []
    assert load.broken == []
    wait_until(
        lambda: set(pids) & {p.pid for p in aegis.processes()} == set(kept), "the others end"
    )


def test_a_start_that_fails_after_it_has_adopted_leaves_the_workers_serving(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    pids = orphaned(aegis)
    aegis.kill(pids[1], signal.SIGSTOP)
    with connect(aegis.address) as client:
        starting = aegis.ctl_in_background("start", "--config", str(aegis.config_file), "--detach")
        wait_until((aegis.runtime_dir / "requests.ipc").exists, "a controller")
        starting.send_signal(signal.SIGINT)
        aegis.kill(pids[1], signal.SIGCONT)
        starting.wait(60)
        assert works(client)
        assert set(pids) <= {process.pid for process in aegis.processes()}


def reconfigure(proxies: Proxies, aegis: Aegis, echo: Echo, change: str) -> None:
    listeners = {"front": {"bind": aegis.address}}
    if change == "one listener more":
        bind = reserve(proxies.own, "tcp4", aegis.directory)
        listeners |= {"side": {"bind": bind}}
    workers = {"one worker more": 3, "one worker fewer": 1}.get(change, 2)
    timeout_s = 61 if change == "a timeout" else 60
    aegis.configure(echo.address, listeners=listeners, workers=workers, drain_timeout_s=timeout_s)


def test_a_drained_proxy_serves_again_under_a_new_controller(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    pids = aegis.pids()
    aegis.done("drain")
    aegis.kill(aegis.controller)
    assert refuses(aegis.address)
    aegis.start()
    assert aegis.pids() == pids
    with connect(aegis.address) as client:
        assert works(client)


def test_a_stop_of_orphans_that_was_interrupted_is_no_obstacle(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    with connect(aegis.address) as client:
        assert works(client)
        pids = orphaned(aegis)
        stopping = aegis.ctl_in_background("stop")
        wait_until(lambda: refuses(aegis.address), "the workers have left")
        stopping.send_signal(signal.SIGINT)
        stopping.wait(20)
        aegis.start()
        assert works(client)
        with connect(aegis.address) as another:
            assert works(another)
        assert not set(pids) & {w.pid for w in aegis.workers() if not w.retired}
    aegis.pids()
    assert all(w.restarts == 0 for w in aegis.workers()), aegis.log()


def test_a_controller_killed_in_the_middle_of_replacing_is_made_good_by_the_next(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, workers=1, drain_timeout_s=60)
    old = orphaned(aegis)
    aegis.configure(echo.address, workers=1, drain_timeout_s=61)
    aegis.ctl_in_background(
        "start", "--config", str(aegis.config_file), "--no-exporter", "--detach"
    )

    def second() -> int:
        return next((p.pid for p in aegis.processes() if "control.main" in p.cmdline()), 0)

    def newborn() -> bool:
        return any("workers.worker" in p.cmdline() and p.pid not in old for p in aegis.processes())

    controller = wait_until(second, "a controller")
    wait_until(newborn, "it starts a worker")
    aegis.kill(controller, signal.SIGSTOP)
    wait_until(lambda: aegis.log().count("starting -> serving") == 2, "which serves")
    aegis.kill(controller)
    aegis.start()
    wait_until(lambda: not set(old) & {p.pid for p in aegis.processes()}, "the old one has left")
    assert len(aegis.pids()) == 1


def test_a_listener_that_cannot_be_added_leaves_the_workers_as_they_were(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    pids = orphaned(aegis)
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = listening_address(other)
        result = start_with_one_more(aegis, echo, busy)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f'aegis-ctl: listener "side": cannot bind {busy}: the address is in use by another process'
    ]
    with connect(aegis.address) as client:
        assert works(client)
    assert sorted(p.pid for p in aegis.processes()) == sorted(pids)


def test_a_listener_that_is_added_does_not_replace_a_file(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    orphaned(aegis)
    path = aegis.directory / "precious"
    path.write_text("data")
    start_with_one_more(aegis, echo, f"unix:{path}")
    assert path.is_file()
    assert path.read_text() == "data"


def test_a_listener_that_is_added_does_not_take_somebody_elses_clients(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    orphaned(aegis)
    with bound_socket("unix", aegis.directory) as other:
        other.listen()
        start_with_one_more(aegis, echo, listening_address(other))
        connect(listening_address(other)).close()
        assert select.select([other], [], [], 5)[0], "its clients go to us now"


def start_with_one_more(aegis: Aegis, echo: Echo, bind: str) -> subprocess.CompletedProcess[str]:
    listeners = {"front": {"bind": aegis.address}, "side": {"bind": bind}}
    aegis.configure(echo.address, listeners=listeners)
    return aegis.ctl("start", "--detach", "--config", str(aegis.config_file), "--no-exporter")


def test_a_port_that_is_added_is_not_shared_with_another_proxy(
    proxies: Proxies, echo: Echo
) -> None:
    one, other = proxies.started(echo.address), proxies.started(echo.address)
    orphaned(one)
    result = start_with_one_more(one, echo, other.address)
    assert result.returncode == 1, "two proxies accept on one port"
    assert "in use" in result.stderr

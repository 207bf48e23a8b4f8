"""kill -9 of workers: what their clients notice, what the others' do not, and how it is told."""

import signal
from functools import partial
from time import monotonic

import pytest

from aegis.limits import FLAPPING_DEATHS
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect


def has_died(aegis: Aegis, slot: int, times: int) -> bool:
    return aegis.workers()[slot].restarts == times


def killed_and_replaced(aegis: Aegis, slot: int) -> float:
    """Kill the worker of a slot and wait until another serves there; returns when it was gone."""
    victim = aegis.workers()[slot].pid or 0
    aegis.kill(victim)
    killed = monotonic()

    def replaced() -> bool:
        worker = aegis.workers()[slot]
        return worker.phase == "serving" and worker.pid not in {victim, None}

    wait_until(replaced, "a new worker serves")
    return killed


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_a_killed_worker_costs_its_own_sessions_and_no_other(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    victim = aegis.pids()[0]
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(20)]
    assert all(works(client) for client in clients)
    wait_until(lambda: sum(w.sessions for w in aegis.workers()) == 20, "all are counted")
    lost = next(w.sessions for w in aegis.workers() if w.pid == victim)
    with Load(aegis.address, clients=6, requests=5) as load:
        wait_until(lambda: len(load.attempts) > 50, "a load")
        killed = killed_and_replaced(aegis, 0)
        replaced = monotonic()
        wait_until(lambda: load.served_since(replaced) > 100, "the load goes on")
    print(f"a new worker served {replaced - killed:.2f} s after the kill -9")
    assert [a for a in load.attempts if a.refused] == [], "the port is never closed"
    assert [a for a in load.broken if a.began > killed] == [], "only what it had accepted"
    assert len(load.broken) <= load.clients
    assert sum(works(client) for client in clients) == 20 - lost
    status = aegis.workers()[0]
    assert status.last_exit == f"pid {victim} killed by SIGKILL"
    assert status.restarts == 1
    assert replaced - killed < 10


def test_connections_queued_at_a_dead_worker_are_served_by_the_next(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, workers=1)
    pid = aegis.pids()[0]
    aegis.kill(pid, signal.SIGSTOP)
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(50)]
    for client in clients:
        client.sendall(b"ping")
    aegis.kill(pid)
    for client in clients:
        assert client.recv(4) == b"ping"


def test_a_worker_that_was_sent_sigterm_is_replaced_and_finishes(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, workers=1, drain_timeout_s=60)
    leaving = aegis.pids()[0]
    with connect(aegis.address) as client, Load(aegis.address) as load:
        assert works(client)
        aegis.kill(leaving, signal.SIGTERM)

        def replaced() -> bool:
            workers = [(w.retired, w.phase, w.pid == leaving) for w in aegis.workers()]
            return workers == [(False, "serving", False), (True, "draining", True)]

        wait_until(replaced, "a successor serves")
        since = monotonic()
        wait_until(lambda: load.served_since(since) > 20, "the successor's clients")
        assert works(client)
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []
    wait_until(lambda: len(aegis.workers()) == 1, "it has finished")
    assert (aegis.workers()[0].restarts, aegis.workers()[0].last_exit) == (0, "")
    assert leaving not in [process.pid for process in aegis.processes()]


def test_a_flapping_worker_shows_and_the_rest_goes_on(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    other = aegis.pids()[1]
    with Load(aegis.address, clients=2) as load:
        for deaths in range(1, FLAPPING_DEATHS + 1):
            aegis.kill(wait_until(lambda: aegis.workers()[0].pid, "a worker to kill") or 0)
            wait_until(partial(has_died, aegis, 0, deaths), "its death is noticed")
        assert aegis.workers()[0].state == "flapping"
        assert "(flapping)" in aegis.done("status")
        flapping = monotonic()
        wait_until(lambda: load.served_since(flapping) > 200, "the other worker serves")
        assert [a for a in load.attempts if a.refused] == []
    assert (aegis.workers()[1].pid, aegis.workers()[1].restarts) == (other, 0)
    aegis.done("stop")
    assert aegis.left_over() == []


def test_a_flapping_worker_that_recovers_serves_its_sessions(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    for deaths in range(1, FLAPPING_DEATHS + 2):  # the last ones before they listen
        aegis.kill(wait_until(lambda: aegis.workers()[0].pid, "a worker to kill") or 0)
        wait_until(partial(has_died, aegis, 0, deaths), "its death is noticed")
    aegis.pids()
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(30)]
    wait_until(lambda: sum(w.sessions for w in aegis.workers()) == 30, "all are accepted")
    assert all(w.sessions for w in aegis.workers())
    assert all(works(client) for client in clients)


def test_a_worker_that_cannot_start_does_not_keep_a_drain_waiting(
    proxies: Proxies, echo: Echo
) -> None:
    """A seat in its back-off has no process, so nothing serves there."""
    aegis = proxies.started(echo.address)
    for deaths in range(1, FLAPPING_DEATHS + 1):
        aegis.kill(wait_until(lambda: aegis.workers()[0].pid, "a worker to kill") or 0)
        wait_until(partial(has_died, aegis, 0, deaths), "its death is noticed")
    aegis.done("drain", "--timeout", "1")
    aegis.done("stop")
    assert aegis.left_over() == []


def test_a_signal_without_a_name_kills_the_worker_and_not_the_controller(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    controller = aegis.controller
    aegis.kill(aegis.pids()[0], signal.SIGRTMIN + 1)
    wait_until(lambda: aegis.workers()[0].restarts == 1, "its death is noticed")
    assert aegis.controller == controller

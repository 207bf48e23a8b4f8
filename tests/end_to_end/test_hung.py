"""A worker that hangs gets a successor on its sockets, and is killed unless it comes back."""

import signal

from aegis.limits import HUNG_AFTER_S, HUNG_KILL_S
from tests.end_to_end.echo import Echo, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect

PATIENCE_S = 4 * (HUNG_AFTER_S + HUNG_KILL_S)


def successor_of(aegis: Aegis, pid: int) -> bool:
    worker = aegis.workers()[0]
    return worker.phase == "serving" and worker.pid not in {pid, None}


def test_what_waits_at_a_hung_worker_is_served_by_its_successor(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, workers=1)
    (hung,) = aegis.pids()
    aegis.kill(hung, signal.SIGSTOP)
    clients = [proxies.own.enter_context(connect(aegis.address, PATIENCE_S)) for _ in range(20)]
    assert all(works(client) for client in clients)
    wait_until(
        lambda: hung not in [p.pid for p in aegis.processes()], "the hung one ends", PATIENCE_S
    )
    wait_until(lambda: len(aegis.workers()) == 1, "the controller has reaped it")
    (worker,) = aegis.workers()
    assert (worker.restarts, worker.last_exit) == (1, f"pid {hung} hung")


def test_a_worker_that_wakes_up_in_time_finishes_its_sessions(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, workers=1)
    (hung,) = aegis.pids()
    with connect(aegis.address) as client:
        assert works(client)
        aegis.kill(hung, signal.SIGSTOP)
        wait_until(lambda: successor_of(aegis, hung), "a successor serves", PATIENCE_S)
        aegis.kill(hung, signal.SIGCONT)
        wait_until(lambda: "is back; it leaves its slot" in aegis.log(), "it is heard")
        assert works(client)
    wait_until(lambda: len(aegis.workers()) == 1, "it has finished")


def test_a_controller_that_was_stopped_does_not_take_its_workers_for_hung(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    before, controller = aegis.pids(), aegis.controller
    aegis.kill(controller, signal.SIGSTOP)
    with connect(aegis.address) as client:
        assert works(client)
        client.settimeout(HUNG_AFTER_S + 2)
        try:
            client.recv(1)
        except TimeoutError:
            pass
        else:
            raise AssertionError("the session has ended")
        aegis.kill(controller, signal.SIGCONT)
        assert aegis.pids() == before
    assert "has been silent" not in aegis.log()

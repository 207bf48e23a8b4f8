"""`aegis-ctl stop` and the signals that mean the same: all ends, in order or at once."""

import os
import signal
from time import monotonic

import pytest

from aegis.limits import KILL_AFTER_S
from aegis.messages import Stop
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import Aegis, Proxies, connect, refuses


def foreground(aegis: Aegis) -> int:
    """Start in the foreground; returns the controller's pid."""
    child = aegis.ctl_in_background("start", "--config", str(aegis.config_file), "--no-exporter")
    wait_until((aegis.runtime_dir / "requests.ipc").exists, "the controller answers")
    aegis.pids()
    return child.pid


def exit_code(pid: int) -> int:
    """Wait for a child to end."""
    wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), "its end")
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_stop_waits_for_sessions_and_leaves_nothing(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind, drain_timeout_s=60)
    with connect(aegis.address) as client:
        assert works(client)
        stopping = aegis.ctl_in_background("stop")
        wait_until(lambda: aegis.status().phase == "stopping", "stopping")
        assert works(client)
        assert stopping.stderr is not None
        assert "stopping: 1 session(s) left" in stopping.stderr.readline()
        wait_until(lambda: None in [w.pid for w in aegis.workers()], "one had nothing to finish")
        assert [w.phase for w in aegis.workers() if w.pid is None] == ["stopped"]
        wait_until(lambda: "stopped" in aegis.done("status"), "which is told")
        assert "backoff" not in aegis.done("status")
        if kind != "unix":
            wait_until(lambda: refuses(aegis.address), "new sessions are refused")
    said, progress = stopping.communicate(timeout=DEADLINE_S)
    assert " stopped" in progress
    assert "backoff" not in progress
    assert aegis.left_over() == [], "it says that all is gone"
    assert (stopping.returncode, said) == (0, "aegis has stopped\n")


def test_stop_now_cuts(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        began = monotonic()
        aegis.done("stop", "--now")
        assert aegis.left_over() == []
        assert monotonic() - began < KILL_AFTER_S, "that took the supervisor's SIGKILL"
        assert not works(client)


def test_stop_now_after_stop_cuts_and_both_are_done(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        first = aegis.ctl_in_background("stop")
        wait_until(lambda: aegis.status().phase == "stopping", "stopping")
        assert works(client)
        aegis.done("stop", "--now")
        assert first.wait(DEADLINE_S) == 0
    assert aegis.left_over() == []


def test_the_stops_deadline_cuts(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        began = monotonic()
        aegis.done("stop", "--timeout", "1")
        assert monotonic() - began >= 1
        assert not works(client)
    assert aegis.left_over() == []


def test_stop_twice_and_of_what_never_ran_is_done(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    assert aegis.done("stop") == f"aegis is not running in {aegis.runtime_dir}\n"
    aegis.start()
    aegis.done("stop")
    assert aegis.done("stop") == f"aegis is not running in {aegis.runtime_dir}\n"
    assert aegis.left_over() == []
    aegis.start()
    with connect(aegis.address) as client:
        assert works(client)


def test_start_while_it_stops_is_refused(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.ask(Stop())
        for command in ("start", "drain"):
            result = aegis.ctl(command)
            assert (result.returncode, result.stderr) == (1, "aegis-ctl: aegis is stopping\n")
        assert works(client)


def test_a_drained_proxy_stops(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.done("drain")
    aegis.done("stop")
    assert aegis.left_over() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_stop_and_the_second_means_now(
    proxies: Proxies, echo: Echo, number: signal.Signals
) -> None:
    aegis = proxies.new(echo.address, drain_timeout_s=100)
    controller = foreground(aegis)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.kill(controller, number)
        wait_until(lambda: refuses(aegis.address), "new sessions are refused")
        assert works(client)
        aegis.kill(controller, number)
        assert exit_code(controller) == 0
        assert not works(client)
    wait_until(lambda: aegis.left_over() == [], "nothing is left")


def test_a_signal_lets_sessions_finish(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address, drain_timeout_s=100)
    controller = foreground(aegis)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.kill(controller, signal.SIGTERM)
        wait_until(lambda: refuses(aegis.address), "new sessions are refused")
        assert works(client)
    assert exit_code(controller) == 0


def test_a_worker_that_hangs_is_killed(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.kill(aegis.pids()[1], signal.SIGSTOP)
    aegis.done("stop", "--now")
    assert aegis.left_over() == []


def test_stop_now_cuts_the_sessions_of_a_retired_worker_too(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, workers=1, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.kill(aegis.pids()[0], signal.SIGTERM)
        wait_until(lambda: [w.retired for w in aegis.workers()] == [False, True], "a successor")
        aegis.done("stop", "--now")
    assert aegis.left_over() == []
    assert "overdue" not in aegis.log(), "it was not told to cut, and had to be killed"


def test_a_signal_to_the_workers_as_well_does_not_make_the_stop_slower(
    proxies: Proxies, echo: Echo
) -> None:
    """As `systemctl stop` does it by default: SIGTERM to every process of the service."""
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    workers = aegis.pids()
    aegis.ask(Stop())
    wait_until(lambda: all(w.phase != "serving" for w in aegis.workers()), "draining")
    for pid in workers:
        aegis.kill(pid, signal.SIGTERM)
    wait_until(lambda: aegis.left_over() == [], "nothing is left, there was no session")


def test_stop_ends_the_workers_even_if_the_controller_dies_meanwhile(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        stopping = aegis.ctl_in_background("stop", "--timeout", "3")
        wait_until(lambda: aegis.status().phase == "stopping", "stopping")
        aegis.kill(aegis.controller)
        said, _ = stopping.communicate(timeout=60)
        assert stopping.returncode != 0 or aegis.left_over() == [], said


def test_stop_under_load_cuts_no_session_before_the_deadline(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    with Load(aegis.address, clients=8, requests=20) as load:
        wait_until(lambda: len(load.attempts) > 100, "a load")
        aegis.done("stop")
        assert load.broken == []
    assert aegis.left_over() == []


def test_no_process_warns_or_leaves_a_socket_to_the_collector(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    aegis.environment["PYTHONWARNINGS"] = "error"
    aegis.start()
    with connect(aegis.address) as client:
        assert works(client)
    assert aegis.ctl("status").stderr == ""
    stopped = aegis.ctl("stop")
    assert "Warning" not in stopped.stderr
    assert "Warning" not in aegis.log(), aegis.log()

"""kill -9 of the controller: the workers go on, and `stop` still leaves nothing."""

import signal
from time import monotonic

import psutil
import pytest

from tests.end_to_end.echo import Echo, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect, refuses


def orphaned(aegis: Aegis) -> list[int]:
    """Kill the controller; returns the pids of the workers."""
    pids = aegis.pids()
    aegis.kill(aegis.controller)
    return pids


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_workers_go_on_and_stop_leaves_nothing(proxies: Proxies, echo: Echo, kind: str) -> None:
    aegis = proxies.started(echo.address, kind=kind, drain_timeout_s=60)
    with connect(aegis.address) as before:
        assert works(before)
        pids = orphaned(aegis)
        for _ in range(20):
            with connect(aegis.address) as after:
                assert works(after)
        assert sorted(p.pid for p in aegis.processes()) == sorted(pids)
        stopping = aegis.ctl_in_background("stop")
        wait_until(lambda: refuses(aegis.address) or kind == "unix", "new ones are refused")
        assert works(before)
    said, _ = stopping.communicate(timeout=60)
    assert (stopping.returncode, said) == (
        0,
        "aegis has stopped (its controller had died before)\n",
    )
    assert aegis.left_over() == []
    assert aegis.done("stop") == f"aegis is not running in {aegis.runtime_dir}\n"


@pytest.mark.parametrize("options", [["--now"], ["--timeout", "0.5"]])
def test_orphans_are_cut_when_the_time_is_over(
    proxies: Proxies, echo: Echo, options: list[str]
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        orphaned(aegis)
        began = monotonic()
        aegis.done("stop", *options)
        print(f"stop {options} took {monotonic() - began:.2f} s")
        assert not works(client)
    assert aegis.left_over() == []


def test_an_orphan_that_hangs_is_killed(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    pids = orphaned(aegis)
    aegis.kill(pids[0], signal.SIGSTOP)
    aegis.done("stop", "--now")
    assert aegis.left_over() == []


def test_orphans_that_were_drained_stop(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    aegis.done("drain")
    aegis.kill(aegis.controller)
    began = monotonic()
    aegis.done("stop")
    assert monotonic() - began < 30, "there was nothing to wait for"
    assert aegis.left_over() == []


@pytest.mark.parametrize("command", ["status", "drain"])
def test_a_command_without_a_controller_fails_in_one_line(
    proxies: Proxies, echo: Echo, command: str
) -> None:
    aegis = proxies.started(echo.address)
    orphaned(aegis)
    result = aegis.ctl(command)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "worker" in result.stderr, f"workers go on serving, yet it says: {result.stderr}"


def test_a_controller_that_hangs_is_reported(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    controller = aegis.controller
    aegis.kill(controller, signal.SIGSTOP)
    result = aegis.ctl("status")
    aegis.kill(controller, signal.SIGCONT)
    assert result.returncode == 1
    assert "did not answer within 5 s" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_worker_being_born_when_the_controller_dies_does_not_stay(
    proxies: Proxies, echo: Echo
) -> None:
    """It has no claim yet, so `stop` cannot see it; it has to notice by itself."""
    aegis = proxies.started(echo.address, workers=1)
    controller = aegis.controller
    aegis.kill(aegis.pids()[0])

    def newborn() -> int:  # with a command line of its own: before exec it holds our claim's lock
        parent = psutil.Process(controller).cmdline()
        others = (p for p in aegis.processes() if p.pid != controller)
        return next((p.pid for p in others if p.cmdline() not in ([], parent)), 0)

    child = wait_until(newborn, "a successor is started")
    aegis.kill(child, signal.SIGSTOP)
    assert not list(aegis.runtime_dir.glob(f"worker-*-{child}.pid")), "it was quicker than the test"
    aegis.kill(controller)
    aegis.done("stop")
    aegis.kill(child, signal.SIGCONT)
    wait_until(lambda: not aegis.processes(), "it ends by itself", 5)
    assert aegis.left_over() == []

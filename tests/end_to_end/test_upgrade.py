"""`aegis-ctl upgrade`: all processes become new code, one after another, and nobody notices."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import monotonic

import psutil
import pytest

from aegis.messages import Upgrade
from tests.end_to_end.echo import Echo, Load, works
from tests.end_to_end.test_reload import current, inodes
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect, refuses, reserve

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_an_upgrade_under_load_replaces_everything_and_loses_no_connection(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.new(echo.address, kind=kind)
    aegis.start("--detach")
    controller, exporter = aegis.controller, aegis.status().exporter
    assert exporter is not None
    with Load(aegis.address, clients=6, requests=3) as load:
        for upgrades in (1, 2):
            before = current(aegis)
            held = inodes(before[0])
            assert "all of it replaced" in aegis.done("upgrade")
            status = aegis.status()
            assert (status.controller.pid, status.controller.upgrades) == (controller, upgrades)
            assert not set(before) & set(current(aegis))
            assert inodes(current(aegis)[0]) == held, "the sockets are the same"
            since = monotonic()
            wait_until(partial(load.served_since, since), "the load goes on")
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []
    wait_until(lambda: aegis.pids() and len(aegis.workers()) == 2, "the old ones have finished")
    wait_until(lambda: not refuses(aegis.metrics), "the exporter is back")
    zombies = [p for p in psutil.Process(controller).children() if p.status() == "zombie"]
    assert zombies == []
    aegis.done("stop")
    assert aegis.left_over() == []


def test_what_was_wanted_before_is_wanted_after(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    side = reserve(proxies.own, "tcp4", aegis.directory)
    binds = {"front": aegis.address, "side": side}
    aegis.configure(echo.address, listeners={name: {"bind": b} for name, b in binds.items()})
    aegis.start()
    aegis.done("scale", "3")
    aegis.done("drain", "--listener", "side")
    aegis.configure(echo.address, workers="nonsense")  # type: ignore[arg-type]
    aegis.done("upgrade")
    assert len(aegis.pids()) == 3
    assert refuses(side)
    with connect(aegis.address) as client:
        assert works(client)
    aegis.done("start", "--listener", "side")
    with connect(side) as client:
        assert works(client)


def test_a_drained_proxy_stays_drained(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.done("drain")
    aegis.done("upgrade")
    wait_until(lambda: aegis.status().phase == "drained", "it is drained")
    assert refuses(aegis.address)


def test_a_signal_that_comes_while_nobody_listens_is_not_lost(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    controller = aegis.controller
    aegis.ask(Upgrade(sys.executable))
    wait_until(lambda: "--handover" in psutil.Process(controller).cmdline(), "it has executed")
    aegis.kill(controller, signal.SIGTERM)
    wait_until(lambda: not aegis.processes(), "it stops")
    assert aegis.left_over() == []


def test_what_cannot_be_executed_changes_nothing(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before = aegis.controller, aegis.pids()
    aegis.ask(Upgrade("/nonexistent/python"))
    wait_until(lambda: "no upgrade: cannot execute" in aegis.log(), "it says so")
    assert (aegis.controller, aegis.pids()) == before
    aegis.done("reload", "--force")
    aegis.done("stop")
    assert aegis.left_over() == []


def test_new_code_that_does_not_run_is_refused_and_code_that_does_is_what_runs(
    proxies: Proxies, echo: Echo
) -> None:
    """A copy of the packages stands for the new release, found through PYTHONPATH."""
    aegis = proxies.started(echo.address)
    before = aegis.controller, aegis.pids()
    new = aegis.directory / "new"
    for room in ("aegis", "control", "workers"):
        shutil.copytree(ROOT / room, new / room, ignore=shutil.ignore_patterns("__pycache__"))
    worker = new / "workers" / "worker.py"
    code = worker.read_text()
    worker.write_text("syntax error\n" + code)
    result = upgraded_to(aegis, new)
    assert result.returncode == 1
    assert "the new code does not run: SyntaxError" in result.stderr
    assert (aegis.controller, aegis.pids()) == before


def upgraded_to(aegis: Aegis, new: Path) -> "subprocess.CompletedProcess[str]":
    module = (
        "import sys; from control.ctl.app import main; sys.argv = ['aegis-ctl', 'upgrade']; main()"
    )
    environment = aegis.environment | {"PYTHONPATH": str(new)}
    return subprocess.run(
        [sys.executable, "-P", "-c", module],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=os.sep,
    )  # fmt: skip

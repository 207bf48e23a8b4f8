"""`aegis-ctl start`: what it brings up, and what a second one does."""

import subprocess
from pathlib import Path

from aegis.messages import Drain
from tests.end_to_end.echo import Echo, ask
from tests.harness import KINDS, wait_until
from tests.proxy import CTL, Proxies, connect, refuses, reserve


def test_start_returns_when_every_worker_serves(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address, workers=3)
    said = aegis.done("start", "--detach", "--config", str(aegis.config_file), "--no-exporter")
    status = aegis.status()
    assert status.phase == "serving"
    assert [(w.slot, w.phase, w.state) for w in status.workers] == [
        (slot, "serving", "running") for slot in range(3)
    ]
    assert f"aegis is serving (pid {status.controller.pid})" in said
    with connect(aegis.address) as client:
        assert ask(client) == b"ping"


def test_workers_are_pinned_one_to_a_core(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    for worker in aegis.workers():
        for process in aegis.processes():
            if process.pid == worker.pid:
                assert process.cpu_affinity() == [worker.cpu]


def test_start_twice_changes_nothing(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before = aegis.controller, aegis.pids()
    with connect(aegis.address) as client:
        aegis.start()
        aegis.done("start")
        assert ask(client) == b"ping"
    assert (aegis.controller, aegis.pids()) == before


def test_start_does_not_quietly_ignore_another_configuration(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.configure(echo.address, drain_timeout_s=1)
    result = aegis.ctl("start", "--config", str(aegis.config_file))
    assert result.returncode == 1
    assert "with another configuration" in result.stderr
    assert "stop it first" in result.stderr


def test_a_foreground_start_serves_until_it_is_stopped(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    child = aegis.ctl_in_background("start", "--config", str(aegis.config_file), "--no-exporter")
    wait_until((aegis.runtime_dir / "requests.ipc").exists, "the controller answers")
    assert aegis.controller == child.pid
    aegis.pids()
    with connect(aegis.address) as client:
        assert ask(client) == b"ping"
    aegis.done("stop")
    assert child.wait(20) == 0
    assert aegis.left_over() == []


def test_relative_paths_are_those_of_whoever_typed_them(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    place = ["--runtime-dir", "run"]
    for command in (
        ["start", "--detach", "--config", "aegis.toml", "--no-exporter"],
        ["status"],
        ["drain"],
        ["start"],
        ["stop"],
    ):
        result = subprocess.run(
            [CTL, *command, *place],
            cwd=aegis.directory,
            env=aegis.environment | {"AEGIS_RUNTIME_DIR": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, (command, result.stderr)
    assert aegis.left_over() == []


def test_every_kind_of_address_reaches_every_kind_of_server(proxies: Proxies) -> None:
    listeners, backends, pairs = {}, {}, []
    for back in KINDS:
        echo = proxies.own.enter_context(Echo(back, proxies.directory))
        backends[back] = {"servers": [echo.address]}
        for front in KINDS:
            bind = reserve(proxies.own, front, proxies.directory)
            listeners[f"{front}-{back}"] = {"bind": bind, "backend": back}
            pairs.append((front, bind, back))
    aegis = proxies.started(listeners=listeners, backends=backends)
    for front, bind, back in pairs:
        with connect(bind) as client:
            assert ask(client, b"x" * 4096) == b"x" * 4096, (front, back)
    wait_until(
        lambda: [b.servers[0].connects_total for b in aegis.status().backends] == [3, 3, 3],
        "status counts them at the next heartbeat",
    )
    aegis.done("stop")
    for _, bind, _ in pairs:
        assert refuses(bind)
        assert not bind.startswith("unix:") or not Path(bind.removeprefix("unix:")).exists()


def test_two_proxies_in_two_directories_do_not_meet(proxies: Proxies, echo: Echo) -> None:
    one, other = proxies.started(echo.address), proxies.started(echo.address)
    one.done("stop")
    assert one.left_over() == []
    with connect(other.address) as client:
        assert ask(client) == b"ping"


def test_a_second_start_at_the_same_moment_leaves_one_proxy(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    command = ["start", "--detach", "--config", str(aegis.config_file), "--no-exporter"]
    starts = [aegis.ctl_in_background(*command) for _ in range(3)]
    results = [(start.communicate(timeout=60), start.returncode) for start in starts]
    assert any(code == 0 for _, code in results), results
    for (_, stderr), code in results:
        assert code == 0 or "another controller (pid" in stderr or "in use" in stderr, results
    aegis.pids()
    assert len(aegis.processes()) == 1 + 2
    with connect(aegis.address) as client:
        assert ask(client) == b"ping"


def test_start_after_a_drain_serves_again_on_the_same_port(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    before = aegis.controller, aegis.pids()
    aegis.done("drain")
    aegis.done("start")
    with connect(aegis.address) as client:
        assert ask(client) == b"ping"
    assert (aegis.controller, aegis.pids()) == before
    aegis.ask(Drain(0.0))
    wait_until(lambda: aegis.status().phase == "drained", "drained")
    assert "aegis is serving" in aegis.done("start")
    assert aegis.status().phase == "serving"

"""What systemd sees and gives: notifications, the watchdog, sockets; the test is the manager."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from time import monotonic

import pytest

from aegis.messages import Drain
from control.systemd import inherited_sockets
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import DEADLINE_S, bound_socket, listening_address, wait_until
from tests.proxy import CTL, Aegis, Proxies, connect

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "ops" / "systemd" / "aegis.service"


class Manager:
    """The notification socket and what has come over it, in order."""

    def __init__(self, own: contextlib.ExitStack, directory: Path) -> None:
        self.path = directory / "notify"
        self._sock = own.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._sock.bind(str(self.path))
        self._sock.settimeout(DEADLINE_S)

    def next(self, prefix: str) -> str:
        """Return the next message that begins so; watchdog messages are skipped."""
        give_up = monotonic() + DEADLINE_S
        while monotonic() < give_up:
            message = self._sock.recv(4096).decode()
            if message.startswith(prefix):
                return message
            again = prefix == "READY=1" and message.startswith("RELOADING=1")  # by the new code
            assert again or message == "WATCHDOG=1", f"{message} and not {prefix}"
        raise AssertionError(f"{prefix} never came")

    def start(self, aegis: Aegis, own: contextlib.ExitStack) -> "subprocess.Popen[bytes]":
        """Run Aegis in the foreground as a service of ours."""
        environment = {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": "3000000"}
        command = [str(CTL), "start", "--config", str(aegis.config_file), "--no-exporter"]
        with (aegis.directory / "out.log").open("wb") as log:
            child = subprocess.Popen(
                command, env=aegis.environment | environment, stdout=log, stderr=log
            )
        own.enter_context(child)
        own.callback(child.kill)
        return child


@pytest.fixture
def manager(proxies: Proxies) -> Manager:
    return Manager(proxies.own, proxies.directory)


def test_every_state_is_notified(proxies: Proxies, echo: Echo, manager: Manager) -> None:
    aegis = proxies.new(echo.address)
    child = manager.start(aegis, proxies.own)
    manager.next("READY=1")
    assert all(worker.phase == "serving" for worker in aegis.workers())
    for _ in range(3):
        manager.next("WATCHDOG=1")
    for command in ("reload", "upgrade"):
        aegis.done(command, *(["--force"] if command == "reload" else []))
        assert "MONOTONIC_USEC=" in manager.next("RELOADING=1")
        manager.next("READY=1")
    aegis.ask(Drain(0.0))
    child.send_signal(signal.SIGTERM)
    manager.next("STOPPING=1")
    assert child.wait(DEADLINE_S) == 0


def test_a_socket_that_systemd_has_opened_is_used_by_every_worker(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.new(echo.address)
    with bound_socket("tcp4", aegis.directory) as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)  # as systemd.socket(5) does
        given.listen(4096)
        aegis.address = listening_address(given)
        aegis.configure(echo.address)
        # systemd sets LISTEN_PID between fork(2) and execve(2), and so does this shell.
        script = 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        arguments = [str(CTL), "start", "--config", str(aegis.config_file), "--no-exporter"]
        with connect(aegis.address) as early:  # before there is any Aegis
            child = subprocess.Popen(
                ["bash", "-c", script, str(given.fileno()), *arguments],
                env=aegis.environment, pass_fds=[given.fileno()], stderr=subprocess.DEVNULL,
            )  # fmt: skip
            proxies.own.enter_context(child)
            proxies.own.callback(child.kill)
            assert works(early)
        wait_until((aegis.runtime_dir / "requests.ipc").exists, "the controller answers")
        with Load(aegis.address, clients=6) as load:
            wait_until(lambda: len(aegis.pids()) == 2, "two workers")
            aegis.done("reload", "--force")
            aegis.done("scale", "1")
            aegis.done("upgrade")
            wait_until(lambda: len(load.attempts) > 100, "the load goes on")
        assert load.broken == []
        assert [a for a in load.attempts if a.refused] == []
        aegis.done("stop")


def test_fds_for_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert inherited_sockets() == {}
    assert "LISTEN_FDS" not in os.environ


def test_the_unit_is_valid_and_exposes_little() -> None:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze not found: apt-get install systemd")
        pytest.skip("systemd-analyze not found: apt-get install systemd")
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-500:]


def interpreter_for(account: str) -> tuple[str, dict[str, str]]:
    """Return a Python that the account may execute, and the environment that Aegis needs there."""
    path = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-P", "-c", "import zmq, control.main"]
        with contextlib.suppress(OSError):
            if not subprocess.run(
                command, user=account, env=path, cwd="/", capture_output=True, check=False
            ).returncode:
                return python, path
    pytest.skip(f'no Python {sys.version_info[0]}.{sys.version_info[1]} that "{account}" may run')


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root: run it as root")
def test_root_is_given_up_once_the_addresses_are_bound(proxies: Proxies, echo: Echo) -> None:
    python, path = interpreter_for("daemon")
    aegis = proxies.new(echo.address, user="daemon")
    for directory in (proxies.directory, aegis.directory):
        directory.chmod(0o755)
    aegis.config_file.chmod(0o644)

    def done(*arguments: str) -> None:
        command = [python, "-P", "-m", "control.ctl.app", *arguments]
        result = subprocess.run(
            command, env=aegis.environment | path, cwd="/", capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr + aegis.log()

    done("start", "--detach", "--config", str(aegis.config_file))
    assert {p.username() for p in aegis.processes()} == {"daemon"}
    assert all(p.uids().saved == p.uids().real for p in aegis.processes())
    capable = {p.pid for p in aegis.processes() if _capabilities(p.pid)}
    assert capable == {aegis.controller}, "it may bind low ports at a reload, and nobody else"
    aegis.done("scale", "3")
    done("upgrade")
    assert len(aegis.pids()) == 3
    assert {p.pid for p in aegis.processes() if _capabilities(p.pid)} == {aegis.controller}
    with connect(aegis.address) as client:
        assert works(client)
    aegis.kill(aegis.controller)
    done("start", "--detach", "--config", str(aegis.config_file))
    aegis.done("stop")
    assert aegis.left_over() == []


def _capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))


def test_an_account_that_is_not_there_is_named(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address, user="no-such-account")
    result = aegis.ctl("start", "--detach", "--config", str(aegis.config_file))
    assert result.returncode == 1
    assert 'user: "no-such-account": this machine has no such account' in result.stderr
    assert aegis.processes() == []

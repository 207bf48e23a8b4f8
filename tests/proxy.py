"""A whole Aegis as its users run it: real processes, started and steered through aegis-ctl.

Each has a temporary directory with its configuration and its runtime directory, and ports that stay
reserved for the test: a socket that is bound with SO_REUSEPORT and never listens keeps the number
from everyone else (inet_csk_get_port), while whoever sets SO_REUSEADDR can still bind it, as Aegis
and every database here does. Its processes are found by a token in their environment, because
workers outlive the controller and belong to nobody then.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psutil
import pytest

from aegis import bus
from aegis.messages import (
    Reply,
    Request,
    StatusRequest,
)
from aegis.status_messages import (
    Status,
    WorkerStatus,
)
from tests.harness import DEADLINE_S, wait_until

CTL = Path(sys.executable).with_name("aegis-ctl")
FULL = bool(os.environ.get("AEGIS_FULL"))
"""Whether to run at the sizes of the issue instead of those of every day."""

Tables = dict[str, dict[str, Any]]

_PACKAGES = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "redis-benchmark": "redis-tools",
    "chromium": "chromium",
    "dnsmasq": "dnsmasq-base",
    "nc": "netcat-openbsd",
    "openssl": "openssl",
    "promtool": "prometheus",
    "initdb": "postgresql",
    "pgbench": "postgresql",
    "psql": "postgresql-client",
}


def needs(*programs: str) -> list[str]:
    """Return where the programs are; skip the test if one is missing, fail it in CI."""
    places = [_find(program) for program in programs]
    missing = [program for program, place in zip(programs, places, strict=True) if not place]
    if missing:
        packages = " ".join(sorted({_PACKAGES.get(name, name) for name in missing}))
        why = f"{', '.join(missing)} not found: apt-get install {packages}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return [place for place in places if place]


def _find(program: str) -> str | None:
    # Debian keeps what only a server's administrator runs out of PATH.
    of_postgres = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(of_postgres[-1]) if of_postgres else shutil.which(program)


def reserve_port(own: contextlib.ExitStack, host: str = "127.0.0.1") -> int:
    """Return a port that nobody else gets as long as `own` is open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = own.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, 0))
    return int(sock.getsockname()[1])


def reserve(own: contextlib.ExitStack, kind: str, directory: Path) -> str:
    """Return an address to listen on, as a configuration says it."""
    if kind == "unix":
        return f"unix:{directory}/{secrets.token_hex(4)}.sock"
    host = "::1" if kind == "tcp6" else "127.0.0.1"
    port = reserve_port(own, host)
    return f"[{host}]:{port}" if kind == "tcp6" else f"{host}:{port}"


def sockaddr(address: str) -> Any:
    """Return what connect(2) takes for what a configuration calls an address."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def connect(address: str, timeout_s: float = DEADLINE_S) -> socket.socket:
    """Connect to what a configuration calls an address."""
    families = {"u": socket.AF_UNIX, "[": socket.AF_INET6}
    sock = socket.socket(families.get(address[0], socket.AF_INET), socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(sockaddr(address))
    except OSError:
        sock.close()
        raise
    return sock


def refuses(address: str) -> bool:
    """Whether nobody listens there; any failure but a refusal is an error."""
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


class Aegis:
    """One proxy; `close` ends whatever is left of it."""

    def __init__(self, own: contextlib.ExitStack, directory: Path) -> None:
        self._own = own
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.config_file = directory / "aegis.toml"
        self.address = ""
        self.metrics = f"127.0.0.1:{reserve_port(own)}"
        self._token = secrets.token_hex(8)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("AEGIS_")}
        self.environment |= {
            "AEGIS_RUNTIME_DIR": str(self.runtime_dir),
            "AEGIS_TEST_TOKEN": self._token,
            "PYTHONWARNINGS": "error,ignore::ResourceWarning",  # an own test has all of them
            "COLUMNS": "200",
        }

    # --- configuration -------------------------------------------------------------------------

    def configure(
        self,
        *servers: str,
        listeners: Tables | None = None,
        backends: Tables | None = None,
        workers: int = 2,
        log: dict[str, Any] | None = None,
        **top: Any,
    ) -> None:
        """Write the configuration: by default listener `front` for backend `db`."""
        listeners = {"front": {"bind": self.address}} if listeners is None else listeners
        backends = backends or {"db": {"servers": list(servers)}}
        lines = _toml(top | {"workers": workers})
        lines += ["[metrics]", f'bind = "{self.metrics}"', "[log]", *_toml(log or {})]
        for name, table in listeners.items():
            lines += ["[[listener]]", *_toml({"name": name, "backend": "db"} | table)]
        for name, table in backends.items():
            lines += ["[[backend]]", *_toml({"name": name} | table)]
        self.config_file.write_text("\n".join(lines) + "\n")

    # --- aegis-ctl -----------------------------------------------------------------------------

    def ctl(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run aegis-ctl to its end."""
        return subprocess.run(
            [CTL, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def ctl_in_background(self, *arguments: str) -> subprocess.Popen[str]:
        """Start aegis-ctl; it has ended when the test has."""
        child = subprocess.Popen(
            [CTL, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._own.enter_context(child)
        self._own.callback(child.kill)
        return child

    def done(self, *arguments: str, timeout_s: float = 60) -> str:
        """Run aegis-ctl, which must succeed; returns what it printed."""
        result = self.ctl(*arguments, timeout_s=timeout_s)
        assert result.returncode == 0, f"aegis-ctl {arguments}: {result.stderr}{self.log()}"
        return result.stdout

    def start(self, *arguments: str) -> None:
        """Start detached, without the exporter unless told."""
        options = arguments or ("--no-exporter",)
        self.done("start", "--detach", "--config", str(self.config_file), *options)

    # --- what is -------------------------------------------------------------------------------

    def ask(self, request: Request) -> Reply:
        """Send the controller a request as aegis-ctl does, without waiting for the workers."""
        return bus.ask(self.runtime_dir, request, DEADLINE_S)

    def status(self) -> Status:
        reply = self.ask(StatusRequest())
        assert isinstance(reply, Status)
        return reply

    def workers(self) -> list[WorkerStatus]:
        return self.status().workers

    def pids(self) -> list[int]:
        """Return the workers' pids by slot; all of them serve, none is being replaced."""

        def look() -> list[int]:
            status = self.status()
            well = all(w.phase == "serving" and not w.retired and w.pid for w in status.workers)
            return [w.pid or 0 for w in status.workers] if well else []

        return wait_until(look, "every worker serves")

    @property
    def controller(self) -> int:
        return self.status().controller.pid

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this Aegis, aegis-ctl included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("AEGIS_TEST_TOKEN") == self._token:
                    found.append(process)
        return found

    def worker_of(self, client: socket.socket) -> int:
        """Return the pid of the worker that has accepted a TCP client."""

        def look() -> int:
            for pid in self.pids():
                for connection in psutil.Process(pid).net_connections("tcp"):
                    if connection.raddr and tuple(connection.raddr) == client.getsockname()[:2]:
                        return pid
            return 0

        return wait_until(look, f"a worker has accepted {client.getsockname()}")

    def log(self) -> str:
        log_file = self.runtime_dir / "aegis.log"
        return log_file.read_text() if log_file.exists() else ""

    def left_files(self) -> list[str]:
        """Return what is in the runtime directory besides the log."""
        if not self.runtime_dir.is_dir():
            return []
        return sorted(p.name for p in self.runtime_dir.iterdir() if p.name != "aegis.log")

    def left_over(self) -> list[str]:
        """Return every process, file and listening socket that is still there.

        A process that ends loses its memory, and the environment that we know it by, before its
        sockets (do_exit in kernel/exit.c), so a port may listen for an instant longer.
        """
        left = [" ".join(process.cmdline()) for process in self.processes()]
        left += self.left_files()
        until = monotonic() + 1.0
        while not left and not refuses(self.address) and monotonic() < until:
            select.select([], [], [], 0.005)
        left += [] if refuses(self.address) else [self.address]
        if self.address.startswith("unix:") and Path(self.address.removeprefix("unix:")).exists():
            left.append(self.address)
        return left

    # --- faults --------------------------------------------------------------------------------

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Signal a process; after SIGKILL it is gone, with all it held, when this returns."""
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, number)
            # A pidfd is readable once the last thread has ended, which is what closes the sockets.
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            gone = number != signal.SIGKILL or poll.poll(DEADLINE_S * 1000)
            assert gone, f"pid {pid} does not end"
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Leave no process, whatever the test has met."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _toml(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_inline(value)}" for key, value in table.items()]


def _inline(value: Any) -> str:
    """Write a value of TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_toml(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(each) for each in value) + "]"
    return json.dumps(value)


@contextlib.contextmanager
def made() -> Iterator["Proxies"]:
    """Make proxies that end with the context."""
    with contextlib.ExitStack() as own:
        # Not tmp_path: a unix socket's path has 107 bytes.
        directory = own.enter_context(TemporaryDirectory(prefix="aegis-"))
        yield Proxies(own, Path(directory))


class Proxies:
    """Makes proxies; with what they need they end when `own` is closed."""

    def __init__(self, own: contextlib.ExitStack, directory: Path) -> None:
        self.own = own
        self.directory = directory
        self.all: list[Aegis] = []

    def new(self, *servers: str, kind: str = "tcp4", **config: Any) -> Aegis:
        """Configure a proxy for these servers; it is not started."""
        directory = self.directory / str(len(self.all))
        directory.mkdir()
        aegis = Aegis(self.own, directory)
        self.own.callback(aegis.close)
        aegis.address = reserve(self.own, kind, directory)
        aegis.configure(*servers, **config)
        self.all.append(aegis)
        return aegis

    def started(self, *servers: str, kind: str = "tcp4", **config: Any) -> Aegis:
        """Start a proxy for these servers."""
        aegis = self.new(*servers, kind=kind, **config)
        aegis.start()
        return aegis

"""The exporter as a process, for tests: how it is started, asked and ended."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import NamedTuple

import msgspec
import zmq
from prometheus_client.parser import text_string_to_metric_families as parse_text

from aegis import bus
from aegis.config import Config
from aegis.config_file import load_config
from tests.harness import DEADLINE_S, bound_socket, wait_until

CONFIG = """
[metrics]
bind = "127.0.0.1:{port}"
[[listener]]
name = "front"
bind = "127.0.0.1:1"
backend = "db"
[[backend]]
name = "db"
servers = ["127.0.0.1:2"]
"""
FRONT = (("listener", "front"), ("worker", "0"))


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str


class Exporter:
    """One exporter process, or what is left of it."""

    def __init__(
        self,
        directory: Path,
        port: int,
        arguments: list[str],
        fd: int | None = None,
        told: Config | None = None,
    ) -> None:
        """`told`: the configuration, as the controller tells it."""
        self.port = port
        self._log = TemporaryFile()  # noqa: SIM115 - closed in close()
        command = [sys.executable, "-P", "-W", "error", "-m", "control.exporter"]
        self.child = subprocess.Popen(
            [*command, "--runtime-dir", str(directory), *arguments],
            stdin=subprocess.PIPE,
            stderr=self._log,
            pass_fds=[] if fd is None else [fd],
        )
        assert self.child.stdin is not None
        with self.child.stdin as stdin:
            stdin.write(b"" if told is None else msgspec.msgpack.encode(told))

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def series(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return what /metrics says, by name and labels."""
        families = parse_text(self.ask("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}

    def accepted(self) -> float | None:
        return self.series().get(("aegis_sessions_total", FRONT))

    def await_accepted(self, count: float) -> None:
        wait_until(lambda: self.accepted() == count, f"{count} accepted clients on /metrics")

    def stderr(self) -> str:
        # By position: the child's offset is ours as well.
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        return self.child.wait(DEADLINE_S)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self._log.close()


class Place:
    """A runtime directory, a configuration with a free port, and who speaks on the bus there."""

    def __init__(self, own: ExitStack, directory: Path) -> None:
        self._own = own
        self.directory = directory
        self._context = own.enter_context(zmq.Context())
        self.sock = own.enter_context(bound_socket("tcp4", directory))
        self.port = int(self.sock.getsockname()[1])
        self.config = directory / "aegis.toml"
        self.config.write_text(CONFIG.format(port=self.port))

    def start(self, *, supervised: bool = True) -> Exporter:
        """Start an exporter; a supervised one gets the socket, another must bind the port."""
        if not supervised:
            self.sock.close()
            from_file = ["--config", str(self.config)]
            return self.own(Exporter(self.directory, self.port, from_file))
        fd = self.sock.fileno()
        config = load_config(self.config)
        return self.own(Exporter(self.directory, self.port, ["--fd", str(fd)], fd, config))

    def own(self, exporter: Exporter) -> Exporter:
        """Make sure that it ends with the test."""
        self._own.callback(exporter.close)
        return exporter

    def serving(self, *, supervised: bool = True) -> Exporter:
        """Start one and wait until it answers."""
        exporter = self.start(supervised=supervised)
        wait_until(lambda: "port" in exporter.stderr(), "the exporter's first line")
        return exporter

    def push_socket(self) -> zmq.Socket[bytes]:
        """Connect as a worker does."""
        sock: zmq.Socket[bytes] = bus.connect(self._context, zmq.PUSH, self.directory, "telemetry")
        self._own.callback(sock.close)
        return sock


@contextlib.contextmanager
def made_place() -> Iterator[Place]:
    """Make a place that ends, with all its exporters, with the context."""
    # Not tmp_path: a unix socket's path has 107 bytes.
    with TemporaryDirectory(prefix="aegis-") as directory, ExitStack() as own:
        yield Place(own, Path(directory))

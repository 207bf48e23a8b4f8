"""Starts a fresh server, and Aegis in front of it with pooling `multiplex`; ends both again."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

from ops.bench.processes import free_port

PIN = re.compile(r'^aegis_pins_total\{.*pin="([^"]+)".*\} (\d+)', re.MULTILINE)


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Run a redis-server with DEBUG and its like switched on, as Redis' tests want; its port."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--loglevel", "warning"]
    options += ["--enable-debug-command", "yes", "--enable-protected-configs", "yes"]
    with (
        tempfile.TemporaryDirectory(prefix="redis-") as directory,
        _running(["redis-server", *options, "--dir", directory], port),
    ):
        yield port


@contextlib.contextmanager
def memcached() -> Iterator[int]:
    """Run a memcached; its port."""
    port = free_port()
    user = ["-u", "root"] if os.getuid() == 0 else []
    with _running(["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", *user], port):
        yield port


class Front:
    """Aegis, while it runs."""

    def __init__(self, port: int, metrics_port: int) -> None:
        self.port = port
        self._metrics_port = metrics_port

    def pins(self) -> dict[str, int]:
        """Return how many clients were given a pipe of their own, by reason."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics") as reply:
            text = reply.read().decode()
        pins: dict[str, int] = {}
        for reason, count in PIN.findall(text):
            pins[reason] = pins.get(reason, 0) + int(count)
        return pins


@contextlib.contextmanager
def aegis(protocol: str, server_port: int, workers: int) -> Iterator[Front]:
    """Run Aegis in front of a server."""
    port, metrics_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="aegis-") as place:
        directory = Path(place)
        config = directory / "aegis.toml"
        config.write_text(
            f"""
            workers = {workers}
            drain_timeout_s = 1
            [metrics]
            bind = "127.0.0.1:{metrics_port}"
            [[listener]]
            name = "front"
            bind = "127.0.0.1:{port}"
            backend = "db"
            protocol = "{protocol}"
            pooling = "multiplex"
            [[backend]]
            name = "db"
            servers = ["127.0.0.1:{server_port}"]
            """
        )
        arguments = ["--config", str(config), "--runtime-dir", str(directory / "run")]
        command = [sys.executable, "-P", "-m", "control.main", *arguments]
        with _running(command, port, metrics_port):
            yield Front(port, metrics_port)


@contextlib.contextmanager
def _running(command: list[str], *ports: int) -> Iterator[None]:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in ports:
            wait_for_port(port)
        yield
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_port(port: int, deadline_s: float = 20.0) -> None:
    """Wait until something accepts on loopback.

    Raises:
        TimeoutError: nothing did in time.
    """
    deadline = monotonic() + deadline_s
    while monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        sleep(0.02)
    raise TimeoutError(f"nothing accepts on port {port}")

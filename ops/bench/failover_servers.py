"""The servers of a failover bench: real databases on addresses of loopback that can be harmed.

    127.0.0.11:PORT  127.0.0.12:PORT  …    one port, so that a name with several addresses will do

Each holds its own name under the key `who`, also when it has been killed and started again.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ops.bench.failure import MeasurementError
from ops.bench.processes import START_DEADLINE_S, free_port

PING = {"resp": (b"PING\r\n", b"+PONG\r\n"), "line": (b"PING\n", b"PONG\n")}


class Node:
    """One server, which runs or does not."""

    def __init__(self, protocol: str, number: int, port: int, directory: Path) -> None:
        self.name = f"server-{number}"
        self.host = f"127.0.0.{10 + number}"
        self.port = port
        self.address = f"{self.host}:{port}"
        self._protocol = protocol
        self._directory = directory / self.name
        self._directory.mkdir()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        wait_for(self._answers, f"{self.name} answers")

    def spawn(self) -> None:
        """Start it."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen(self._command(), **quiet)  # type: ignore[call-overload]

    def keep_name(self) -> None:
        """Put its name in, so that it survives a kill."""
        if self._protocol == "resp":
            self._say(b"SET who %s\r\n" % self.name.encode(), b"+OK\r\n")
            self._say(b"SAVE\r\n", b"+OK\r\n")
        else:
            self._say(b"SET who %s\n" % self.name.encode(), b"OK\n")

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def _command(self) -> list[str]:
        where = ("--bind", self.host, "--port", str(self.port), "--dir", str(self._directory))
        if self._protocol == "resp":
            return ["redis-server", *where, "--save", "", "--loglevel", "warning"]
        data = str(self._directory / "data")
        return [sys.executable, "-m", "ops.chronos", "--listen", self.address, "--data", data]

    def _answers(self) -> bool:
        ask, answer = PING[self._protocol]
        try:
            self._say(ask, answer)
        except OSError:
            return False
        return True

    def _say(self, said: bytes, answer: bytes) -> None:
        with socket.create_connection((self.host, self.port), 5) as sock:
            sock.sendall(said)
            if (heard := sock.recv(1000)) != answer:
                raise ConnectionError(f"{self.name} says {heard!r}")


@contextlib.contextmanager
def nodes(protocol: str, count: int, directory: Path) -> Iterator[list[Node]]:
    """Run so many servers."""
    if protocol == "resp" and shutil.which("redis-server") is None:
        raise MeasurementError("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    made = [Node(protocol, number, port, directory) for number in range(1, count + 1)]
    try:
        for node in made:
            node.start()
            node.keep_name()
        yield made
    finally:
        for node in made:
            node.kill()


def wait_for(
    condition: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S
) -> float:
    """Wait until it holds; returns how long that took.

    Raises:
        MeasurementError: it does not in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + deadline_s:
            raise MeasurementError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began

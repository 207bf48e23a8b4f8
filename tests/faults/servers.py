"""Real servers as children of the test, on ports that the kernel chose; they may be killed."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from tests.faults.resp_talk import parse, prepare
from tests.faults.scripted import words
from tests.harness import DEADLINE_S, wait_until


def program(name: str, package: str) -> str:
    """Return a program's path; without it skip, except under CI."""
    path = shutil.which(name)
    if path is None:
        _missing(f"{name} is not installed: apt-get install {package}")
    assert path is not None
    return path


def _missing(hint: str) -> None:
    if os.environ.get("CI"):
        raise RuntimeError(hint)
    pytest.skip(hint)


class RealServer(ABC):
    """A child that listens on `address` from when this is made to `close`."""

    survives = True
    """Whether it has after a kill what it had answered before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "server"
        self.directory.mkdir()
        with socket.socket() as scout:  # by number, so that it has the same when it is restarted
            scout.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = scout.getsockname()
        self._child: subprocess.Popen[bytes]
        self._start()

    def _start(self) -> None:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen(self.command(*map(str, self.address)), **quiet)
        wait_until(self._answers, "the server to answer")

    def _answers(self) -> bool:
        try:
            self.prepare()
        except OSError:
            return False
        return True

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, DEADLINE_S)

    def restart(self) -> None:
        """Kill it, and start it with what it had."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        self._start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()

    @abstractmethod
    def command(self, host: str, port: str) -> list[str]:
        """Return how to start it."""

    @abstractmethod
    def prepare(self) -> None:
        """Put in what all clients expect; raises OSError as long as it does not answer."""

    def counts(self, keys: list[bytes]) -> list[int]:
        """Return counters."""
        raise NotImplementedError


class Redis(RealServer):
    """redis-server with its log written before a reply, so that a kill loses nothing answered."""

    def command(self, host: str, port: str) -> list[str]:
        return [
            program("redis-server", "redis-server"), "--port", port, "--bind", host,
            "--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "no",
            "--save", "", "--maxclients", "1000",
        ]  # fmt: skip

    def prepare(self) -> None:
        data, replies = prepare()
        with self.connect() as sock:
            sock.sendall(data)
            if any(
                str(reply).startswith("Failure(text=b'LOADING") for reply in _resp(sock, replies)
            ):
                raise ConnectionError("it loads its log")

    def counts(self, keys: list[bytes]) -> list[int]:
        """A key ends with its database."""
        counts = []
        with self.connect() as sock:
            for some in _portions(keys, 500):
                asks = [words("SELECT", k.rpartition(b":")[2]) + words("GET", k) for k in some]
                sock.sendall(b"".join(asks))
                counts += [int(reply or 0) for reply in _resp(sock, 2 * len(some))[1::2]]
        return counts


class Memcached(RealServer):
    """memcached with room for all that a run leaves in it."""

    survives = False

    def command(self, host: str, port: str) -> list[str]:
        user = ["-u", "root"] if os.geteuid() == 0 else []
        start = [program("memcached", "memcached"), "-p", port, "-l", host, "-U", "0"]
        return [*start, "-m", "1024", "-M", "-c", "4096", "-I", "4m", "-t", "2", *user]

    def prepare(self) -> None:
        with self.connect() as sock:
            sock.sendall(b"version\r\n")
            if not sock.recv(100).startswith(b"VERSION"):
                raise ConnectionError("no version")

    def counts(self, keys: list[bytes]) -> list[int]:
        found: dict[bytes, int] = {}
        with self.connect() as sock:
            for some in _portions(keys, 50):
                sock.sendall(b"get %s\r\n" % b" ".join(some))
                buf = bytearray()
                while not buf.endswith(b"END\r\n"):
                    buf += sock.recv(65_536)
                lines = buf.split(b"\r\n")
                for head, number in zip(lines[:-2:2], lines[1:-2:2], strict=True):
                    found[bytes(head.split(b" ")[1])] = int(number)
        return [found.get(key, 0) for key in keys]


class Chronos(RealServer):
    """Chronos, which answers a write when it is safe."""

    def command(self, host: str, port: str) -> list[str]:
        if importlib.util.find_spec("rocksdict") is None:
            _missing("rocksdict is not installed: pip install '.[demo]'")
        where = ["--listen", f"{host}:{port}", "--data", str(self.directory)]
        return [sys.executable, "-m", "ops.chronos", *where]

    def prepare(self) -> None:
        with self.connect() as sock:
            sock.sendall(b"PING\n")
            if sock.recv(100) != b"PONG\n":
                raise ConnectionError("no pong")


SERVERS: dict[str, type[RealServer]] = {
    "resp": Redis,
    "memcached": Memcached,
    "line": Chronos,
    "http1": Chronos,
}


def _portions(keys: list[bytes], size: int) -> list[list[bytes]]:
    return [keys[at : at + size] for at in range(0, len(keys), size)]


def _resp(sock: socket.socket, count: int) -> list[Any]:
    replies: list[Any] = []
    buf = bytearray()
    at = 0
    while len(replies) < count:
        while (found := parse(buf, at)) is None:
            data = sock.recv(65_536)
            if not data:
                raise ConnectionResetError("the server has closed")
            buf += data
        reply, at = found
        replies.append(reply)
    return replies

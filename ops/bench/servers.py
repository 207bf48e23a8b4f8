"""The servers behind the proxies, each started for one measurement, on the load's core.

A server of its own gives each measurement fresh ports (no connection in TIME_WAIT of the one before
is met) and fresh memory. `probe` sends one whole request and checks the answer, directly or through
a proxy: what starts is waited for, and what does not relay is found before it is measured.
"""

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from ops.bench import bulk, resp
from ops.bench.failure import MeasurementError
from ops.bench.processes import LOAD_CPU, free_port, running, wait_until_answering

Family = Literal["resp", "http", "stream"]

KEY, VALUE = b"bench", b"xyz"
LARGE_KEY, LARGE_BYTES = b"large", 4_000_000


class Server(NamedTuple):
    """A running server."""

    port: int
    process: psutil.Process
    probe: Callable[[int], None]
    """Ask on this port: OSError while nobody answers, MeasurementError for a wrong answer."""


def _redis_command(port: int, directory: Path) -> list[str]:
    return [
        "redis-server",
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
        *("--tcp-backlog", "4096", "--maxclients", "15000"),
    ]


def _probe_redis(port: int) -> None:
    if (answer := resp.ask(port, b"GET", KEY)) != VALUE:
        raise MeasurementError(f"GET was answered with {answer[:40]!r}")


def _fill_redis(port: int) -> None:
    resp.ask(port, b"SET", KEY, VALUE)
    resp.ask(port, b"SET", LARGE_KEY, bytes(LARGE_BYTES))


def _chronos_command(port: int, directory: Path) -> list[str]:
    arguments = ["--listen", f"127.0.0.1:{port}", "--data", str(directory / "data")]
    return [sys.executable, "-m", "ops.chronos", *arguments]


def page_bytes(port: int) -> int:
    """Return the size of the page that `ab` is going to ask for, as its server sends it."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        with sock.makefile("rb") as reply:
            head, separator, body = reply.read().partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionResetError("the connection ended before the reply")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise MeasurementError(f"GET / was answered with {head.splitlines()[0]!r}")
    return len(body)


def _probe_chronos(port: int) -> None:
    page_bytes(port)


def _bulk_command(port: int, _: Path) -> list[str]:
    return [sys.executable, "-m", "ops.bench.bulk", "serve", "--port", str(port)]


def _nothing(_: int) -> None:
    """Fill nothing."""


_SERVERS: dict[
    Family,
    tuple[Callable[[int, Path], list[str]], Callable[[int], None], Callable[[int], None]],
] = {
    "resp": (_redis_command, _fill_redis, _probe_redis),
    "http": (_chronos_command, _nothing, _probe_chronos),
    "stream": (_bulk_command, _nothing, bulk.probe),
}


@contextlib.contextmanager
def serving(family: Family, directory: Path, cpu: int = LOAD_CPU) -> Iterator[Server]:
    """Run the server of a family of protocols on a core: redis, Chronos, or the bulk server."""
    command, fill, probe = _SERVERS[family]
    port, log = free_port(), directory / "server.log"
    with running(command(port, directory), cpu, log) as process:

        def fill_and_probe() -> None:
            fill(port)
            probe(port)

        wait_until_answering("the server", process, fill_and_probe, log)
        yield Server(port, process, probe)

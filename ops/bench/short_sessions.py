"""Short sessions one after another through one worker: do memory and fds stay flat?

    python -m ops.bench.short_sessions [--sessions 1000000]

A row per tenth of the run; the verdict compares the last row with the first, when caches, free
lists and tables have reached their size. Exit code 1 if the memory grew by 1 MiB or the fds did.
"""

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ops.bench.echo import echo_server
from ops.bench.peers import BY_NAME, Place
from ops.bench.processes import (
    LOAD_CPU,
    PROXY_CPU,
    free_port,
    raise_fd_limit,
    running,
    wait_until_answering,
)

ALLOWED_GROWTH_BYTES = 1 << 20


def run_sessions(port: int, count: int) -> None:
    """Open a session, send a byte, get it back, close; `count` times."""
    for index in range(count):
        source = (f"127.0.1.{1 + index % 200}", 0)  # more ports than one address has
        with socket.create_connection(("127.0.0.1", port), 10, source) as client:
            client.sendall(b"x")
            if client.recv(1) != b"x":
                raise RuntimeError(f"session {index} lost its byte")


@contextlib.contextmanager
def aegis(directory: Path, server_port: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run Aegis with one worker; yields its port and the worker's process."""
    port, log = free_port(), directory / "aegis.log"
    command = BY_NAME["aegis-off"].command
    assert command is not None
    with running(
        command(Place(directory, "stream", port, server_port)), PROXY_CPU, log
    ) as controller:
        wait_until_answering("aegis", controller, lambda: run_sessions(port, 1), log)
        (worker,) = controller.children()
        yield port, worker


def main() -> int:
    """Print a row per tenth and the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1_000_000)
    tenth = parser.parse_args().sessions // 10
    raise_fd_limit()
    os.sched_setaffinity(0, {LOAD_CPU})
    rows: list[tuple[int, int]] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        echo_server(LOAD_CPU) as server_port,
        aegis(Path(directory), server_port) as (port, worker),
    ):
        print(f"{'sessions':>10} {'RSS':>12} {'fds':>5} {'sessions/s':>11}")
        for row in range(10):
            start = time.monotonic()
            run_sessions(port, tenth)
            rate = tenth / (time.monotonic() - start)
            rows.append((worker.memory_info().rss, worker.num_fds()))
            rss, fds = rows[-1]
            print(f"{(row + 1) * tenth:>10} {rss >> 10:>8} KiB {fds:>5} {rate:>11.0f}", flush=True)
    growth = rows[-1][0] - rows[0][0]
    print(f"growth after the first tenth: {growth / 1024:.0f} KiB, {rows[-1][1] - rows[0][1]} fds")
    return int(growth >= ALLOWED_GROWTH_BYTES or rows[-1][1] > rows[0][1])


if __name__ == "__main__":
    sys.exit(main())

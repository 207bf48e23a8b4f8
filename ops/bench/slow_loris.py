"""Thousands of clients that never finish a request: what do the others notice?

    python -m ops.bench.slow_loris [--clients 8000] [--rounds 5]

In each round the same open-loop load runs twice through one worker: alone, and beside clients that
have begun a request of Redis and send another byte of it every ten seconds. Exit code 1 if the
median of p99 beside them is more than twice that without, or one of them was lost.
"""

import argparse
import contextlib
import os
import socket
import statistics
import sys
import threading
from collections.abc import Iterator

from ops.bench import resp
from ops.bench.failure import MeasurementError
from ops.bench.peers import BY_NAME
from ops.bench.processes import LOAD_CPU, raise_fd_limit
from ops.bench.scene import staged
from ops.bench.stream_load import OpenLoop, run_open_loop

REQUEST = resp.encode(b"SET", b"loris", b"x" * 64)
EVERY_S = 10.0
LOAD = OpenLoop(seconds=5.0, connections=100, rate=4_000.0)
DEADLINE_S = 60.0
ALLOWED = 2.0


def trickle(clients: list[socket.socket], enough: threading.Event) -> None:
    """Send each client's next byte in turn, evenly spaced, until it is enough."""
    for sent in range(1, len(REQUEST) - 1):
        for client in clients:
            client.sendall(REQUEST[sent : sent + 1])
            if enough.wait(EVERY_S / len(clients)):
                return


@contextlib.contextmanager
def slow_clients(port: int, count: int) -> Iterator[None]:
    """Keep so many clients busy with never finishing.

    Raises:
        MeasurementError: one of them was closed, or answered.
    """
    enough = threading.Event()
    with contextlib.ExitStack() as own:
        clients = []
        for _ in range(count):
            client = own.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S))
            client.sendall(REQUEST[:1])
            clients.append(client)
        thread = threading.Thread(target=trickle, args=(clients, enough))
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raise MeasurementError(f"a slow client has heard {client.recv(100)!r}")


def main() -> int:
    """Print a row a round, and the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if (limit := raise_fd_limit()) < options.clients + 1_000:
        parser.error(f"--clients {options.clients}: this machine allows {limit} fds a process")
    os.sched_setaffinity(0, {LOAD_CPU})
    ratios = []
    print(
        f"{'round':>5} {'p99 alone':>12} {'p99 beside':>12} {'ratio':>6} {'max alone':>12} beside"
    )
    with staged(BY_NAME["aegis-multiplex"], "resp") as scene:
        for number in range(options.rounds):
            alone = run_open_loop(scene, LOAD, DEADLINE_S)
            with slow_clients(scene.port, options.clients):
                beside = run_open_loop(scene, LOAD, DEADLINE_S)
            ratios.append(beside["p99_ms"] / alone["p99_ms"])
            print(
                f"{number + 1:>5} {alone['p99_ms']:>9.2f} ms {beside['p99_ms']:>9.2f} ms "
                f"{ratios[-1]:>6.2f} {alone['max_ms']:>9.1f} ms {beside['max_ms']:.1f} ms",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}, allowed {ALLOWED}")
    return int(statistics.median(ratios) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())

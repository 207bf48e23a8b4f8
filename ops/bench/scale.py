"""Does a request cost the same with one worker and with many, and how soon does Aegis serve?

    python -m ops.bench.scale [--rounds 5] [--poolings off,multiplex] [--workers 1,2,8]

All workers share the proxy's core, so what differs is what many workers cost, not what many cores
bring: each has fewer events a turn, and the core changes between them. Start-up is measured on all
cores, from the start of the controller to the first answer.
"""

import argparse
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep

from rich.console import Console
from rich.table import Table

from ops.bench import cpu, redis_load
from ops.bench.failure import MeasurementError
from ops.bench.peers import Place, aegis
from ops.bench.processes import (
    LOAD_CPU,
    PROXY_CPU,
    START_DEADLINE_S,
    free_port,
    raise_fd_limit,
    running,
    wait_until_answering,
)
from ops.bench.scene import Scene, staged
from ops.bench.servers import serving

LOAD = redis_load.Size(100_000, 100)
DEADLINE_S = 120.0


def wait_for_workers(scene: Scene, workers: int) -> None:
    """Let every worker have begun, so that its CPU is counted.

    Raises:
        MeasurementError: they do not begin.
    """
    give_up = monotonic() + START_DEADLINE_S
    while len(scene.proxy_pids) < 1 + workers:  # the controller is one
        if monotonic() > give_up:
            raise MeasurementError(f"{len(scene.proxy_pids)} processes, not {1 + workers}")
        sleep(0.05)
        scene.proxy_pids = cpu.family(scene.proxy)


def cost_us(pooling: str, workers: int) -> float:
    """Return the CPU of a request, over all workers."""
    with staged(aegis(pooling, workers), "resp") as scene:
        wait_for_workers(scene, workers)
        redis_load.run(scene, LOAD._replace(requests=10_000), DEADLINE_S)  # warms up
        figures = redis_load.run(scene, LOAD, DEADLINE_S)
    return figures["user"] + figures["system"]


def start_up_s(pooling: str, workers: int) -> float:
    """Return how long it takes from nothing to the first answer."""
    with TemporaryDirectory(prefix="bench-") as name, serving("resp", Path(name)) as server:
        port, log = free_port(), Path(name) / "proxy.log"
        peer = aegis(pooling, workers)
        assert peer.command is not None
        command = peer.command(Place(Path(name), "resp", port, server.port))
        begun = perf_counter()
        with running(command, f"{PROXY_CPU},{LOAD_CPU}", log) as process:
            wait_until_answering(peer.name, process, lambda: server.probe(port), log)
            return perf_counter() - begun


def main() -> int:
    """Measure, and print a row for each pooling and number of workers."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench.scale")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--poolings", default="off,multiplex")
    parser.add_argument("--workers", default="1,2,8")
    options = parser.parse_args()
    raise_fd_limit()
    poolings = options.poolings.split(",")
    cases = [(each, int(count)) for each in poolings for count in options.workers.split(",")]
    costs: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    starts: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for number in range(options.rounds):
        for case in cases:
            costs[case].append(cost_us(*case))
            starts[case].append(start_up_s(*case))
            print(f"round {number + 1} {case}: {costs[case][-1]:.2f} us", flush=True)
    table = Table(title=f"Medians of {options.rounds} rounds, SET and GET on 100 connections")
    for heading in ("pooling", "workers", "us/request", "of the first", "serves after s", "worst"):
        table.add_column(heading, justify="right")
    for pooling, workers in cases:
        cost = statistics.median(costs[pooling, workers])
        first = statistics.median(costs[pooling, cases[0][1]])
        begun = starts[pooling, workers]
        told = (f"{cost:.2f}", f"{cost / first:.2f}", f"{statistics.median(begun):.2f}")
        table.add_row(pooling, str(workers), *told, f"{max(begun):.2f}")
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

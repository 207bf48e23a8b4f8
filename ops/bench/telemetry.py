"""What it costs to be watched: the proxy's CPU per round trip with telemetry and without.

    python -m ops.bench.telemetry [--rounds 16] [--requests 60000] [--poolings off,multiplex]

Two Aegis share the proxy's core, each before a Redis of its own. One has an exporter that hears its
worker every second and is scraped as ops/prometheus does; the other has none, and its worker tells
nobody anything (`metrics.bind = ""`). Both are loaded at the same time, so that both meet the same
noise, and the ratio is taken within a round; in the second half they change places. All processes
of a proxy count: controller, worker and exporter.

What telemetry costs it costs once a second, whatever the load. Here each proxy has half a core, so
that weighs twice as much as on the busy core of its own that the last column tells of, and the
target. Exit code 1 if that is missed.

Told with it: where the median of ratios lies with 95% certainty (binomial, whatever the noise is).
"""

import argparse
import contextlib
import math
import statistics
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ops.bench import cpu, peer_configs, redis_load
from ops.bench.peers import Peer, Place
from ops.bench.processes import free_port, raise_fd_limit
from ops.bench.scene import Scene, staged

TARGET = 1.01
CLIENTS = 100
SCRAPE_EVERY_S = 5.0
DEADLINE_S = 120.0
PROTOCOLS = {"off": "raw", "warm": "raw", "session": "resp", "multiplex": "resp"}


def peer(pooling: str, metrics: str) -> Peer:
    """Return an Aegis with an exporter there, or with none for an empty address."""

    def command(place: Place) -> list[str]:
        config = place.directory / "aegis.toml"
        text = peer_configs.aegis(
            place.port, place.server_port, protocol=PROTOCOLS[pooling], pooling=pooling
        )
        config.write_text(f'metrics.bind = "{metrics}"\n{text}')
        run = str(place.directory / "run")
        arguments = ["--config", str(config), "--runtime-dir", run]
        return [sys.executable, "-P", "-m", "control.main", *arguments]

    return Peer(f"aegis-{pooling}", frozenset({"resp"}), command)


@contextlib.contextmanager
def scraped(metrics: str) -> Iterator[None]:
    """Ask for the metrics now and then, as Prometheus does."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_EVERY_S):
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=20) as reply:
                reply.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def worker_of(scene: Scene) -> tuple[int, ...]:
    """Return the pid of the worker alone."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in scene.proxy_pids}
    return tuple(pid for pid, line in lines.items() if b"workers.worker" in line)


class Cost(NamedTuple):
    """Microseconds of CPU a request."""

    whole: float
    worker: float


def cost(scene: Scene, requests: int) -> Cost:
    """Run the load."""
    worker = worker_of(scene)
    before = cpu.read(worker)
    size = redis_load.Size(requests, CLIENTS)
    figures = redis_load.run(scene, size, DEADLINE_S)
    spent = cpu.spent(before, cpu.read(worker)).total_s
    in_all = (requests + size.opening) * len(size.commands)
    return Cost(figures["user"] + figures["system"], spent / in_all * 1e6)


def both(scenes: tuple[Scene, Scene], requests: int) -> tuple[Cost, Cost]:
    """Load both at the same time."""
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(cost, scenes, (requests, requests))
    return first, second


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return where their median lies with 95% certainty: between two order statistics."""
    ratios, count = sorted(ratios), len(ratios)
    reach = math.ceil(count / 2 - 0.98 * math.sqrt(count))
    return ratios[max(0, reach - 1)], ratios[min(count - 1, count - reach)]


def cells(pairs: list[tuple[float, float]]) -> list[str]:
    """Return the medians of both sides and of their ratio."""
    ratios = [ours / theirs for ours, theirs in pairs]
    least, most = interval(ratios)
    sides = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    within = f"{ratio:.4f} ({least:.4f} to {most:.4f})"
    return [*(f"{side:.2f}" for side in sides), within, f"{own_core(ratio):.4f}"]


def own_core(ratio: float) -> float:
    """Return what a ratio on half a core would be on a whole one."""
    return 1 + (ratio - 1) / 2


def compare(pooling: str, rounds: int, requests: int, table: Table) -> float:
    """Measure one pooling, add its rows; returns the whole proxy's ratio on a core of its own."""
    pairs: list[tuple[Cost, Cost]] = []
    for swapped in (False, True):
        metrics = f"127.0.0.1:{free_port()}"
        binds = ("", metrics) if swapped else (metrics, "")
        with (
            staged(peer(pooling, binds[0]), "resp") as one,
            staged(peer(pooling, binds[1]), "resp") as other,
            scraped(metrics),
        ):
            both((one, other), requests)  # warms up
            for _ in range(rounds // 2):
                first, second = both((one, other), requests)
                pairs.append((second, first) if swapped else (first, second))
    whole = [(watched.whole, blind.whole) for watched, blind in pairs]
    worker = [(watched.worker, blind.worker) for watched, blind in pairs]
    table.add_row(f"{pooling}, whole proxy", *cells(whole))
    table.add_row(f"{pooling}, worker alone", *cells(worker))
    return own_core(statistics.median(ours / theirs for ours, theirs in whole))


def main() -> int:
    """Measure, print a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench.telemetry")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--poolings", default="off,multiplex")
    options = parser.parse_args()
    raise_fd_limit()
    size = f"{CLIENTS} connections, {options.rounds} rounds of {options.requests:,} SET and GET"
    table = Table(title=f"µs of proxy CPU a round trip, {size}", title_justify="left")
    for heading in ("pooling", "watched", "not", "ratio, half a core each", "a core of its own"):
        table.add_column(heading)
    poolings = options.poolings.split(",")
    ratios = [compare(each, options.rounds, options.requests, table) for each in poolings]
    Console(width=120).print(table)
    return int(max(ratios) > TARGET)


if __name__ == "__main__":
    sys.exit(main())

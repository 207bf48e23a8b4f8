"""What it costs to be watched: the proxy's CPU per round trip with telemetry and without.

    python -m ops.bench.telemetry [--rounds 40] [--requests 20000] [--poolings off,multiplex]

Two Aegis stand side by side on the proxy's core, each before a Redis of its own. One has an
exporter that hears its worker every second and is scraped as ops/prometheus does; the other has
none, and its worker tells nobody anything (`metrics.bind = ""`). The load goes to one and then to
the other, in short turns and an order that changes, so both meet the same noise; the ratio is taken
within a round. All processes of a proxy count: controller, worker and exporter. Exit code 1 if the
median ratio is above the target.

A percent is less than the noise of one round, so there are many, and the interval in which the
median of ratios lies with 95% certainty is told (binomial, without assumptions on the noise).
"""

import argparse
import contextlib
import math
import statistics
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

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


def cost(scene: Scene, requests: int) -> tuple[float, float]:
    """Run the load; returns microseconds of CPU a request, of the whole proxy and its worker."""
    worker = worker_of(scene)
    before = cpu.read(worker)
    size = redis_load.Size(requests, CLIENTS)
    figures = redis_load.run(scene, size, DEADLINE_S)
    spent = cpu.spent(before, cpu.read(worker)).total_s
    in_all = (requests + size.opening) * len(size.commands)
    return figures["user"] + figures["system"], spent / in_all * 1e6


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
    within = f"{statistics.median(ratios):.4f} ({least:.4f} to {most:.4f})"
    return [*(f"{side:.2f}" for side in sides), within]


def compare(pooling: str, rounds: int, requests: int, table: Table) -> float:
    """Measure one pooling, add its rows; returns the median ratio of the whole proxy."""
    metrics = f"127.0.0.1:{free_port()}"
    whole, worker = [], []
    with (
        staged(peer(pooling, metrics), "resp") as seen,
        staged(peer(pooling, ""), "resp") as blind,
        scraped(metrics),
    ):
        for scene in (seen, blind):  # the first run of each warms it up
            cost(scene, requests)
        for number in range(rounds):
            order = (seen, blind) if number % 2 else (blind, seen)
            costs = {scene: cost(scene, requests) for scene in order}
            whole.append((costs[seen][0], costs[blind][0]))
            worker.append((costs[seen][1], costs[blind][1]))
    table.add_row(f"{pooling}, whole proxy", *cells(whole))
    table.add_row(f"{pooling}, worker alone", *cells(worker))
    return statistics.median(ours / theirs for ours, theirs in whole)


def main() -> int:
    """Measure, print a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench.telemetry")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--poolings", default="off,multiplex")
    options = parser.parse_args()
    raise_fd_limit()
    size = f"{CLIENTS} connections, {options.rounds} rounds of {options.requests:,} SET and GET"
    table = Table(title=f"µs of proxy CPU a round trip, {size}", title_justify="left")
    for heading in ("pooling", "watched", "not", "ratio"):
        table.add_column(heading)
    poolings = options.poolings.split(",")
    ratios = [compare(each, options.rounds, options.requests, table) for each in poolings]
    Console(width=120).print(table)
    return int(max(ratios) > TARGET)


if __name__ == "__main__":
    sys.exit(main())

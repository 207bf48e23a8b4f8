"""`ab -k` against Chronos: direct, through Aegis and through its peers, in interleaved rounds.

    python -m ops.bench.ab [--requests 500000] [--clients 200] [--rounds 3]

Proxy on one core, load and database on the other. Prints medians: requests/s, p99, failures, the
proxy's CPU per request, and the rate as a ratio to direct.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from ops.bench.proxies import LOAD_CPU, PROXIES, free_port, installed, wait_for_port


class Row(NamedTuple):
    """One run of ab."""

    rate: float
    p99_ms: float
    complete: int
    failed: int
    proxy_cpu_us: float
    """Per request, user and system; 0 where there is no proxy."""


@contextlib.contextmanager
def chronos(directory: Path) -> Iterator[int]:
    """Run Chronos on the load's core; yields its port."""
    port = free_port()
    arguments = ["--listen", f"127.0.0.1:{port}", "--data", str(directory / "data")]
    process = subprocess.Popen(
        ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "ops.chronos", *arguments],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def run_ab(port: int, requests: int, clients: int, proxy: psutil.Process | None) -> Row:
    """Run ab once on the load's core."""
    before = sum(proxy.cpu_times()[:2]) if proxy else 0.0
    load = ["ab", "-k", "-q", "-n", str(requests), "-c", str(clients), f"http://127.0.0.1:{port}/"]
    output = subprocess.run(
        ["taskset", "-c", str(LOAD_CPU), *load],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    cpu = sum(proxy.cpu_times()[:2]) - before if proxy else 0.0

    def figure(pattern: str) -> float:
        found = re.search(pattern, output)
        assert found is not None, output
        return float(found[1])

    return Row(
        rate=figure(r"Requests per second: +([\d.]+)"),
        p99_ms=figure(r" 99% +(\d+)"),
        complete=int(figure(r"Complete requests: +(\d+)")),
        failed=int(figure(r"Failed requests: +(\d+)")),
        proxy_cpu_us=cpu / requests * 1e6,
    )


def measure(name: str, server_port: int, requests: int, clients: int) -> Row:
    """Run ab through one proxy, or `direct`."""
    if name == "direct":
        return run_ab(server_port, requests, clients, None)
    with (
        tempfile.TemporaryDirectory() as directory,
        PROXIES[name](Path(directory), server_port) as (port, process),
    ):
        return run_ab(port, requests, clients, process)


def main() -> None:
    """Print a row per way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ways = ["direct", *installed()]
    rows: dict[str, list[Row]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as directory, chronos(Path(directory)) as server_port:
        for number in range(args.rounds):
            for way in ways:
                rows[way].append(measure(way, server_port, args.requests, args.clients))
                print(f"round {number + 1}: {way} {rows[way][-1]}", file=sys.stderr)
    load = f"ab -k -n {args.requests} -c {args.clients}"
    print(f"{load}, medians of {args.rounds}, kernel {os.uname().release}")
    print(f"{'way':8} {'req/s':>8} {'p99 ms':>7} {'complete':>9} {'failed':>7} "
          f"{'proxy CPU us/req':>17} {'of direct':>10}")  # fmt: skip
    direct = statistics.median(row.rate for row in rows["direct"])
    for way in ways:
        row = Row(*(statistics.median(column) for column in zip(*rows[way], strict=True)))
        print(
            f"{way:8} {row.rate:>8.0f} {row.p99_ms:>7.0f} {row.complete:>9.0f} {row.failed:>7.0f} "
            f"{row.proxy_cpu_us:>17.1f} {row.rate / direct:>10.2f}"
        )


if __name__ == "__main__":
    main()

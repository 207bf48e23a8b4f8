"""Round trips and churn by redis-benchmark, checked at the server.

redis-benchmark says how fast it was; that the requests arrived, each once, and were answered with
the value and not with an error, is read from the server's own counters before and after. It ends
with an error at the first error reply; older ones count an error as an answer, the counters do not.

It opens its connections anew for each command. What that costs is measured in a run of one request
(one pipeline) a connection and taken off: a round trip is told, without a share of a connect.
"""

import csv
import subprocess
from typing import NamedTuple

from ops.bench.failure import MeasurementError
from ops.bench.peers import find
from ops.bench.processes import LOAD_CPU
from ops.bench.resp import Counts
from ops.bench.scene import Scene
from ops.bench.servers import KEY, VALUE


class Test(NamedTuple):
    """One line of redis-benchmark's CSV."""

    name: str
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Size(NamedTuple):
    """What redis-benchmark is to do, with SET and with GET each."""

    requests: int
    clients: int
    pipeline: int = 1
    reconnect: bool = False
    """A connection for each request, and GET alone."""

    @property
    def opening(self) -> int:
        """The requests of the run that is taken off: what is sent before the first reply."""
        return 0 if self.reconnect else self.clients * self.pipeline

    @property
    def commands(self) -> tuple[str, ...]:
        """What is sent, in this order."""
        return ("get",) if self.reconnect else ("set", "get")


def parse(output: str) -> list[Test]:
    """Read what `redis-benchmark --csv` prints.

    Raises:
        MeasurementError: it says something else, such as an error of the server.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    wrong = [line for line in lines if not line.startswith('"')]
    if wrong:
        raise MeasurementError(f"redis-benchmark: {wrong[0][:200]}")
    try:
        return [
            Test(
                row["test"],
                float(row["rps"]),
                float(row["p50_latency_ms"]),
                float(row["p99_latency_ms"]),
                float(row["max_latency_ms"]),
            )
            for row in csv.DictReader(lines)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"redis-benchmark printed no figures: {lines[:2]}") from error


def check(before: Counts, after: Counts, size: Size) -> None:
    """Compare what the server has counted with what was asked of it.

    A pipelining client may send a few more than asked for, in each of the two runs.

    Raises:
        MeasurementError: requests are missing, were sent twice, failed, or found no value.
    """
    least = size.requests + size.opening
    most = least + 2 * size.clients * size.pipeline
    for command in size.commands:
        calls = after[f"calls.{command}"] - before[f"calls.{command}"]
        failed = after[f"failed.{command}"] - before[f"failed.{command}"]
        if failed:
            raise MeasurementError(f"{failed} of {calls} {command} failed at the server")
        if not least <= calls <= most:
            raise MeasurementError(f"the server has had {calls} {command}, {least} were sent")
    hits = after["hits"] - before["hits"]
    if hits < least:
        raise MeasurementError(f"{hits} of {least} GET found the value")


def run(scene: Scene, size: Size, deadline_s: float) -> dict[str, float]:
    """Run redis-benchmark once; GET and SET together are the requests."""
    if size.requests <= size.opening:
        raise MeasurementError(
            f"{size.requests} requests are too few for {size.clients} connections"
        )
    before = Counts.of(scene.server_port)
    with scene.window() as opening:
        if size.opening:
            _run_tests(scene, size, size.opening, deadline_s)
    with scene.window() as window:
        tests = _run_tests(scene, size, size.requests, deadline_s)
    check(before, Counts.of(scene.server_port), size)
    work = (size.requests - size.opening) * len(tests)
    proxy_s = (window.proxy.total_s - opening.proxy.total_s) / work
    server_s = (window.server.total_s - opening.server.total_s) / work
    return {
        "rate": len(tests) / sum(1 / test.rate for test in tests),
        "user": proxy_s * window.proxy.user_share * 1e6,
        "system": proxy_s * (1 - window.proxy.user_share) * 1e6,
        "server": server_s * 1e6,
        "p50_ms": max(test.p50_ms for test in tests),
        "p99_ms": max(test.p99_ms for test in tests),
        "max_ms": max(test.max_ms for test in tests),
    }


def _run_tests(scene: Scene, size: Size, requests: int, deadline_s: float) -> list[Test]:
    tool = find("redis-benchmark")
    if tool is None:
        raise MeasurementError("redis-benchmark is not installed: apt-get install redis-tools")
    arguments = [
        *("-h", "127.0.0.1", "-p", str(scene.port), "-n", str(requests)),
        *("-c", str(size.clients), "-P", str(size.pipeline), "-k", str(int(not size.reconnect))),
        "--csv",
    ]
    words = {"get": ["GET", KEY.decode()], "set": ["SET", KEY.decode(), VALUE.decode()]}
    return [_run_tool([tool, *arguments, *words[command]], deadline_s) for command in size.commands]


def _run_tool(command: list[str], deadline_s: float) -> Test:
    try:
        done = subprocess.run(
            ["taskset", "-c", str(LOAD_CPU), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"redis-benchmark had not ended after {deadline_s:.0f} s") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise MeasurementError(f"redis-benchmark: {said[-1][:200] if said else done.returncode}")
    tests = parse(done.stdout)
    if len(tests) != 1:
        raise MeasurementError(f"redis-benchmark told of {len(tests)} tests, one was run")
    return tests[0]

"""`ab` against Chronos: HTTP with and without keep-alive."""

import re
import subprocess
from typing import NamedTuple

from ops.bench.failure import MeasurementError
from ops.bench.peers import find
from ops.bench.processes import LOAD_CPU
from ops.bench.scene import Scene
from ops.bench.servers import page_bytes


class Size(NamedTuple):
    """What ab is to do."""

    requests: int
    clients: int
    keep_alive: bool


class Output(NamedTuple):
    """What ab says."""

    rate: float
    complete: int
    failed: int
    """Connections and receptions that failed, bodies of another length, and exceptions."""
    write_errors: int
    not_2xx: int
    kept_alive: int
    page_bytes: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def parse(text: str) -> Output:
    """Read what ab prints.

    Raises:
        MeasurementError: it is not what ab prints at the end of a run.
    """

    def figure(pattern: str, absent: str | None = None) -> str:
        found = re.search(rf"^{pattern}", text, re.MULTILINE)
        if found:
            return found[1]
        if absent is None:
            last = text.strip().splitlines()[-1:] or ["nothing"]
            raise MeasurementError(
                f"ab printed no {pattern.split(':', maxsplit=1)[0].strip()!r}: {last[0][:200]}"
            )
        return absent

    return Output(
        rate=float(figure(r"Requests per second: +([\d.]+)")),
        complete=int(figure(r"Complete requests: +(\d+)")),
        failed=int(figure(r"Failed requests: +(\d+)")),
        write_errors=int(figure(r"Write errors: +(\d+)", "0")),
        not_2xx=int(figure(r"Non-2xx responses: +(\d+)", "0")),
        kept_alive=int(figure(r"Keep-Alive requests: +(\d+)", "0")),
        page_bytes=int(figure(r"Document Length: +(\d+)")),
        p50_ms=float(figure(r" +50% +(\d+)")),
        p99_ms=float(figure(r" +99% +(\d+)")),
        max_ms=float(figure(r" +100% +(\d+)")),
    )


def check(output: Output, size: Size, expected_page_bytes: int) -> None:
    """Compare what ab says with what it was asked to do.

    Raises:
        MeasurementError: not every request had its answer.
    """
    if output.complete != size.requests:
        raise MeasurementError(f"{output.complete} of {size.requests} requests complete")
    if wrong := output.failed + output.write_errors + output.not_2xx:
        raise MeasurementError(f"{wrong} of {size.requests} requests failed")
    if output.page_bytes != expected_page_bytes:
        raise MeasurementError(
            f"pages of {output.page_bytes} bytes, the server's has {expected_page_bytes}"
        )
    # Chronos keeps a connection for ever; who closes some is measured at churn instead.
    if size.keep_alive and output.kept_alive < 0.99 * size.requests:
        raise MeasurementError(
            f"only {output.kept_alive} of {size.requests} requests on kept connections"
        )


def run(scene: Scene, size: Size, deadline_s: float) -> dict[str, float]:
    """Run ab once."""
    tool = find("ab")
    if tool is None:
        raise MeasurementError("ab is not installed: apt-get install apache2-utils")
    keep_alive = ["-k"] if size.keep_alive else []
    load = [tool, *keep_alive, "-q", "-n", str(size.requests), "-c", str(size.clients)]
    with scene.window() as window:
        try:
            done = subprocess.run(
                ["taskset", "-c", str(LOAD_CPU), *load, f"http://127.0.0.1:{scene.port}/"],
                capture_output=True,
                text=True,
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"ab had not ended after {deadline_s:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise MeasurementError(f"ab: {said[-1][:200] if said else done.returncode}")
    output = parse(done.stdout)
    check(output, size, page_bytes(scene.server_port))
    return {
        "rate": output.rate,
        "user": window.proxy.user_s / size.requests * 1e6,
        "system": window.proxy.system_s / size.requests * 1e6,
        "server": window.server.total_s / size.requests * 1e6,
        "p50_ms": output.p50_ms,
        "p99_ms": output.p99_ms,
        "max_ms": output.max_ms,
    }

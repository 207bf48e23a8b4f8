"""Load generators as processes of their own, on the load's core.

    generator                       bench
    connects, warms up ── ready ──▶ reads the proxy's CPU clocks
                       ◀─── go ───
    load               ── JSON ───▶ reads them again

so that neither the start of the generator nor its connecting is in the figures. A generator that
meets a wrong or missing answer ends with exit code 1 and says why on its last line.
"""

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator

from ops.bench.failure import MeasurementError
from ops.bench.processes import LOAD_CPU

READY_DEADLINE_S = 60.0


class Generator:
    """A generator that is ready to go, or raises MeasurementError; a context manager."""

    def __init__(self, module: str, **options: object) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._child = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", *module.split(), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def wait_until_ready(self) -> None:
        """Wait for its connections to stand."""
        assert self._child.stdout is not None
        poll = select.poll()  # select(2) knows no fd above 1,023
        poll.register(self._child.stdout, select.POLLIN)
        ready = poll.poll(READY_DEADLINE_S * 1000)
        if not ready:
            raise MeasurementError(f"the load was not ready in {READY_DEADLINE_S:.0f} s")
        if self._child.stdout.readline() != "ready\n":
            raise MeasurementError(_last_line(self._child.communicate()[1]))

    def go(self) -> None:
        """Let it begin."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()

    def result(self, deadline_s: float) -> dict[str, float]:
        """Wait for its end and return what it tells."""
        try:
            output, errors = self._child.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"the load had not ended after {deadline_s:.0f} s") from error
        if self._child.returncode:
            raise MeasurementError(_last_line(errors))
        told: dict[str, float] = json.loads(output)
        return told


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "the load ended without a word"


def wait_for_go() -> None:
    """In the generator: say that all is ready, and wait to be let go."""
    print("ready", flush=True)
    sys.stdin.readline()


def tell(result: dict[str, float]) -> None:
    """In the generator: hand the figures over."""
    print(json.dumps(result), flush=True)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """In the generator: end with exit code 1 and one line on what went wrong."""
    try:
        yield
    except (MeasurementError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)

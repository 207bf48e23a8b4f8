"""The suites: what each needs, and how one run of it is read.

A part is run on a fresh server: Redis' tests change the server's configuration as they go.
"""

import subprocess
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ops.bench.processes import free_port
from ops.conformance import sides, sources
from ops.conformance.outcomes import Outcomes, from_junit, from_tcl

PART_TIMEOUT_S = 900
TEST_TIMEOUT_S = 60
"""Of one pytest test; a reply that never comes costs that much and not the run."""

UNIT_STALLS_S = 400
"""Redis' runner gives up when no test has ended for so long."""

REDIS_PY = "6.4.0"
"""Its sdist is the newest whose tests take Redis 7.0 without modules and servers of Redis' own."""
REDIS_PY_LEFT_OUT = "onlycluster or redismod or ssl or cp_integration or auth_integration"
REDIS_PY_OTHER_SERVERS = ("test_sentinel.py", "test_asyncio/test_sentinel.py")
PYMEMCACHE = "4.0.0"
PYTEST = ("pytest<9", "pytest-timeout")

WITHOUT_DEBUG = "-needs:debug"
"""DEBUG makes a client's connection a tunnel, and nothing that follows in its unit is shared."""
UNITS_ABOUT_SERVERS = ("unit/cluster", "unit/tls", "unit/oom-score-adj", "unit/aofrw")
"""They start servers of their own or need a restart: nothing of them runs on an external server."""


class Suite(NamedTuple):
    """One suite, with one way of running it."""

    name: str
    protocol: str
    server: Callable[[], AbstractContextManager[int]]
    parts: Callable[[], Iterable[str]]
    run: Callable[[int, str], Outcomes]
    """(port, part): run it against what listens there."""


def _redis_units(*patterns: str) -> list[str]:
    tests = sources.redis_tests() / "tests"
    units = [
        str(path.relative_to(tests).with_suffix(""))
        for pattern in patterns
        for path in sorted(tests.glob(f"{pattern}.tcl"))
    ]
    return [unit for unit in units if not unit.startswith(UNITS_ABOUT_SERVERS)]


def _run_redis_unit(tags: str, port: int, unit: str) -> Outcomes:
    command = ["./runtest", "--host", "127.0.0.1", "--port", str(port), "--single", unit]
    command += [
        "--durable",
        "--clients",
        "1",
        "--timeout",
        str(UNIT_STALLS_S),
        "--baseport",
        str(free_port()),
    ]
    output = _output([*command, *(["--tags", tags] if tags else [])], sources.redis_tests())
    return from_tcl(unit, output)


def _run_redis_py(protocol: str, port: int, _part: str) -> Outcomes:
    python = sources.environment(
        "redis-py", f"redis=={REDIS_PY}", "redis-entraid", "hiredis", "pytest-asyncio<1.3",
        "mock", "packaging", "ujson", "numpy", *PYTEST,
    )  # fmt: skip
    tests = sources.sdist("redis", REDIS_PY) / "tests"
    results = sources.ROOT / f"redis-py-{port}.xml"
    options = [
        f"--redis-url=redis://127.0.0.1:{port}/9",
        f"--protocol={protocol}",
        "-m",
        f"not ({REDIS_PY_LEFT_OUT})",
    ]
    options += [f"--ignore={tests / name}" for name in REDIS_PY_OTHER_SERVERS]
    return _pytest(python, tests, ["-o", "asyncio_mode=auto", *options], results)


def _run_pymemcache(port: int, _part: str) -> Outcomes:
    python = sources.environment(
        "pymemcache", f"pymemcache=={PYMEMCACHE}", "faker", "zstd", *PYTEST
    )
    tests = sources.sdist("pymemcache", PYMEMCACHE) / "pymemcache" / "test"
    results = sources.ROOT / f"pymemcache-{port}.xml"
    options = ["--server=127.0.0.1", f"--port={port}", "-m", "integration"]
    return _pytest(python, tests, options, results)


def _pytest(python: Path, tests: Path, options: list[str], results: Path) -> Outcomes:
    """Run the tests, from their sdist's root, and read the results."""
    results.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", str(tests), "-q", "-W", "ignore"]
    command += ["-p", "no:cacheprovider"]
    command += ["--tb=native"]  # any other parses sources, at which CPython 3.11 may fail
    command += ["-c", "/dev/null", "--rootdir", str(tests.parent)]
    command += ["--timeout", str(TEST_TIMEOUT_S), f"--junitxml={results}", *options]
    output = _output(command, sources.ROOT)
    results.with_suffix(".log").write_text(output)
    return from_junit(results)


def _output(command: list[str], directory: Path) -> str:
    """Run a suite to its end, however it ends; what it printed."""
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, timeout=PART_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace")
    return (done.stdout + done.stderr).decode(errors="replace")


def _whole() -> list[str]:
    return ["all"]


SUITES = (
    Suite(
        "redis", "resp", sides.redis_server,
        partial(_redis_units, "unit/*", "unit/type/*", "integration/redis-cli"),
        partial(_run_redis_unit, WITHOUT_DEBUG),
    ),
    Suite(
        "redis-debug", "resp", sides.redis_server,
        partial(_redis_units, "unit/*", "unit/type/*"), partial(_run_redis_unit, ""),
    ),
    Suite("redis-py-resp2", "resp", sides.redis_server, _whole, partial(_run_redis_py, "2")),
    Suite("redis-py-resp3", "resp", sides.redis_server, _whole, partial(_run_redis_py, "3")),
    Suite("pymemcache", "memcached", sides.memcached, _whole, _run_pymemcache),
)  # fmt: skip

"""redis through `raw` listeners: its own benchmark, and every key compared after a bulk load."""

import hashlib
import subprocess
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.end_to_end.databases import redis
from tests.harness import wait_until
from tests.proxy import FULL, Aegis, Proxies, needs

KEYS = 1_000_000 if FULL else 20_000
REQUESTS = 200_000 if FULL else 10_000
TIMEOUT_S = 500


@pytest.fixture(params=[{}, {"slab_bytes": 64, "slabs": 2}], ids=["usual slabs", "tiny slabs"])
def front(request: pytest.FixtureRequest, proxies: Proxies) -> Iterator[tuple[Aegis, str]]:
    """A proxy, and the address of the redis behind it."""
    needs("redis-server", "redis-cli", "redis-benchmark")
    with redis() as address:
        yield proxies.started(address, **request.param), address


def port(address: str) -> str:
    return address.rpartition(":")[2]


def cli(address: str, *arguments: str, feed: bytes | None = None) -> bytes:
    result = subprocess.run(
        ["redis-cli", "-h", "127.0.0.1", "-p", port(address), *arguments],
        input=feed,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert b"ERR" not in result.stdout[-200:], result.stdout[-200:]
    return result.stdout


def command(*words: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)]
    return b"".join(parts)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_every_key_of_a_bulk_load_arrives_and_comes_back_as_it_was(
    front: tuple[Aegis, str],
) -> None:
    aegis, behind = front
    values = [hashlib.sha256(b"%d" % i).hexdigest().encode() for i in range(KEYS)]
    load = b"".join(command(b"SET", b"key:%d" % i, v) for i, v in enumerate(values))
    began = monotonic()
    said = cli(aegis.address, "--pipe", feed=load)
    loaded = monotonic()
    assert b"errors: 0, replies: %d" % KEYS in said
    gets = b"".join(b"GET key:%d\n" % i for i in range(KEYS))
    through_the_proxy = cli(aegis.address, feed=gets)
    print(
        f"{KEYS:,} keys: --pipe {loaded - began:.1f} s ({len(load) / 1e6:.0f} MB), "
        f"GET one by one {monotonic() - loaded:.1f} s"
    )
    assert through_the_proxy == b"".join(value + b"\n" for value in values)
    assert cli(behind, "DBSIZE").strip() == b"%d" % KEYS


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark_runs_and_no_session_is_left(
    front: tuple[Aegis, str], pipeline: str
) -> None:
    aegis, _ = front
    result = subprocess.run(
        [
            *("redis-benchmark", "-h", "127.0.0.1", "-p", port(aegis.address), "--csv"),
            *("-t", "set,get,lrange_100", "-c", "50", "-n", str(REQUESTS), "-P", pipeline),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    rows = [line.split(",")[:2] for line in result.stdout.splitlines()[1:]]
    print(f"pipeline {pipeline}, requests a second: {rows}")
    assert len(rows) >= 3
    assert "rror" not in result.stderr, result.stderr
    wait_until(lambda: not sum(w.sessions for w in aegis.workers()), "no session is left")
    assert aegis.status().backends[0].servers[0].connect_errors_total == 0

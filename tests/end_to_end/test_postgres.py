"""PostgreSQL through `raw` listeners: pgbench, and COPY both ways compared byte by byte."""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.end_to_end.databases import Postgres, postgres, psql, url
from tests.harness import wait_until
from tests.proxy import FULL, Aegis, Proxies, needs

COPY_BYTES = 200_000_000 if FULL else 8_000_000
BENCH_S = 60 if FULL else 2
LINE = 100

pytestmark = [pytest.mark.xdist_group("postgres"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    needs("initdb", "postgres", "psql", "pgbench")
    with postgres() as made:
        yield made


def port(aegis: Aegis) -> int:
    return int(aegis.address.rpartition(":")[2])


def rows(path: Path) -> str:
    """Write lines of hexadecimal digits, none like another; returns their checksum."""
    with path.open("wb") as file:
        for n in range(COPY_BYTES // LINE):
            text = hashlib.sha384(b"%d" % n).hexdigest().encode()
            file.write(text.ljust(LINE - 1, b"."))
            file.write(b"\n")
    return checksum(path)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("name", "config"), [("usual", {}), ("tiny", {"slab_bytes": 512, "slabs": 4})]
)
def test_copy_in_and_out_gives_back_every_byte(
    proxies: Proxies, server: Postgres, name: str, config: dict[str, Any]
) -> None:
    aegis = proxies.started(server.address, **config)
    table = f"copied_{name}"
    source, sink = proxies.directory / "in", proxies.directory / "out"
    expected = rows(source)
    psql(server.port, f"create table {table} (n serial, t text)")
    began = monotonic()
    with source.open("rb") as file:
        psql(port(aegis), f"copy {table} (t) from stdin", stdin=file, stdout=subprocess.PIPE)
    middle = monotonic()
    with sink.open("wb") as file:
        psql(port(aegis), f"copy (select t from {table} order by n) to stdout", stdout=file)
    ended = monotonic()
    print(
        f"COPY of {COPY_BYTES / 1e6:.0f} MB, {name} slabs: in {middle - began:.1f} s, "
        f"out {ended - middle:.1f} s, checksums equal"
    )
    assert checksum(sink) == expected
    psql(server.port, f"drop table {table}")


@pytest.mark.parametrize("back", ["tcp", "unix"])
def test_pgbench_runs_without_a_failed_transaction(
    proxies: Proxies, server: Postgres, back: str
) -> None:
    (pgbench,) = needs("pgbench")
    aegis = proxies.started(server.address if back == "tcp" else server.unix_address)
    target = url(port(aegis))
    subprocess.run([pgbench, "-i", "-q", "-s", "2", target], check=True, capture_output=True)
    result = subprocess.run(
        [pgbench, "-n", "-c", "10", "-j", "2", "-T", str(BENCH_S), target],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    print(result.stdout)
    assert "number of failed transactions: 0 (0.000%)" in result.stdout
    (done,) = re.findall(r"transactions actually processed: (\d+)", result.stdout)
    counted = psql(server.port, "select count(*), sum(delta) = (select sum(abalance) from "
                   "pgbench_accounts) from pgbench_history").stdout.decode()  # fmt: skip
    assert counted == f"{done}|t\n", "what clients were told is what the database has"
    wait_until(lambda: not sum(w.sessions for w in aegis.workers()), "no session is left")


def test_a_connection_per_transaction_leaks_none(proxies: Proxies, server: Postgres) -> None:
    (pgbench,) = needs("pgbench")
    aegis = proxies.started(server.address)
    script = proxies.directory / "one.sql"
    script.write_text("select 1;\n")
    subprocess.run(
        [pgbench, "-n", "-C", "-c", "8", "-t", "25", "-f", script, url(port(aegis))],
        check=True,
        capture_output=True,
        timeout=100,
    )
    wait_until(lambda: aegis.status().listeners[0].sessions_total >= 200, "all are counted")
    wait_until(lambda: not sum(w.sessions for w in aegis.workers()), "no session is left")

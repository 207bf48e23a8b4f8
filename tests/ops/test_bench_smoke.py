"""`make bench` in small: real servers, whatever peers are here, one row; and a peer that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench import peers, rounds, rows
from ops.bench.data import load
from tests.proxy import needs

ROOT = Path(__file__).parents[2]


def quick(tmp_path: Path, row: str, *peer_names: str) -> str:
    """Return what it printed; it must end with exit code 0."""
    arguments = [f"--rows={row}", f"--peers={','.join(peer_names)}", f"--out={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-m", "ops.bench", "--quick", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as bench:  # fmt: skip
        try:
            output, _ = bench.communicate(timeout=100)
        finally:
            bench.terminate()  # it ends what it has started
    assert bench.returncode == 0, output
    return output


def test_a_quick_run_of_one_row_writes_page_data_and_plot(tmp_path: Path) -> None:
    needs("redis-server", "redis-benchmark")
    printed = quick(tmp_path, "churn", "direct", "aegis-multiplex", "haproxy", "twemproxy")
    assert "4 measurements" in printed or "left out" in printed
    run = load(tmp_path / "benchmarks.json")
    assert set(run.settings.peers) | set(run.settings.left_out) == {
        "direct", "aegis-multiplex", "haproxy", "twemproxy",
    }  # fmt: skip
    assert run.figures_of("churn", "direct")[0]["rate"] > 0
    assert run.figures_of("churn", "aegis-multiplex")[0]["server"] > 0
    assert (tmp_path / "benchmarks" / "churn.svg").read_text().startswith("<svg")
    page = (tmp_path / "benchmarks.md").read_text()
    assert "aegis-multiplex" in page
    assert all(name in page for name in run.settings.left_out)


@pytest.mark.parametrize(
    ("row", "peer"),
    [("bulk-50-up", "aegis-off"), ("bulk-1-down", "asyncio"), ("open-loop", "aegis-multiplex")],
)
def test_our_own_loads_run_through_a_proxy(row: str, peer: str) -> None:
    needs("redis-server")
    outcome = rounds.measure(rounds.Step(rows.BY_NAME[row], peers.BY_NAME[peer], 0), quick=True)
    assert outcome.failure is None
    assert outcome.figures["user"] + outcome.figures["system"] > 0


def test_a_peer_that_does_not_start_is_an_outcome_with_its_reason() -> None:
    broken = peers.BY_NAME["asyncio"]._replace(
        name="broken", command=lambda _: ["sh", "-c", "echo no such option; exit 1"]
    )
    outcome = rounds.measure(rounds.Step(rows.BY_NAME["bulk-1-up"], broken, 0), quick=True)
    assert outcome.failure == "broken ended at once: no such option"
    assert outcome.figures == {}


def test_a_peer_that_dies_under_load_is_an_outcome_with_its_reason() -> None:
    """It relays the probe's connection and no other."""
    relay = (
        "import socket, sys, threading\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "server = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "client = listener.accept()[0]\n"
        "server.sendall(client.recv(100))\n"
        "while data := server.recv(100): client.sendall(data)\n"
        "client.close()\n"
        "listener.accept()[0].close()\n"
    )
    dying = peers.BY_NAME["asyncio"]._replace(
        name="dying",
        command=lambda place: [
            sys.executable, "-c", relay, str(place.port), str(place.server_port),
        ],
    )  # fmt: skip
    outcome = rounds.measure(rounds.Step(rows.BY_NAME["bulk-1-down"], dying, 0), quick=True)
    assert outcome.failure
    assert outcome.figures == {}

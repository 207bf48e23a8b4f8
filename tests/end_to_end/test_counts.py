"""/metrics against the load generator's own counts: the same to the last session, request and byte.

A worker is killed while nothing is in flight and all it has counted is told; what it had counted
must stay, and its successor's counts must come on top.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.end_to_end.echo import Echo, ask
from tests.end_to_end.test_exporter_killed import exporter_pid, scrape
from tests.end_to_end.test_worker_killed import killed_and_replaced
from tests.harness import receive, wait_until
from tests.proxy import Aegis, Proxies, connect, reserve_port


@dataclass
class Counted:
    """What one listener's clients have done, as they count it."""

    sessions: int = 0
    sent: int = 0
    received: int = 0
    requests: int = 0
    """Where pipes are shared."""


def metric(text: str, name: str, **labels: str) -> int:
    """Return the sum of a metric's series that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    rows = [row for row in text.splitlines() if row.startswith(f"{name}{{")]
    return round(
        sum(float(row.rpartition(" ")[2]) for row in rows if all(want in row for want in wanted))
    )


def shown(aegis: Aegis, listener: str) -> Counted:
    text = scrape(aegis)
    received = "aegis_received_bytes_total"
    return Counted(
        metric(text, "aegis_sessions_total", listener=listener),
        metric(text, received, listener=listener, **{"from": "client"}),
        metric(text, received, listener=listener, **{"from": "server"}),
        metric(text, "aegis_requests_total", protocol=listener),
    )


def agrees(aegis: Aegis, counted: dict[str, Counted]) -> bool:
    return all(shown(aegis, name) == clients for name, clients in counted.items())


@dataclass
class Front:
    """A proxy with a listener that relays and one that shares pipes, and its clients' counts."""

    aegis: Aegis
    binds: dict[str, str]
    counted: dict[str, Counted]

    def run(self, rng: random.Random, sessions: int) -> None:
        """Have so many clients come to each listener, ask and leave."""
        for _ in range(sessions):
            question = rng.randbytes(rng.randint(1, 50_000))
            with connect(self.binds["raw"]) as client:
                assert ask(client, question) == question
            self._count("raw", len(question))
            lines = rng.randint(1, 20)
            request = b"".join(b"LINE %d\n" % rng.randint(1, 10**6) for _ in range(lines))
            with connect(self.binds["line"]) as client:
                client.sendall(request)
                assert receive(client, len(request)) == request
            self._count("line", len(request), lines)

    def _count(self, listener: str, size: int, requests: int = 0) -> None:
        counted = self.counted[listener]
        counted.sessions += 1
        counted.sent += size
        counted.received += size
        counted.requests += requests


@pytest.fixture
def front(proxies: Proxies, echo: Echo) -> Front:
    binds = {name: f"127.0.0.1:{reserve_port(proxies.own)}" for name in ("raw", "line")}
    aegis = proxies.new(
        echo.address,
        listeners={
            "raw": {"bind": binds["raw"]},
            "line": {"bind": binds["line"], "protocol": "line", "pooling": "multiplex"},
        },
    )
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    return Front(aegis, binds, {name: Counted() for name in binds})


def kill_worker(aegis: Aegis) -> None:
    killed_and_replaced(aegis, 0)


def kill_exporter(aegis: Aegis) -> None:
    victim = exporter_pid(aegis)
    aegis.kill(victim)
    wait_until(lambda: exporter_pid(aegis) not in {0, victim}, "another exporter")


def drain_and_start(aegis: Aegis) -> None:
    aegis.done("drain")
    aegis.done("start")


@pytest.mark.parametrize("fault", [kill_worker, kill_exporter, drain_and_start])
def test_metrics_equal_the_clients_counts_to_the_last_session_request_and_byte(
    front: Front, rng: random.Random, fault: Callable[[Aegis], None]
) -> None:
    for round_ in range(3):
        front.run(rng, 15)
        wait_until(lambda: agrees(front.aegis, front.counted), f"equal counts, {front.counted}")
        if round_ < 2:
            fault(front.aegis)
    for listener, counted in front.counted.items():
        text = scrape(front.aegis)
        assert metric(text, "aegis_sessions_active", listener=listener) == 0
        closed = metric(text, "aegis_sessions_closed_total", listener=listener)
        ends = metric(text, "aegis_sessions_closed_total", listener=listener, reason="client_eof")
        assert closed == ends == counted.sessions == 45

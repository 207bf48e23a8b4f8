"""A real Prometheus on a proxy under load: every query of ops/ is asked, and each has an answer.

The proxy has what the queries are about: a listener that relays, one that shares pipes, a worker
that dies, a drain, a client that is pinned, a pipe that the server ends.
"""

import contextlib
import json
import math
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any

from ops.grafana.dashboard import ANNOTATIONS, ROWS
from tests.end_to_end.databases import redis
from tests.end_to_end.echo import Echo, Load
from tests.end_to_end.test_exporter_killed import scrape
from tests.end_to_end.test_worker_killed import killed_and_replaced
from tests.harness import receive, wait_until
from tests.proxy import Aegis, Proxies, connect, needs, reserve_port

OPS = Path(__file__).parents[2] / "ops" / "prometheus"
PATIENCE_S = 60
COMPARISON = re.compile(r"\s*(>|==)\s*[\d.]+$")


@dataclass
class Prometheus:
    """A running one; scrapes and evaluates every second instead of every five."""

    address: str

    def get(self, path: str, **query: object) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]

    def has(self, expr: str, since: float | None = None) -> bool:
        """Whether there is a number, now or since an instant."""
        if since is not None:
            data = self.get("query_range", query=expr, start=since, end=time(), step=1)
            found = [value for series in data["result"] for _, value in series["values"]]
        else:
            found = [series["value"][1] for series in self.get("query", query=expr)["result"]]
        return any(not math.isnan(float(value)) for value in found)

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def prometheus(target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the configuration of ops/prometheus, on one proxy."""
    (program,) = needs("prometheus")
    with contextlib.ExitStack() as own:
        directory = Path(own.enter_context(TemporaryDirectory(prefix="prometheus-")))
        config = (OPS / "prometheus.yml").read_text()
        quick = re.sub(r"(_interval|_timeout): \d+s", r"\1: 1s", config)
        assert quick != config
        (directory / "prometheus.yml").write_text(quick)
        (directory / "aegis.rules.yml").write_text((OPS / "aegis.rules.yml").read_text())
        (directory / "targets.yml").write_text(f'- targets: ["{target}"]\n')
        address = f"127.0.0.1:{reserve_port(own)}"
        log = own.enter_context((directory / "log").open("w+"))
        child = own.enter_context(
            subprocess.Popen(
                [
                    program,
                    f"--config.file={directory}/prometheus.yml",
                    f"--storage.tsdb.path={directory}/data",
                    f"--web.listen-address={address}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        )
        own.callback(child.kill)

        def ready() -> bool:
            assert child.poll() is None, (directory / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as reply:
                    return bool(reply.status == 200)
            except OSError:
                return False

        wait_until(ready, "Prometheus is ready", PATIENCE_S)
        yield Prometheus(address)


class RedisClients:
    """Share pipes, pin one now and then, and have the server end them all."""

    def __init__(self, address: str, server: str) -> None:
        self._address, self._server = address, server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(OSError), connect(self._address) as client:
                client.sendall(b"GET a\r\nMULTI\r\nEXEC\r\n")
                receive(client, len(b"$-1\r\n+OK\r\n*0\r\n"))
            with connect(self._server) as admin:
                admin.sendall(b"CLIENT KILL TYPE normal\r\n")
                admin.recv(64)


@contextlib.contextmanager
def busy_proxy(proxies: Proxies, echo: Echo) -> Iterator[Aegis]:
    """Run a proxy with all that the queries ask about."""
    with redis() as server:
        aegis = proxies.new(
            listeners={
                "front": {"bind": proxies_address(proxies)},
                "redis": {
                    "bind": proxies_address(proxies),
                    "backend": "redis",
                    "protocol": "resp",
                    "pooling": "multiplex",
                },
            },
            backends={"db": {"servers": [echo.address]}, "redis": {"servers": [server]}},
            log={"sessions": str(proxies.directory / "sessions.log")},
        )
        aegis.done("start", "--detach", "--config", str(aegis.config_file))
        binds = {listener.name: listener.bind for listener in aegis.status().listeners}
        with Load(binds["front"], clients=2), RedisClients(binds["redis"], server):
            yield aegis


def proxies_address(proxies: Proxies) -> str:
    return f"127.0.0.1:{reserve_port(proxies.own)}"


def asked(expr: str) -> str:
    """Return what Grafana would ask."""
    return expr.replace("$__rate_interval", "15s").replace("$instance", ".+")


def parts_with_data(rule: dict[str, Any]) -> list[str]:
    """Return what of a rule has data: of an alert that does not fire that is what it compares."""
    if rule["type"] == "recording":
        return [rule["query"]]
    left, _, right = rule["query"].partition(" unless on (job, instance) ")
    return [COMPARISON.sub("", left)] + ([right] if right else [])


def await_data(server: Prometheus, what: str, expr: str, since: float | None = None) -> None:
    wait_until(partial(server.has, expr, since), f"{what}: {expr}", PATIENCE_S)


def test_every_query_of_the_dashboard_and_the_rules_returns_data(
    proxies: Proxies, echo: Echo
) -> None:
    began = time()
    with busy_proxy(proxies, echo) as aegis, prometheus(aegis.metrics) as server:
        wait_until(lambda: server.has("aegis_epoch"), "the first scrape", PATIENCE_S)
        aegis.done("drain", "--timeout", "1")
        wait_until(lambda: server.has('aegis_phase{phase="drained"} == 1'), "drained", PATIENCE_S)
        aegis.done("start")
        killed_and_replaced(aegis, 0)
        panels = [
            (panel.title, query.expr)
            for row in ROWS
            for panel in row.panels
            for query in panel.queries
        ]
        assert len(panels) > 40
        for title, expr in panels:
            await_data(server, title, asked(expr))
        for name, expr in ANNOTATIONS.items():
            await_data(server, name, asked(expr), began)
        rules = wait_until(server.rules, "rules")
        assert len(rules) > 20
        for rule in rules:
            assert (rule["health"], rule.get("lastError")) == ("ok", None), rule
            for part in parts_with_data(rule):
                await_data(server, rule["name"], part)
        assert "AegisWorkerDied" in {
            alert["labels"]["alertname"] for alert in server.get("alerts")["alerts"]
        }
        lint(scrape(aegis))


def lint(metrics: str) -> None:
    """Have Prometheus' own tool read the metrics: it says nothing when all is well."""
    (promtool,) = needs("promtool")
    result = subprocess.run(
        [promtool, "check", "metrics"],
        input=metrics,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")

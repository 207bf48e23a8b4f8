"""The exporter beside a running proxy: killed and replaced, and never in the way of data."""

import signal
import urllib.request
from time import monotonic

from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect, refuses


def scrape(aegis: Aegis) -> str:
    """Return the metrics; empty while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{aegis.metrics}/metrics", timeout=10) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def sessions_total(aegis: Aegis) -> float:
    rows = [row for row in scrape(aegis).splitlines() if row.startswith("aegis_sessions_total{")]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def exporter_pid(aegis: Aegis) -> int:
    exporter = aegis.status().exporter
    return (exporter.pid or 0) if exporter else 0


def with_exporter(proxies: Proxies, echo: Echo) -> Aegis:
    aegis = proxies.new(echo.address)
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    return aegis


def test_start_brings_an_exporter_that_counts_sessions(proxies: Proxies, echo: Echo) -> None:
    aegis = with_exporter(proxies, echo)
    for _ in range(5):
        with connect(aegis.address) as client:
            assert works(client)
    wait_until(lambda: sessions_total(aegis) == 5, "the sessions are counted")
    said = aegis.done("status")
    assert f"http://{aegis.metrics}/metrics" in said
    aegis.done("stop")
    assert aegis.left_over() == []
    assert refuses(aegis.metrics)


def test_a_killed_exporter_is_replaced_and_data_does_not_notice(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = with_exporter(proxies, echo)
    with connect(aegis.address) as client, Load(aegis.address) as load:
        assert works(client)
        wait_until(lambda: sessions_total(aegis) > 5, "the sessions are counted")
        before = sessions_total(aegis)
        victim = exporter_pid(aegis)
        aegis.kill(victim)
        killed = monotonic()
        wait_until(lambda: exporter_pid(aegis) not in {0, victim}, "another one")
        wait_until(lambda: sessions_total(aegis) >= before, "nothing is lost: counts go on")
        print(f"metrics were back {monotonic() - killed:.2f} s after the kill -9")
        wait_until(lambda: load.served_since(killed) > 50, "the load goes on")
        assert works(client)
    assert load.broken == []
    exporter = aegis.status().exporter
    assert exporter is not None
    assert exporter.restarts == 1


def test_an_exporter_that_hangs_blocks_nobody(proxies: Proxies, echo: Echo) -> None:
    aegis = with_exporter(proxies, echo)
    hung = wait_until(lambda: exporter_pid(aegis), "an exporter")
    aegis.kill(hung, signal.SIGSTOP)
    with Load(aegis.address) as load:
        aegis.done("drain")
        aegis.done("start")
        since = monotonic()
        wait_until(lambda: load.served_since(since) > 50, "the load is served")
    aegis.done("stop")
    assert aegis.left_over() == []


def test_a_new_controller_replaces_the_exporter_and_keeps_the_workers(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = with_exporter(proxies, echo)
    pids, old = aegis.pids(), exporter_pid(aegis)
    aegis.kill(aegis.controller)
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    assert aegis.pids() == pids
    assert exporter_pid(aegis) not in {0, old}
    assert old not in [process.pid for process in aegis.processes()]
    wait_until(lambda: "aegis_sessions_total" in scrape(aegis), "it answers")


def test_stop_ends_an_orphaned_exporter_too(proxies: Proxies, echo: Echo) -> None:
    aegis = with_exporter(proxies, echo)
    wait_until(lambda: scrape(aegis), "the exporter answers")
    aegis.kill(aegis.controller)
    aegis.done("stop")
    assert aegis.left_over() == []
    assert refuses(aegis.metrics)

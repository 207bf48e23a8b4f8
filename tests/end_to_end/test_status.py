"""`aegis-ctl status`: the table for people and the JSON object that programs may rely on."""

import json
import os
from datetime import UTC, datetime

import psutil

from tests.end_to_end.echo import Echo, works
from tests.harness import wait_until
from tests.proxy import Proxies, connect


def test_the_json_object_is_what_the_design_promises(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    now = json.loads(aegis.done("status", "--json"))
    assert {"phase", "epoch", "controller", "workers", "listeners", "backends"} <= set(now)
    assert now["phase"] == "serving"
    assert isinstance(now["epoch"], int)
    controller = now["controller"]
    assert psutil.Process(controller["pid"]).is_running()
    assert controller["config"] == str(aegis.config_file)
    age = datetime.now(UTC) - datetime.fromisoformat(controller["started"])
    assert -5 < age.total_seconds() < 120
    assert [worker["slot"] for worker in now["workers"]] == [0, 1]
    for worker in now["workers"]:
        assert {"slot", "pid", "cpu", "phase", "epoch"} <= set(worker)
        assert worker["cpu"] in os.sched_getaffinity(0)
        assert (worker["phase"], worker["state"]) == ("serving", "running")
        assert (worker["restarts"], worker["retired"]) == (0, False)
    (listener,) = now["listeners"]
    assert listener["name"] == "front"
    assert listener["bind"] == aegis.address
    assert listener["backend"] == "db"
    assert (listener["protocol"], listener["pooling"]) == ("raw", "off")
    (backend,) = now["backends"]
    assert (backend["name"], backend["balance"]) == ("db", "round_robin")
    assert [server["address"] for server in backend["servers"]] == [echo.address]


def test_workers_apply_the_epoch_that_status_shows(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    for command in ("drain", "start"):
        aegis.done(command)
        now = aegis.status()
        assert {(w.epoch, w.controller) for w in now.workers} == {(now.epoch, now.controller.pid)}


def test_sessions_are_summed_over_the_workers(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(30)]
    assert all(works(client) for client in clients)

    def counted() -> bool:
        now = aegis.status()
        (listener,), (server,) = now.listeners, now.backends[0].servers
        return (
            (listener.sessions, listener.sessions_total) == (30, 30)
            and (server.connections, server.connects_total) == (30, 30)
            and sum(worker.sessions for worker in now.workers) == 30
        )

    wait_until(counted, "all are counted")
    assert all(worker.sessions for worker in aegis.workers()), "the kernel spreads them"
    for client in clients:
        client.close()
    wait_until(lambda: aegis.status().listeners[0].sessions == 0, "none is left")
    assert aegis.status().listeners[0].sessions_total == 30


def test_a_server_that_refuses_shows_as_errors(proxies: Proxies) -> None:
    aegis = proxies.started("127.0.0.1:1")
    with connect(aegis.address) as client:
        assert not works(client)
    wait_until(
        lambda: aegis.status().backends[0].servers[0].connect_errors_total, "an error is counted"
    )


def test_the_table_shows_all_of_it(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    said = aegis.done("status")
    pids = [str(pid) for pid in aegis.pids()]
    for word in ("aegis is serving", *pids, "front", aegis.address, "db", echo.address, "raw"):
        assert word in said, said
    aegis.done("drain")
    assert "aegis is drained" in aegis.done("status")


def test_status_of_what_does_not_run_fails_in_one_line(proxies: Proxies) -> None:
    aegis = proxies.new("127.0.0.1:9")
    for options in ([], ["--json"]):
        result = aegis.ctl("status", *options)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"aegis-ctl: aegis is not running in {aegis.runtime_dir}\n"

"""Checks, ejections and discovery in a whole proxy: counted, told, and not the workers' work."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aegis.messages import (
    Scale,
)
from aegis.status_messages import (
    ServerStatus,
)
from tests.end_to_end.dnsmasq import dnsmasq
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import Rig, reset, wait_until
from tests.proxy import Aegis, Proxies, connect


def server(aegis: Aegis, address: str) -> ServerStatus | None:
    return next((s for s in aegis.status().backends[0].servers if s.address == address), None)


def health(aegis: Aegis, address: str) -> str:
    found = server(aegis, address)
    return found.health if found is not None else "unknown"


def events(aegis: Aegis, *names: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in aegis.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") in names]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_server_is_checked_once_whatever_the_number_of_workers(
    workers: int, proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.new(workers=workers)
    backend = {"servers": [echo.address], "health": {"inter_s": 0.2}}
    aegis.configure(backends={"db": backend}, workers=workers)
    aegis.start()

    def checks() -> int:
        found = server(aegis, echo.address)
        return sum(found.checks_total.values()) if found is not None else 0

    wait_until(lambda: checks() >= 15, "fifteen checks")
    before = checks()
    connections = echo.accepted
    assert before <= connections <= checks() + 1, "no connection that is not the one of a check"
    with connect(aegis.address) as client:
        assert works(client)


@contextmanager
def resetting(rig: Rig) -> Iterator[str]:
    """Be a server that resets whoever says something to it."""
    upstream, over = rig.upstream(backlog=100), threading.Event()

    def serve() -> None:
        waiting: list[socket.socket] = []
        while not over.is_set():
            for sock in select.select([upstream.sock, *waiting], [], [], 0.05)[0]:
                if sock is upstream.sock:
                    waiting.append(upstream.sock.accept()[0])
                else:
                    waiting.remove(sock)
                    reset(sock)
        for sock in waiting:
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield upstream.address
    finally:
        over.set()
        thread.join()


def attempt(aegis: Aegis) -> bool:
    with connect(aegis.address) as client:
        return works(client)


def test_a_server_that_resets_its_clients_is_ejected_and_returns(
    proxies: Proxies, echo: Echo, rig: Rig
) -> None:
    rule = {"consecutive_failures": 3, "base_ejection_s": 2, "max_ejection_s": 60}
    aegis = proxies.new(workers=2)
    with resetting(rig) as bad:
        backend = {"servers": [echo.address, bad], "outlier_detection": rule}
        aegis.configure(backends={"db": backend}, workers=2, log={"format": "json"})
        aegis.start()

        def ejected() -> bool:
            attempt(aegis)
            return health(aegis, bad) == "ejected"

        wait_until(ejected, "the bad one is ejected")
        found = server(aegis, bad)
        assert found is not None
        assert found.effective_weight == 0
        assert found.why.endswith("failures in a row")
        assert found.failures_total.keys() == {"server_reset"}
        wait_until(lambda: {w.epoch for w in aegis.workers()} == {aegis.status().epoch}, "all know")
        assert all(attempt(aegis) for _ in range(20)) or health(aegis, bad) != "ejected"
        wait_until(lambda: health(aegis, bad) == "unchecked", "it returns")
        wait_until(ejected, "and is ejected again, for longer")
        found = server(aegis, bad)
        assert found is not None
        assert 2 < found.ejected_for_s <= 4
    (first, second) = events(aegis, "server_ejected")
    assert (first["backend"], first["server"]) == ("db", bad)
    assert first["level"] == "warning"
    assert len(events(aegis, "server_returned")) == 1
    assert second["message"].startswith(f"server db/{bad} is ejected for 4 s: ")  # type: ignore[attr-defined]


def test_states_are_told_as_events_and_a_server_that_comes_back_serves(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.new(workers=1)
    with Echo() as second:
        check = {"inter_s": 0.1, "rise": 1, "fall": 1}
        backend = {"servers": [echo.address, second.address], "health": check}
        aegis.configure(backends={"db": backend}, workers=1, log={"format": "json"})
        aegis.start()
        wait_until(lambda: health(aegis, second.address) == "up", "it is up")
        gone = second.address
    wait_until(lambda: health(aegis, gone) == "down", "it is down")
    assert all(attempt(aegis) for _ in range(5))
    (told,) = events(aegis, "server_down")
    assert (told["server"], told["backend"]) == (gone, "db")
    assert told["message"] == f"server db/{gone} is down: ECONNREFUSED"


def test_servers_come_and_go_by_a_file_while_everybody_is_served(
    proxies: Proxies, echo: Echo
) -> None:
    second = proxies.own.enter_context(Echo())
    aegis = proxies.new()
    file = aegis.directory / "servers.toml"
    aegis.configure(backends={"db": {"discover": f"file:{file}"}})
    aegis.start()
    with connect(aegis.address) as early:
        file.write_text(f'servers = ["{echo.address}"]')
        assert works(early), "it has waited for the first answer"
        staying = [proxies.own.enter_context(connect(aegis.address)) for _ in range(4)]
        assert all(works(client) for client in staying)
        before = aegis.pids()
        with Load(aegis.address) as load:
            for servers in ([echo, second], [second], [second, echo], [second]):
                listed = ", ".join(f'"{each.address}"' for each in servers)
                write_whole(file, f"servers = [{listed}]")
                wanted = {each.address for each in servers}
                wait_until(lambda wanted=wanted: addresses(aegis) == wanted, "it is known")  # type: ignore[misc]
            write_whole(file, "servers = [")
            wait_until(lambda: aegis.status().backends[0].discovery, "the error is told")
            assert addresses(aegis) == {second.address}
        assert load.broken == []
        assert load.served_since(0.0) > 50
        assert aegis.pids() == before
        assert all(works(client) for client in [early, *staying])


def write_whole(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def addresses(aegis: Aegis) -> set[str]:
    return {each.address for each in aegis.status().backends[0].servers}


def test_what_dns_said_last_is_kept_when_it_is_silent_and_the_controller_dies(
    proxies: Proxies,
) -> None:
    with dnsmasq() as names:
        first = proxies.own.enter_context(Echo())
        port = first.address.rpartition(":")[2]
        names.hosts("db.test", "127.0.0.1")
        aegis = proxies.new()
        backend = {"discover": f"dns:db.test:{port}"}
        aegis.configure(
            backends={"db": backend}, dns={"resolvers": [names.address], "timeout_s": 1}
        )
        aegis.start()
        with connect(aegis.address) as client:
            assert works(client)
        names.stop()
        wait_until(lambda: aegis.status().backends[0].discovery, "the name server is missed")
        aegis.kill(aegis.controller)
        aegis.start()
        assert addresses(aegis) == {first.address}
        aegis.ask(Scale(3))
        wait_until(lambda: len(aegis.pids()) == 3, "a third worker")
        assert all(attempt(aegis) for _ in range(12)), "the newborn knows it too"

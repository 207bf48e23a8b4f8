"""The controller's table of servers, with real checks in its thread, and what a successor knows."""

import json
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from aegis.config import Config
from aegis.config_backend import Backend, Server
from aegis.config_health import Health, OutlierDetection
from aegis.config_listener import Listener
from aegis.figures import Figures, ServerFigures
from aegis.messages import SetServer
from control.server_states import server_states
from control.servers import Servers
from tests.harness import Rig, wait_until

FIRST, SECOND = "127.0.0.1:1", "127.0.0.1:2"
QUICK = Health(inter_s=0.05, rise=1, fall=1, reply_timeout_s=0.2, connect_timeout_s=0.2)


def config_of(*servers: str | Server, **backend: Any) -> Config:
    return Config(
        listeners=(Listener(name="front", bind="127.0.0.1:9", backend="db", protocol="line"),),
        backends=(Backend(name="db", servers=servers, **backend),),
    )


class Controller:
    """As much of a controller as a table of servers needs."""

    def __init__(self, own: ExitStack, directory: Path, config: Config) -> None:
        self.epoch = 0
        self.servers = Servers(config, directory, self._changed)
        own.callback(self.servers.close)
        self.servers.start()

    def _changed(self) -> int:
        self.epoch += 1
        return self.epoch

    def tick(self) -> list[tuple[str, int]]:
        self.servers.tick(monotonic())
        return [(wish.address, wish.weight) for wish in self.servers.wishes.get("db", [])]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait as a controller does, for the background's fd and for time."""

        def look() -> bool:
            select.select([self.servers.background], [], [], 0.05)
            self.tick()
            return condition()

        wait_until(look, what)

    def health(self) -> dict[str, str]:
        backend = self.servers.backends["db"]
        return {address: server.health for address, server in backend.servers.items()}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Config], Controller]]:
    with ExitStack() as own:
        yield lambda config: Controller(own, tmp_path, config)


Start = Callable[[Config], Controller]


def test_servers_are_checked_without_anybody_waiting_for_a_check_that_hangs(
    rig: Rig, start: Start
) -> None:
    well, refuses, silent = rig.upstream(), rig.refused_address(), rig.upstream()
    health = Health(type="send", inter_s=0.05, rise=1, fall=1, reply_timeout_s=0.3)
    controller = start(config_of(well.address, refuses, silent.address, health=health))
    before = monotonic()
    controller.tick()
    assert monotonic() - before < 0.25, "a tick takes what has come"
    controller.until(lambda: controller.health()[refuses] == "down", "the refusal")
    answered = 0
    while answered < 3:
        sock = well.accept()
        sock.sendall(b"x")
        answered += 1
    controller.until(lambda: controller.health()[well.address] == "up", "the one that answers")
    controller.until(lambda: controller.health()[silent.address] == "down", "the silent one")
    why = controller.servers.backends["db"].servers[silent.address].why
    assert why == "reply timeout"
    assert dict(controller.tick())[silent.address] == 0


def test_the_protocol_of_a_ping_is_that_of_the_listeners(rig: Rig, start: Start) -> None:
    upstream = rig.upstream()
    start(config_of(upstream.address, health=Health(type="ping", inter_s=0.1)))
    assert upstream.accept().recv(5) == b"PING\n"


@pytest.mark.parametrize("limit", [None, 7])
def test_the_exporter_is_told_of_a_backends_limit(
    rig: Rig, start: Start, limit: int | None
) -> None:
    settings = {} if limit is None else {"max_connections": limit}
    controller = start(config_of(rig.upstream().address, **settings))
    (state,) = server_states(controller.servers)
    assert state.max_connections == (limit or 0)


def test_maintenance_ends_the_checks(rig: Rig, start: Start) -> None:
    upstream = rig.upstream()
    controller = start(config_of(upstream.address, health=QUICK))
    controller.until(lambda: controller.health()[upstream.address] == "up", "a check")
    assert controller.servers.set(SetServer(f"db/{upstream.address}", admin="maint")) == ""
    assert controller.health()[upstream.address] == "unchecked"
    upstream.sock.setblocking(False)

    def silence() -> bool:
        try:
            while True:
                upstream.sock.accept()[0].close()
        except BlockingIOError:
            return not select.select([upstream.sock], [], [], 0.3)[0]

    wait_until(silence, "no checks any more")
    controller.servers.set(SetServer(f"db/{upstream.address}", admin="ready"))
    controller.until(lambda: controller.tick() == [(upstream.address, 100)], "it is back")


def test_what_operators_say_is_by_name_or_address_and_refused_with_what_is_known(
    start: Start,
) -> None:
    controller = start(config_of(FIRST, Server(address=SECOND, name="two")))
    servers = controller.servers
    assert servers.set(SetServer("db/two", weight=7)) == ""
    assert servers.set(SetServer(f"db/{FIRST}", admin="drain"), 5.0) == ""
    assert [(w.weight, w.cut_at) for w in servers.wishes["db"]] == [(0, 5.0), (700, 0.0)]
    assert servers.set(SetServer("db/two", weight=-1)) == ""
    assert servers.wishes["db"][1].weight == 100
    why = f'no server "db/three"; known servers: db/{FIRST}, db/two'
    assert servers.set(SetServer("db/three", admin="ready")) == why
    assert servers.set(SetServer("db/two", weight=65_536)) == "weight: 65536: allowed is 0 to 65535"


def test_an_override_is_a_new_epoch_and_the_same_again_is_none(start: Start) -> None:
    controller = start(config_of(FIRST, SECOND))
    controller.tick()
    before = controller.epoch
    controller.servers.set(SetServer(f"db/{FIRST}", admin="drain"))
    assert controller.epoch == before + 1
    controller.servers.set(SetServer(f"db/{FIRST}", admin="drain"))
    controller.tick()
    assert controller.epoch == before + 1


def test_a_successor_knows_overrides_and_who_was_down(rig: Rig, start: Start) -> None:
    refuses, other = rig.refused_address(), rig.refused_address()
    config = config_of(refuses, Server(address=other, name="two"), FIRST, health=QUICK)
    first = start(config)
    first.servers.set(SetServer("db/two", admin="maint", weight=3))
    first.until(lambda: first.health()[refuses] == "down", "a check")
    first.tick()
    first.servers.close()
    slow = config_of(refuses, Server(address=other, name="two"), FIRST, health=Health(inter_s=3600))
    second = start(slow)
    known = second.servers.backends["db"].servers
    assert [wish.weight for wish in second.servers.wishes["db"]][:2] == [0, 0]
    assert known[refuses].health == "down"
    assert (known[other].override.admin, known[other].weight) == ("maint", 3)


def test_the_file_goes_with_a_clean_stop_and_is_of_this_boot_only(
    start: Start, tmp_path: Path
) -> None:
    controller = start(config_of(FIRST))
    controller.servers.set(SetServer(f"db/{FIRST}", admin="drain"))
    file = tmp_path / "servers.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps(saved | {"boot": "another"}))
    assert start(config_of(FIRST)).servers.wishes["db"][0].weight == 100
    file.write_text("{")
    assert start(config_of(FIRST)).servers.wishes["db"][0].weight == 100
    controller.servers.forget()
    assert list(tmp_path.iterdir()) == []


def test_what_was_found_is_known_to_a_successor_whose_look_fails(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "servers.toml"
    config = config_of(discover=f"file:{file}")
    first = start(config)
    first.tick()
    assert first.servers.wishes == {}, "not known yet"
    file.write_text(f'servers = ["{FIRST}", "{SECOND}"]')
    first.until(lambda: len(first.tick()) == 2, "the file is read")
    first.servers.close()
    file.unlink()
    second = start(config)
    assert second.tick() == [(FIRST, 100), (SECOND, 100)]
    second.until(lambda: second.servers.backends["db"].discovery != "", "a look fails")
    assert second.tick() == [(FIRST, 100), (SECOND, 100)]


def test_until_discovery_answers_the_servers_of_the_configuration_serve(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "servers.toml"
    controller = start(config_of(FIRST, discover=f"file:{file}"))
    assert controller.tick() == [(FIRST, 100)]
    file.write_text(f'servers = ["{SECOND}"]')
    controller.until(lambda: controller.tick() == [(SECOND, 100)], "the file is read")


def test_limits_are_backends_and_servers(start: Start) -> None:
    config = config_of(FIRST, Server(address=SECOND, max_connections=3), max_connections=9)
    assert start(config).servers.limits == {"db": 9, f"db/{SECOND}": 3}


def test_a_reload_keeps_what_stays_and_forgets_what_goes(start: Start) -> None:
    controller = start(config_of(FIRST, SECOND))
    for address in (FIRST, SECOND):
        controller.servers.set(SetServer(f"db/{address}", weight=5))
    controller.servers.reconfigure(config_of(SECOND))
    assert controller.tick() == [(SECOND, 500)]
    controller.servers.reconfigure(config_of(FIRST, SECOND))
    assert dict(controller.tick()) == {FIRST: 100, SECOND: 500}


def failing(row: int) -> list[Figures]:
    server = ServerFigures("db", FIRST, failures={"server_reset": row}, failures_in_a_row=row)
    return [Figures(0, 1, "serving", [], [server], 2)]


def test_what_befalls_clients_ejects_a_server_and_time_brings_it_back(start: Start) -> None:
    rule = OutlierDetection(consecutive_failures=3, base_ejection_s=0.3, max_ejection_s=1)
    controller = start(config_of(FIRST, SECOND, outlier_detection=rule))
    controller.servers.observe(failing(2))
    assert dict(controller.tick())[FIRST] == 100
    controller.servers.observe(failing(3))
    assert dict(controller.tick())[FIRST] == 0
    assert controller.servers.wishes["db"][0].observed
    controller.until(lambda: dict(controller.tick())[FIRST] == 100, "its time is over")
    controller.servers.observe(failing(3))
    assert dict(controller.tick())[FIRST] == 100, "what it did before is forgiven"


def test_a_failure_of_clients_hurries_the_next_check(rig: Rig, start: Start) -> None:
    upstream = rig.upstream()
    health = Health(inter_s=3600, fast_inter_s=0.05, jitter_percent=0)
    controller = start(config_of(upstream.address, health=health))
    controller.until(lambda: controller.health()[upstream.address] == "up", "the first check")
    upstream.accept().close()
    server = ServerFigures("db", upstream.address, failures={"connect": 1}, failures_in_a_row=1)
    controller.servers.observe([Figures(0, 1, "serving", [], [server], 2)])
    upstream.accept()

"""Servers changed at run time: what operators say, where it is shown, and what it outlives."""

import json
import re
from collections.abc import Callable, Mapping, Sequence

import pytest

from aegis.messages import (
    Reload,
    SetServer,
)
from aegis.status_messages import (
    ServerStatus,
)
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect


def servers_of(aegis: Aegis) -> dict[str, ServerStatus]:
    return {server.address: server for server in aegis.status().backends[0].servers}


def second_echo(proxies: Proxies) -> Echo:
    return proxies.own.enter_context(Echo())


def named(proxies: Proxies, echo: Echo, **backend: object) -> tuple[Aegis, Echo]:
    """Start a proxy for two servers, `one` and `two`."""
    second = second_echo(proxies)
    servers = [
        {"address": echo.address, "name": "one"},
        {"address": second.address, "name": "two"},
    ]
    aegis = proxies.new()
    configure(aegis, servers, **backend)
    aegis.start()
    return aegis, second


def configure(
    aegis: Aegis, servers: Sequence[Mapping[str, object] | str], **backend: object
) -> None:
    aegis.configure(backends={"db": {"servers": servers, **backend}})


def visit(aegis: Aegis, times: int = 10) -> None:
    for _ in range(times):
        with connect(aegis.address) as client:
            assert works(client)


def got(echo: Echo, aegis: Aegis, times: int = 10) -> int:
    """Visit so many times; returns how often that server was met."""
    before = echo.accepted
    visit(aegis, times)
    return echo.accepted - before


def test_an_operator_takes_a_server_out_and_lets_it_come_back(proxies: Proxies, echo: Echo) -> None:
    aegis, second = named(proxies, echo)
    said = aegis.done("server", "maint", "db/two")
    assert said == "db/two is set to maint; it has 0 connection(s)\n"
    assert got(second, aegis) == 0
    assert aegis.done("server", "ready", f"db/{second.address}").endswith(" is set to ready\n")
    assert got(second, aegis) > 0
    with connect(aegis.address) as client:
        assert works(client)
        aegis.done("server", "drain", "db/one")
        aegis.done("server", "drain", "db/two")
        assert works(client), "a drain has no end"
        with connect(aegis.address) as other:
            assert other.recv(1) == b""


def test_a_weight_is_overridden_and_given_back(proxies: Proxies, echo: Echo) -> None:
    aegis, second = named(proxies, echo)
    assert aegis.done("server", "weight", "db/two", "0") == "db/two has weight 0\n"
    assert got(second, aegis) == 0
    aegis.done("server", "weight", "db/two", "3")
    assert 57 <= got(second, aegis, 80) <= 63, "three in four, in turn in each worker"
    assert aegis.done("server", "weight", "db/two", "default") == "db/two has weight 1\n"
    assert servers_of(aegis)[second.address].overridden == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["maint", "db/three"], 1, r'no server "db/three"; known servers: db/one, db/two'),
        (["weight", "db/two", "70000"], 2, '70000: allowed is 0 to 65535, or "default"'),
        (["weight", "db/two", "-2"], 2, '-2: allowed is 0 to 65535, or "default"'),
        (["weight", "db/two", "much"], 2, 'much: allowed is 0 to 65535, or "default"'),
        (["ready"], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_is_refused_with_why(
    arguments: list[str], code: int, why: str, proxies: Proxies, echo: Echo
) -> None:
    aegis, _ = named(proxies, echo)
    result = aegis.ctl("server", *arguments)
    assert result.returncode == code
    assert why in re.sub(r"\s*[│╭╰╮╯─]+\s*", " ", result.stderr)


def test_servers_and_status_show_states_and_overrides(proxies: Proxies, echo: Echo) -> None:
    aegis, second = named(proxies, echo)
    aegis.done("server", "weight", "db/one", "7")
    aegis.done("server", "maint", "db/two")
    one, two = aegis.done("servers").splitlines()[1:]
    assert re.search(rf"^db/one +{re.escape(echo.address)} +unchecked +- +7 ", one)
    assert one.rstrip().endswith("weight overridden")
    assert re.search(rf"^db/two +{re.escape(second.address)} +maint +", two)
    assert two.rstrip().endswith("admin overridden")
    told = json.loads(aegis.done("servers", "--json"))["backends"]
    assert told == json.loads(aegis.done("status", "--json"))["backends"]
    first, other = told[0]["servers"]
    assert (first["name"], first["weight"], first["overridden"]) == ("one", 7, ["weight"])
    assert (other["admin"], other["effective_weight"], other["drained"]) == ("maint", 0.0, True)
    assert "weight overridden" in aegis.done("status")


def reload(aegis: Aegis) -> None:
    before = aegis.pids()
    aegis.done("reload", "--force")
    assert set(before).isdisjoint(aegis.pids())


def lose_a_worker(aegis: Aegis) -> None:
    (first, second) = aegis.pids()
    aegis.kill(first)
    wait_until(lambda: first not in aegis.pids(), "a successor")
    assert second in aegis.pids()


def upgrade(aegis: Aegis) -> None:
    aegis.done("upgrade")


def lose_the_controller(aegis: Aegis) -> None:
    aegis.kill(aegis.controller)
    aegis.start()


@pytest.mark.parametrize("change", [reload, lose_a_worker, upgrade, lose_the_controller])
def test_what_an_operator_has_said_outlives_a_change(
    change: Callable[[Aegis], None], proxies: Proxies, echo: Echo
) -> None:
    aegis, second = named(proxies, echo)
    aegis.done("server", "maint", "db/two")
    aegis.done("server", "weight", "db/one", "7")
    change(aegis)
    assert got(second, aegis) == 0, "the successors knew it at once"
    known = servers_of(aegis)
    assert known[second.address].admin == "maint"
    assert known[echo.address].weight == 7


def test_a_clean_stop_forgets_and_leaves_no_file(proxies: Proxies, echo: Echo) -> None:
    aegis, second = named(proxies, echo)
    aegis.done("server", "maint", "db/two")
    assert "servers.json" in aegis.left_files()
    aegis.done("stop")
    assert aegis.left_files() == []
    aegis.start()
    assert servers_of(aegis)[second.address].admin == "ready"
    aegis.done("server", "maint", "db/two")
    aegis.kill(aegis.controller)
    aegis.done("stop")
    assert aegis.left_files() == []


def test_a_reload_of_servers_replaces_no_worker_and_drops_no_session(
    proxies: Proxies, echo: Echo
) -> None:
    second = second_echo(proxies)
    aegis = proxies.started(echo.address)
    before = aegis.pids()
    staying = [proxies.own.enter_context(connect(aegis.address)) for _ in range(6)]
    assert all(works(client) for client in staying)
    lists: list[Sequence[Mapping[str, object] | str]] = [
        [second.address],
        [echo.address, {"address": second.address, "weight": 2, "max_connections": 50}],
        [{"address": second.address, "backup": True}, echo.address],
        [second.address],
    ]
    with Load(aegis.address) as load:
        for servers in lists:
            configure(aegis, servers, slow_start_s=1)
            aegis.done("reload")
            assert set(servers_of(aegis)) <= {echo.address, second.address}
        before_that = echo.accepted
        assert got(second, aegis) >= 10
        assert echo.accepted == before_that
        assert set(servers_of(aegis)) == {second.address}
    assert aegis.pids() == before
    assert load.broken == []
    assert [attempt for attempt in load.attempts if attempt.refused] == []
    assert all(works(client) for client in staying)


def test_a_servers_limit_holds_over_all_workers_and_others_take_the_rest(
    proxies: Proxies, echo: Echo
) -> None:
    second = second_echo(proxies)
    aegis = proxies.new()
    configure(aegis, [{"address": echo.address, "max_connections": 3}, second.address])
    aegis.start()
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(40)]
    assert all(works(client) for client in clients)

    def all_counted() -> dict[str, ServerStatus]:
        known = servers_of(aegis)
        return known if sum(each.connections for each in known.values()) == 40 else {}

    known = wait_until(all_counted, "every session is reported")
    assert known[echo.address].connections == echo.accepted <= 3


def test_a_drain_and_its_end_are_the_same_as_ever(proxies: Proxies, echo: Echo) -> None:
    aegis, second = named(proxies, echo)
    assert aegis.done("drain", "--server", "db/two") == "db/two is drained\n"
    assert servers_of(aegis)[second.address].admin == "drain"
    aegis.ask(SetServer("db/one", admin="maint"))
    aegis.done("start")
    known = servers_of(aegis)
    assert (known[second.address].admin, known[echo.address].admin) == ("ready", "maint")
    aegis.ask(Reload())

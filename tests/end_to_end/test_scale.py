"""`aegis-ctl scale`: more and fewer workers while clients come and go."""

import signal

import pytest

from aegis.messages import Scale
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Proxies, connect


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_scaling_up_and_down_under_load_loses_no_connection(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind)
    first = aegis.pids()
    with Load(aegis.address, clients=8) as load:
        for count in (4, 1, 3, 2):
            assert f"{count} worker(s)" in aegis.done("scale", str(count))
            wait_until(lambda count=count: len(aegis.workers()) == count, "that many")  # type: ignore[misc]
            assert aegis.pids()[0] == first[0], "the others are left alone"
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []


def test_what_waits_at_a_slot_that_is_given_up_is_served(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    leaving = aegis.pids()[1]
    aegis.kill(leaving, signal.SIGSTOP)
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(40)]
    aegis.ask(Scale(1))
    later = [proxies.own.enter_context(connect(aegis.address)) for _ in range(40)]
    assert all(works(client) for client in later), "nobody new is sent there"
    aegis.kill(leaving, signal.SIGCONT)
    assert all(works(client) for client in clients)
    for client in clients + later:
        client.close()
    wait_until(lambda: len(aegis.workers()) == 1, "it has left")


def test_a_reload_keeps_the_scale_until_the_file_says_otherwise(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    aegis.done("scale", "3")
    aegis.configure(echo.address, drain_timeout_s=9)
    aegis.done("reload")
    wait_until(lambda: len(aegis.pids()) == 3, "still three")
    aegis.configure(echo.address, workers=1)
    aegis.done("reload")
    wait_until(lambda: len(aegis.pids()) == 1, "one")


def test_a_slot_that_is_wanted_again_at_once_serves(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, workers=3)
    with Load(aegis.address, clients=6) as load:
        for count in (1, 3, 1, 2, 3):
            aegis.ask(Scale(count))
        wait_until(lambda: len(aegis.pids()) == 3, "three")
        wait_until(lambda: len(load.attempts) > 300, "the load goes on")
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []


@pytest.mark.parametrize("count", ["0", "many"])
def test_a_number_that_makes_no_sense_is_a_usage_error(
    proxies: Proxies, echo: Echo, count: str
) -> None:
    aegis = proxies.new(echo.address)
    assert aegis.ctl("scale", count).returncode == 2

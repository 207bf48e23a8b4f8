"""`aegis-ctl drain`: who may finish, who is refused, and the way back."""

import signal
from functools import partial
from time import monotonic

import pytest

from aegis.messages import Drain
from tests.end_to_end.echo import Echo, Load, ask, works
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import Aegis, Proxies, connect, refuses


def drained(aegis: Aegis) -> None:
    """Drain by request: much quicker than starting an aegis-ctl."""
    aegis.ask(Drain(0.0))
    wait_until(lambda: aegis.status().phase == "drained", "drained")


def test_a_session_in_flight_finishes_and_new_ones_are_refused(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    before = aegis.controller, aegis.pids()
    with connect(aegis.address) as client:
        assert works(client)
        draining = aegis.ctl_in_background("drain")
        assert draining.stderr is not None
        assert "draining: 1 session(s) left" in draining.stderr.readline()
        wait_until(lambda: refuses(aegis.address), "new sessions are refused")
        assert aegis.status().phase == "draining"
        assert works(client)
    said, _ = draining.communicate(timeout=DEADLINE_S)
    assert draining.returncode == 0
    assert "aegis is drained; 0 session(s) cut" in said
    assert aegis.status().phase == "drained"
    assert (aegis.controller, [w.pid for w in aegis.workers()]) == before
    assert refuses(aegis.address)


def test_the_deadline_cuts_what_is_left(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    with connect(aegis.address) as client:
        assert works(client)
        began = monotonic()
        said = aegis.done("drain", "--timeout", "1.5")
        assert monotonic() - began >= 1.5
        assert not works(client)
    assert "aegis is drained; 1 session(s) cut" in said


def test_no_timeout_at_all_cuts_at_once(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.done("drain", "--timeout", "0")
        assert not works(client)
    assert refuses(aegis.address)


def test_drain_twice_is_drained_and_a_later_one_may_shorten_it(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        first = aegis.ctl_in_background("drain")
        wait_until(lambda: aegis.status().phase == "draining", "draining")
        aegis.ask(Drain(None))
        assert works(client), "the same wish again keeps the deadline"
        aegis.done("drain", "--timeout", "0.5")
        assert first.wait(DEADLINE_S) == 0
    epoch = aegis.status().epoch
    assert "is drained" in aegis.done("drain")
    assert aegis.status().epoch == epoch, "nothing has changed"


def test_start_calls_a_drain_off(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=100)
    with connect(aegis.address) as client:
        assert works(client)
        draining = aegis.ctl_in_background("drain")
        wait_until(lambda: refuses(aegis.address), "new sessions are refused")
        aegis.done("start")
        assert works(client)
        with connect(aegis.address) as another:
            assert works(another)
        _, why = draining.communicate(timeout=DEADLINE_S)
    assert draining.returncode == 1
    assert why.splitlines()[-1] == "aegis-ctl: the drain was called off: aegis is serving"


def test_a_request_is_never_cut_before_the_deadline(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    with Load(aegis.address, clients=8, requests=20) as load:
        wait_until(lambda: len(load.attempts) > 100, "a load")
        for _ in range(2):
            began = monotonic()
            aegis.ask(Drain(None))
            wait_until(lambda: aegis.status().phase == "drained", "drained")
            wait_until(partial(load.refused_since, began), "clients are refused")
            resumed = monotonic()
            aegis.done("start")
            wait_until(partial(load.served_since, resumed), "clients are served")
    assert load.broken == []
    assert sum(worker.cut for worker in aegis.workers()) == 0


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_a_drained_proxy_stays_so_when_its_worker_is_replaced(
    proxies: Proxies, echo: Echo, kind: str
) -> None:
    aegis = proxies.started(echo.address, kind=kind, workers=1)
    drained(aegis)
    aegis.kill(aegis.workers()[0].pid or 0)
    wait_until(lambda: aegis.workers()[0].restarts and aegis.status().phase == "drained", "again")
    if kind == "unix":  # which can only refuse by accepting and closing
        with connect(aegis.address, timeout_s=5) as client:
            assert client.recv(1) == b""
    else:
        assert refuses(aegis.address)
    aegis.done("start")
    with connect(aegis.address) as client:
        wait_until(lambda: aegis.workers()[0].sessions, "it is accepted")
        assert works(client), "its end was read as soon as it was accepted"


def test_a_worker_killed_while_the_doors_close_leaves_them_closed(
    proxies: Proxies, echo: Echo
) -> None:
    """For a moment a drain drops new handshakes; nobody may be left waiting for them."""
    aegis = proxies.started(echo.address, workers=1)
    worker = aegis.workers()[0].pid or 0
    aegis.kill(worker, signal.SIGSTOP)
    aegis.ask(Drain(0.2))
    aegis.kill(worker, signal.SIGCONT)
    wait_until(lambda: aegis.workers()[0].phase == "draining", "draining")
    aegis.kill(worker)
    wait_until(lambda: aegis.status().phase == "drained", "drained by a successor")
    assert refuses(aegis.address)


def test_a_unix_listener_refuses_while_drained_and_serves_again(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, kind="unix")
    drained(aegis)
    for _ in range(10):
        with connect(aegis.address) as client:
            assert client.recv(1) == b""
    aegis.done("start")
    for _ in range(10):
        with connect(aegis.address) as client:
            assert works(client)


@pytest.mark.parametrize("command", ["drain", "start"])
def test_a_worker_that_does_not_react_is_named(proxies: Proxies, echo: Echo, command: str) -> None:
    aegis = proxies.started(echo.address)
    if command == "start":
        drained(aegis)
    hung = aegis.workers()[1].pid or 0
    aegis.kill(hung, signal.SIGSTOP)
    result = aegis.ctl(command)
    aegis.kill(hung, signal.SIGCONT)
    assert result.returncode == 1, f"it has not done it: {result.stdout}"
    why = result.stderr.splitlines()[-1]
    assert why.startswith(f"aegis-ctl: worker 1 (pid {hung}) has not applied epoch ")


def test_a_drain_waits_for_the_sessions_of_a_retired_worker_too(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address, workers=1, drain_timeout_s=60)
    with connect(aegis.address) as client:
        assert works(client)
        aegis.kill(aegis.pids()[0], signal.SIGTERM)
        wait_until(lambda: [w.retired for w in aegis.workers()] == [False, True], "a successor")
        wait_until(lambda: aegis.workers()[0].phase == "serving", "which serves")
        said = aegis.done("drain", "--timeout", "1")
        assert not works(client), f"a session goes on, yet {said}"


def test_what_was_cut_in_a_worker_that_has_left_is_told(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, workers=1, drain_timeout_s=60)
    retired = aegis.pids()
    with connect(aegis.address) as client:
        assert works(client)
        host, port = client.getsockname()
        aegis.done("reload", "--force")
        said = aegis.done("drain", "--timeout", "1")
        assert not works(client)
    assert f"cut: {host}:{port} -> " in said
    assert "aegis is drained; 1 session(s) cut" in said
    assert not {worker.pid for worker in aegis.workers()} & set(retired)
    aegis.done("start")
    wait_until(lambda: not aegis.status().departed_cut, "it was of that drain")


def test_a_proxy_that_is_not_running_cannot_be_drained(proxies: Proxies) -> None:
    aegis = proxies.new("127.0.0.1:9")
    result = aegis.ctl("drain")
    assert result.returncode == 1
    assert result.stderr == f"aegis-ctl: aegis is not running in {aegis.runtime_dir}\n"


def test_bytes_under_way_are_not_lost_by_a_drain(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address, drain_timeout_s=60)
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(20)]
    assert all(works(client) for client in clients)
    aegis.ask(Drain(None))
    for n, client in enumerate(clients):
        question = bytes([n]) * 8192
        assert ask(client, question) == question
        client.close()
    wait_until(lambda: aegis.status().phase == "drained", "drained")
    assert sum(worker.cut for worker in aegis.workers()) == 0

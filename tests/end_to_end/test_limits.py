"""Limits that are stated for the whole proxy hold for it exactly, however many workers it has."""

import json
import random
import socket
from typing import Any

import pytest

from aegis.proxy_protocol import Endpoints, build_v2
from aegis.session_messages import LimitStatus
from tests.end_to_end.echo import Echo, works
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import FULL, Aegis, Proxies, connect, sockaddr

ATTEMPTS = 10_000 if FULL else 400
# Where all places are taken a client is refused once the controller has said so, within a second.
pytestmark = pytest.mark.timeout(1_800 if FULL else 120)
WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])


def limited(
    proxies: Proxies,
    echo: Echo,
    workers: int,
    *,
    whole: Any = None,
    db: Any = None,
    **front: Any,
) -> Aegis:
    aegis = proxies.new()
    aegis.configure(
        workers=workers,
        listeners={"front": {"bind": aegis.address, **front}},
        backends={"db": {"servers": [echo.address], **(db or {})}},
        **(whole or {}),
    )
    aegis.start()
    return aegis


def bring(aegis: Aegis, count: int, source: str = "", first: bytes = b"") -> list[socket.socket]:
    """Connect so many clients, each of which says something; returns them."""
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.settimeout(DEADLINE_S)
        if source:
            client.bind((source, 0))
        client.connect(sockaddr(aegis.address))
        client.sendall(first + b"?")
        clients.append(client)
    return clients


def let_in(clients: list[socket.socket]) -> list[socket.socket]:
    """Wait until each has been answered or refused; returns who was answered."""
    inside = []
    for client in clients:
        try:
            heard = client.recv(1)
        except ConnectionResetError:
            heard = b""
        if heard:
            inside.append(client)
        else:
            client.close()
    return inside


def attempt(aegis: Aegis, count: int, **how: Any) -> list[socket.socket]:
    """Attempt so often, some at once, and keep whoever comes in."""
    inside: list[socket.socket] = []
    while count:
        some = min(count, random.randint(1, 100))
        inside += let_in(bring(aegis, some, **how))
        count -= some
    return inside


def limit(aegis: Aegis, key: str) -> LimitStatus:
    (found,) = [each for each in aegis.status().limits if each.key == key]
    return found


def limit_when(aegis: Aegis, key: str, used: int | None, refused: int) -> None:
    """Wait until the workers have reported so much."""

    def look() -> bool:
        found = limit(aegis, key)
        assert found.refused <= refused
        return (found.used, found.refused) == (used, refused)

    wait_until(look, f"{key}: {used} used, {refused} refused; it is {limit(aegis, key)}")


@WORKERS
@pytest.mark.parametrize("key", ["front.max_sessions", "max_sessions"])
def test_sessions_of_a_listener_and_of_all_are_as_many_as_stated(
    workers: int, key: str, proxies: Proxies, echo: Echo
) -> None:
    most = 50
    of_listener = key.startswith("front.")
    stated = {"max_sessions": most}
    front, whole = (stated, {}) if of_listener else ({}, stated)
    aegis = limited(proxies, echo, workers, whole=whole, **front)
    inside = attempt(aegis, ATTEMPTS)
    assert len(inside) == echo.accepted == most
    limit_when(aegis, key, most, ATTEMPTS - most)
    for client in inside[:20]:
        client.close()
    limit_when(aegis, key, most - 20, ATTEMPTS - most)
    again = attempt(aegis, 100)
    assert len(again) == 20
    assert echo.accepted == most + 20
    assert all(works(client) for client in inside[20:] + again)
    for client in inside + again:
        client.close()


@WORKERS
@pytest.mark.parametrize("of", ["backend", "server"])
def test_connections_are_as_many_as_stated_and_whoever_waits_in_vain_is_refused(
    workers: int, of: str, proxies: Proxies, echo: Echo
) -> None:
    most = 50
    db: dict[str, Any] = {"queue_timeout_s": 0.2, "max_connections": most}
    if of == "server":
        del db["max_connections"]
        db["servers"] = [{"address": echo.address, "max_connections": most}]
    aegis = limited(proxies, echo, workers, db=db)
    inside = attempt(aegis, ATTEMPTS)
    assert len(inside) == echo.accepted == most
    if of == "backend":
        limit_when(aegis, "db.max_connections", most, ATTEMPTS - most)
    wait_until(lambda: aegis.status().listeners[0].sessions == most, "the others have gone")
    assert all(works(client) for client in inside)
    for client in inside:
        client.close()


def test_a_client_gets_the_last_place_whichever_worker_it_comes_to(
    proxies: Proxies, echo: Echo
) -> None:
    """Four workers and four places: each has one at first, and none keeps it to itself."""
    aegis = limited(proxies, echo, 4, max_sessions=4)
    for _ in range(10):
        inside = let_in(bring(aegis, 4))
        assert len(inside) == 4
        for client in inside:
            client.close()
        wait_until(lambda: not limit(aegis, "front.max_sessions").used, "all have gone")
    limit_when(aegis, "front.max_sessions", 0, 0)


@WORKERS
def test_sessions_of_one_address_are_as_many_as_stated(
    workers: int, proxies: Proxies, echo: Echo
) -> None:
    aegis = limited(proxies, echo, workers, max_sessions_per_client=7)
    inside = []
    for host in range(1, 11):
        of_one = attempt(aegis, ATTEMPTS // 10, source=f"127.0.0.{host}")
        assert len(of_one) == 7
        inside += of_one
    assert echo.accepted == 70
    limit_when(aegis, "front.max_sessions_per_client", None, ATTEMPTS - 70)
    for client in inside:
        client.close()


@WORKERS
def test_sessions_of_an_address_in_a_header_are_as_many_as_stated(
    workers: int, proxies: Proxies, echo: Echo
) -> None:
    front = {"proxy_protocol": "required", "trusted": ["127.0.0.0/8"]}
    aegis = limited(proxies, echo, workers, max_sessions_per_client=3, **front)
    inside = []
    for host in range(1, 5):
        ends = Endpoints((f"192.0.2.{host}", 1), ("192.0.2.250", 2))
        inside += attempt(aegis, ATTEMPTS // 40, first=build_v2(ends))
    assert len(inside) == echo.accepted == 12
    for client in inside:
        client.close()


def test_of_a_unix_socket_one_worker_accepts_also_after_a_drain(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.new(kind="unix")
    front = {"proxy_protocol": "required", "trusted": ["unix:"], "max_sessions_per_client": 2}
    listeners = {"front": {"bind": aegis.address, **front}}
    aegis.configure(listeners=listeners, backends={"db": {"servers": [echo.address]}}, workers=3)
    aegis.start()
    header = build_v2(Endpoints(("192.0.2.1", 1), ("192.0.2.250", 2)))
    for _ in range(2):
        clients = [connect(aegis.address) for _ in range(30)]
        for client in clients:
            client.sendall(header + b"?")
        inside = let_in(clients)
        assert len(inside) == 2
        for client in inside:
            client.close()
        aegis.done("drain")
        assert aegis.status().listeners[0].sessions == 0
        aegis.done("start")


@WORKERS
def test_clients_of_one_address_begin_as_fast_as_stated(
    workers: int, proxies: Proxies, echo: Echo
) -> None:
    """The rate is so slow that only the burst counts here."""
    front = {"accept_rate_per_client": 0.0001, "accept_burst_per_client": 9}
    aegis = limited(proxies, echo, workers, **front)
    inside = attempt(aegis, ATTEMPTS)
    assert len(inside) == echo.accepted == 9
    limit_when(aegis, "front.accept_rate_per_client", None, ATTEMPTS - 9)
    for client in inside:
        client.close()


def test_a_smaller_limit_holds_after_a_reload_and_a_larger_one_at_once(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = limited(proxies, echo, 2, max_sessions=10)
    inside = attempt(aegis, 20)
    assert len(inside) == 10
    for most, more in ((4, 0), (15, 5)):
        listeners = {"front": {"bind": aegis.address, "max_sessions": most}}
        aegis.configure(listeners=listeners, backends={"db": {"servers": [echo.address]}})
        aegis.done("reload")
        inside += let_in(bring(aegis, 10))
        assert len(inside) == 10 + more
    assert all(works(client) for client in inside)
    for client in inside:
        client.close()


def test_limits_are_shown(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new()
    front = {
        "bind": aegis.address, "max_sessions": 3, "max_sessions_per_client": 2,
        "accept_rate_per_client": 0.5,
    }  # fmt: skip
    aegis.configure(
        max_sessions=1000,
        listeners={"front": front},
        backends={"db": {"servers": [echo.address], "max_connections": 5}},
    )
    aegis.start()
    (client,) = let_in(bring(aegis, 1))
    limit_when(aegis, "max_sessions", 1, 0)
    rows = [line.split() for line in aegis.done("limits").splitlines()]
    assert rows[0] == ["limit", "of", "used", "waiting", "refused"]
    assert rows[1] == ["max_sessions", "1,000", "1", "0", "0"]
    assert ["front.accept_rate_per_client", "0.5", "-", "0", "0"] in rows
    found = json.loads(aegis.done("limits", "--json"))["limits"]
    assert found[-1] == {
        "key": "db.max_connections", "limit": 5, "used": 1, "waiting": 0, "refused": 0,
    }  # fmt: skip
    client.close()


def test_no_limits_are_none(proxies: Proxies, echo: Echo) -> None:
    aegis = limited(proxies, echo, 1)
    assert aegis.done("limits") == "no limits are set\n"

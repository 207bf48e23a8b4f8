"""Sessions are listed over all workers, and one of them is ended without touching the others."""

import json
import socket
from typing import Any

import pytest

from tests.end_to_end.echo import Echo, works
from tests.end_to_end.test_limits import bring, let_in
from tests.harness import is_silent
from tests.proxy import Aegis, Proxies, reserve


def listed(aegis: Aegis, *options: str) -> list[dict[str, Any]]:
    found = json.loads(aegis.done("sessions", "--json", *options))
    assert not found["silent"]
    return list(found["rows"])


def name_of(client: socket.socket) -> str:
    host, port = client.getsockname()[:2]
    return f"{host}:{port}"


def of(aegis: Aegis, client: socket.socket) -> dict[str, Any]:
    (row,) = [row for row in listed(aegis) if row["client"] == name_of(client)]
    return row


def two_listeners(proxies: Proxies, echo: Echo, **log: Any) -> tuple[Aegis, Aegis]:
    """Return the proxy, and a view of it for whose second listener clients come."""
    aegis, other = proxies.new(), proxies.new()
    other.address = reserve(proxies.own, "tcp4", proxies.directory)
    listeners = {"front": {"bind": aegis.address}, "side": {"bind": other.address}}
    aegis.configure(echo.address, listeners=listeners, workers=2, log=log)
    aegis.start()
    return aegis, other


def test_every_session_is_listed_the_oldest_first(proxies: Proxies, echo: Echo) -> None:
    aegis, side = two_listeners(proxies, echo)
    clients = [*let_in(bring(aegis, 6)), *let_in(bring(side, 3))]
    rows = listed(aegis)
    assert {row["client"] for row in rows} == {name_of(client) for client in clients}
    ages = [row["age_s"] for row in rows]
    assert ages == sorted(ages, reverse=True)
    assert {row["server"] for row in rows} == {echo.address}
    assert {row["state"] for row in rows} == {"relaying"}
    assert len({row["id"] for row in rows}) == 9
    assert [row["listener"] for row in listed(aegis, "--listener", "side")] == ["side"] * 3
    assert [row["client"] for row in listed(aegis, "--limit", "2")] == [
        row["client"] for row in rows[:2]
    ]
    text = aegis.done("sessions", "--limit", "2")
    assert text.splitlines()[-1] == "2 of 9 session(s)"
    for client in clients:
        client.close()


def test_bytes_are_told_where_they_are_counted_for_each_session(
    proxies: Proxies, echo: Echo
) -> None:
    aegis, _ = two_listeners(proxies, echo, sessions=f"{proxies.directory}/s.log")
    (client,) = let_in(bring(aegis, 1))
    assert works(client)
    assert of(aegis, client)["bytes"] == [5, 5]
    client.close()


def test_a_session_is_killed_and_no_other(proxies: Proxies, echo: Echo) -> None:
    aegis, _ = two_listeners(proxies, echo)
    clients = let_in(bring(aegis, 5))
    row = of(aegis, clients[2])
    assert aegis.done("session", "kill", row["id"]) == f"session {row['id']} is killed\n"
    with pytest.raises(ConnectionResetError):
        clients[2].recv(1)
    clients.pop(2).close()
    assert all(works(client) for client in clients)
    assert row["id"] not in {each["id"] for each in listed(aegis)}
    for client in clients:
        client.close()


@pytest.mark.parametrize("name", ["nonsense", "1-2-3", "-"])
def test_a_session_that_is_not_there_cannot_be_killed(
    name: str, proxies: Proxies, echo: Echo
) -> None:
    aegis, _ = two_listeners(proxies, echo)
    (client,) = let_in(bring(aegis, 1))
    arguments = ["session", "kill", "--", name] if name == "-" else ["session", "kill", name]
    result = aegis.ctl(*arguments)
    assert result.returncode == 1
    assert result.stderr == (
        f"aegis-ctl: no session {name}: IDs have the form PID-FD-TIME, "
        "and `aegis-ctl sessions` lists them\n"
    )
    assert works(client)
    client.close()


def test_sessions_of_a_listener_that_is_none_are_refused(proxies: Proxies, echo: Echo) -> None:
    aegis, _ = two_listeners(proxies, echo)
    result = aegis.ctl("sessions", "--listener", "nope")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == 'aegis-ctl: no listener "nope"; known listeners: front, side\n'


def test_one_that_shares_pipes_is_killed_and_its_server_hears_nothing(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.new()
    front = {"bind": aegis.address, "protocol": "line", "pooling": "multiplex"}
    aegis.configure(echo.address, listeners={"front": front}, workers=1)
    aegis.start()
    clients = []
    for _ in range(2):
        client = socket.create_connection(("127.0.0.1", int(aegis.address.split(":")[1])), 20)
        client.sendall(b"GET k\n")
        assert client.recv(6) == b"GET k\n"
        clients.append(client)
    assert {row["state"] for row in listed(aegis)} == {"idle"}
    aegis.done("session", "kill", of(aegis, clients[0])["id"])
    assert clients[0].recv(1) == b""
    clients[1].sendall(b"GET k\n")
    assert clients[1].recv(6) == b"GET k\n"
    assert is_silent(clients[1], 0.1)
    assert echo.accepted == 1
    for client in clients:
        client.close()

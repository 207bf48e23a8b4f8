"""Passwords and users of a real Redis, through pipes that clients share."""

import socket
from collections.abc import Iterator

import pytest

from tests.end_to_end.databases import redis
from tests.faults.scripted import words
from tests.harness import Proxy, Rig
from tests.proxy import connect

USERS = (
    "CONFIG SET requirepass main",
    "AUTH main",
    "ACL SETUSER bob on >pw ~bob:* +@all",
    "ACL SETUSER eve on >pw ~eve:* +@all",
    "ACL SETUSER off off >pw ~* +@all",
    "SET bob:k theirs",
    "SET other mine",
)
"""What a server is told: a password for `default`, and users who see keys of their own only."""

SCRIPTS = (
    "GET other; PING; AUTH main; GET other",
    "AUTH wrong; GET other; AUTH main; GET other; AUTH wrong; GET other",
    "AUTH; AUTH a b c; AUTH main; GET other",
    "AUTH default main; GET other; AUTH bob pw; GET bob:k; GET other; ACL WHOAMI",
    "AUTH bob wrong; ACL WHOAMI; AUTH bob pw; AUTH eve wrong; ACL WHOAMI; GET bob:k",
    "AUTH nobody pw; AUTH off pw; GET bob:k; AUTH bob pw; GET bob:k",
    "HELLO 3; HELLO 3 AUTH bob wrong; HELLO 3 AUTH bob pw; ACL WHOAMI; GET bob:nothing",
    "HELLO 3 AUTH bob pw SETNAME me; CLIENT GETNAME; HELLO 3 AUTH eve no SETNAME you; "
    "CLIENT GETNAME; ACL WHOAMI; GET bob:nothing",
    "HELLO 2 AUTH default main; HELLO 3; GET nothing; HELLO 2; GET nothing",
    "SELECT 3; AUTH main; SELECT 3; GET other; SELECT 0; GET other; SELECT 99; GET other",
    "AUTH main; SELECT 3; SET k 3; AUTH bob pw; SET bob:k 3; SELECT 0; GET bob:k; GET other",
    "AUTH bob pw; MULTI; SET bob:k theirs; EXEC; ACL WHOAMI; GET other",
    "AUTH bob pw; WATCH bob:k; AUTH eve pw; ACL WHOAMI; GET bob:k",
    "AUTH bob pw; RESET; GET bob:k; AUTH eve wrong; ACL WHOAMI",
)


class Client:
    """A connection that reads whole replies."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream = sock.makefile("rb")

    def ask(self, *lines: str) -> list[bytes]:
        """Send requests in one write; returns the heads of their replies, or what strings say."""
        self.sock.sendall(b"".join(words(*line.split()) for line in lines))
        return [self.reply() for _ in lines]

    def reply(self) -> bytes:
        """Read one reply, what an array or map holds included."""
        head = self.stream.readline().removesuffix(b"\r\n")
        if head[:1] == b"$" and head != b"$-1":
            return self.stream.read(int(head[1:]) + 2).removesuffix(b"\r\n")
        if head[:1] in (b"*", b"%"):
            for _ in range(int(head[1:]) * (1 if head[:1] == b"*" else 2)):
                self.reply()
        return head

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


class Sides:
    """A Redis that wants a password, and Aegis in front of it."""

    def __init__(self, rig: Rig, address: str, pooling: str) -> None:
        self.rig = rig
        self.address = address
        self.owner = self.direct()
        assert not [reply for reply in self.owner.ask(*USERS) if reply != b"+OK"]
        self.proxy: Proxy = rig.proxy(address, listener={"protocol": "resp", "pooling": pooling})

    def direct(self) -> Client:
        return self._keep(connect(self.address))

    def through(self) -> Client:
        return self._keep(self.proxy.connect())

    def pins(self) -> int:
        return sum(sum(pool.pins.values()) for pool in self.proxy.figures().pools)

    def _keep(self, sock: socket.socket) -> Client:
        client: Client = self.rig.own(Client(sock))
        return client


@pytest.fixture(params=["multiplex", "session"])
def sides(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Sides]:
    with redis() as address:
        yield Sides(rig, address, request.param)


def test_every_order_of_logins_gets_what_it_gets_without_a_proxy(sides: Sides) -> None:
    for script in SCRIPTS:
        lines = [line.strip() for line in script.split(";")]
        direct, through = sides.direct(), sides.through()
        told = [direct.ask(line) for line in lines]
        assert [through.ask(line) for line in lines] == told, script
        assert sides.through().ask(*lines) == sides.direct().ask(*lines), script


def test_clients_see_the_keys_of_their_own_user_however_their_requests_mix(sides: Sides) -> None:
    bobs = [sides.through() for _ in range(3)]
    eves = [sides.through() for _ in range(3)]
    strangers = [sides.through() for _ in range(3)]
    for bob, eve in zip(bobs, eves, strict=True):
        assert bob.ask("AUTH bob pw") == eve.ask("AUTH eve pw") == [b"+OK"]
    for _ in range(20):
        for client in (*bobs, *eves, *strangers):
            client.sock.sendall(words("GET", "bob:k") * 5)
        for client in bobs:
            assert [client.reply() for _ in range(5)] == [b"theirs"] * 5
        for client in eves:
            assert all(client.reply().startswith(b"-NOPERM") for _ in range(5))
        for client in strangers:
            assert all(client.reply().startswith(b"-NOAUTH") for _ in range(5))
    assert sides.pins() == 0


@pytest.mark.parametrize(
    ("login", "change"),
    [
        ("AUTH main", "CONFIG SET requirepass changed"),
        ("AUTH bob pw", "ACL SETUSER bob resetpass >changed"),
        ("HELLO 3 AUTH bob pw", "ACL SETUSER bob resetpass >changed"),
    ],
)
def test_a_changed_password_shuts_out_whoever_comes_with_the_old_one(
    sides: Sides, login: str, change: str
) -> None:
    early, direct = sides.through(), sides.direct()
    for client in (early, direct):
        assert not client.ask(login)[0].startswith(b"-")
    assert sides.owner.ask(change) == [b"+OK"]
    late = sides.through()
    assert late.ask(login)[0].startswith(b"-WRONGPASS")
    assert late.ask("GET bob:k")[0].startswith(b"-NOAUTH")
    # Who was in before stays in, as in Redis itself (ACLAuthenticateUser sets it for good).
    assert early.ask("GET bob:k") == direct.ask("GET bob:k") == [b"theirs"]
    assert early.ask(login)[0].startswith(b"-WRONGPASS")
    assert early.ask("GET bob:k") == [b"theirs"]
    new = login.replace("pw", "changed").replace("main", "changed")
    assert not late.ask(new)[0].startswith(b"-")
    assert late.ask("GET bob:k") == [b"theirs"]


def test_a_user_that_is_deleted_is_gone_for_everybody(sides: Sides) -> None:
    early = sides.through()
    assert early.ask("AUTH bob pw") == [b"+OK"]
    assert sides.owner.ask("ACL DELUSER bob") == [b":1"]
    sides.proxy.figures_when(
        lambda f: sum(f.pools[0].losses.values()) > 0, "Redis has closed bob's connection"
    )
    late = sides.through()
    assert late.ask("AUTH bob pw")[0].startswith(b"-WRONGPASS")
    assert early.ask("GET bob:k")[0].startswith(b"-WRONGPASS")

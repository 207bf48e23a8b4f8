"""Servers from a real name server and from a file: what is found, and what failures change."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.config_backend import Dns, Server
from aegis.limits import DNS_REFRESH_MIN_S, FILE_LOOK_S, MAX_SERVERS
from control.discovery.finder import Finder
from control.discovery.finding import Find, Found
from ops.bench.name_server import NameServer
from tests.end_to_end.dnsmasq import dnsmasq


@pytest.fixture
def names() -> Iterator[NameServer]:
    with dnsmasq() as server:
        yield server


class Looker:
    """A finder without its task: each `look` is one."""

    def __init__(
        self, discover: str, names: NameServer | None = None, timeout_s: float = 5.0
    ) -> None:
        resolvers = (names.address,) if names is not None else ()
        self.told: list[Found] = []
        find = Find("db", discover, Dns(resolvers=resolvers, timeout_s=timeout_s))
        self._finder = Finder(find, self.told.append)

    def look(self) -> float:
        return asyncio.run(self._finder.look())

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.told[-1].servers]


def test_every_address_of_a_name_is_a_server_whatever_the_order(names: NameServer) -> None:
    names.set("host-record=db.test,127.0.0.2,::1", "host-record=db.test,127.0.0.1")
    looker = Looker("dns:db.test:6379", names)
    for _ in range(5):  # dnsmasq turns them around
        looker.look()
    assert looker.addresses == ["127.0.0.1:6379", "127.0.0.2:6379", "[::1]:6379"]
    assert len(looker.told) == 1, "nothing has changed"
    assert looker.told[0].failure == ""


def test_an_answer_is_good_for_its_ttl(names: NameServer) -> None:
    names.ttl_s = 7
    names.hosts("db.test", "127.0.0.1")
    assert Looker("dns:db.test:1", names).look() == 7.0
    names.ttl_s = 0
    names.hosts("db.test", "127.0.0.1")
    assert Looker("dns:db.test:1", names).look() == DNS_REFRESH_MIN_S


def test_a_name_that_is_another_names_is_followed(names: NameServer) -> None:
    names.set("cname=db.test,real.test", "host-record=real.test,127.0.0.9")
    looker = Looker("dns:db.test:1", names)
    looker.look()
    assert looker.addresses == ["127.0.0.9:1"]


def test_what_was_found_stays_when_the_name_server_fails_and_is_asked_again_soon(
    names: NameServer,
) -> None:
    names.ttl_s = 60
    names.hosts("db.test", "127.0.0.1", "127.0.0.2")
    looker = Looker("dns:db.test:1", names, timeout_s=0.4)
    assert looker.look() == 60
    names.signal(signal.SIGSTOP)
    assert [looker.look() for _ in range(3)] == [1.0, 2.0, 4.0]
    assert looker.addresses == ["127.0.0.1:1", "127.0.0.2:1"]
    assert looker.told[-1].failure == "db.test A: no name server answers"
    assert len(looker.told) == 2, "a failure is told once"
    names.hosts("db.test")
    looker.look()
    assert looker.told[-1].failure == "db.test A: no such name"
    assert looker.addresses == ["127.0.0.1:1", "127.0.0.2:1"]
    names.hosts("db.test", "127.0.0.3")
    assert looker.look() == 60
    assert (looker.addresses, looker.told[-1].failure) == (["127.0.0.3:1"], "")


def test_a_name_without_an_address_leaves_the_servers_as_they_are(names: NameServer) -> None:
    names.hosts("db.test", "127.0.0.1")
    looker = Looker("dns:db.test:1", names)
    looker.look()
    names.set("txt-record=db.test,here")
    looker.look()
    assert looker.addresses == ["127.0.0.1:1"]
    assert looker.told[-1].failure == "db.test has no addresses"


def test_what_was_never_known_is_nothing_and_a_failure(names: NameServer) -> None:
    looker = Looker("dns:db.test:1", names)
    assert looker.look() == 1.0
    assert looker.told == [Found(looker.told[0].find, (), "db.test A: no such name")]


def test_addresses_that_nobody_can_connect_to_are_left_out(names: NameServer) -> None:
    names.hosts("db.test", "0.0.0.0", "127.0.0.1", "224.0.0.1")
    looker = Looker("dns:db.test:1", names)
    looker.look()
    assert looker.addresses == ["127.0.0.1:1"]


def test_a_long_answer_comes_by_tcp(names: NameServer) -> None:
    addresses = [f"127.0.{i // 200}.{i % 200 + 1}" for i in range(400)]
    names.hosts("db.test", *addresses)
    looker = Looker("dns:db.test:1", names)
    looker.look()
    assert len(looker.addresses) == 400 <= MAX_SERVERS


def test_srv_records_tell_ports_weights_and_backups(names: NameServer) -> None:
    names.set(
        "srv-host=_db._tcp.test,a.test,7001,10,60",
        "srv-host=_db._tcp.test,b.test,7002,10,0",
        "srv-host=_db._tcp.test,c.test,7003,20,5",
        "host-record=a.test,127.0.0.1",
        "host-record=b.test,127.0.0.2,::1",
        "host-record=c.test,127.0.0.3",
    )
    looker = Looker("srv:_db._tcp.test", names)
    looker.look()

    def server(address: str, weight: int, *, backup: bool = False) -> Server:
        return Server(address=address, weight=weight, backup=backup)

    assert looker.told[-1].servers == (
        server("127.0.0.1:7001", 60),
        server("127.0.0.2:7002", 1),
        server("[::1]:7002", 1),
        server("127.0.0.3:7003", 5, backup=True),
    )


def test_a_target_that_is_gone_keeps_its_addresses_and_one_that_says_no_service_is_none(
    names: NameServer,
) -> None:
    first = ["srv-host=_db._tcp.test,a.test,1,0,1", "host-record=a.test,127.0.0.1"]
    second = "srv-host=_db._tcp.test,b.test,2,0,1"
    names.set(*first, second, "host-record=b.test,127.0.0.2")
    looker = Looker("srv:_db._tcp.test", names)
    looker.look()
    names.set(*first, second)
    looker.look()
    assert looker.addresses == ["127.0.0.1:1", "127.0.0.2:2"]
    assert looker.told[-1].failure == "b.test. A: no such name"
    names.set(*first)
    looker.look()
    assert (looker.addresses, looker.told[-1].failure) == (["127.0.0.1:1"], "")
    names.set("txt-record=_db._tcp.test,nothing")
    looker.look()
    assert looker.addresses == ["127.0.0.1:1"]
    assert "no SRV records" in looker.told[-1].failure


# --- a file ----------------------------------------------------------------------------------


def test_a_file_says_what_a_configuration_would(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        'servers = ["localhost:1", { address = "[::1]:2", name = "b", weight = 3, backup = true }]'
    )
    looker = Looker(f"file:{file}")
    assert looker.look() == FILE_LOOK_S
    assert looker.told[-1].servers == (
        Server(address="127.0.0.1:1"),
        Server(address="[::1]:2", name="b", weight=3, backup=True),
    )


GOOD = 'servers = [\n  "127.0.0.1:1",\n  "127.0.0.1:2",\n]\n'


@pytest.mark.parametrize("size", range(len(GOOD) - 1))
def test_half_a_file_changes_nothing(size: int, tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(GOOD)
    looker = Looker(f"file:{file}")
    looker.look()
    file.write_text(GOOD[:size])
    looker.look()
    assert looker.addresses == ["127.0.0.1:1", "127.0.0.1:2"]
    assert size == len(GOOD) - 1 or looker.told[-1].failure.startswith(str(file))
    file.write_text(GOOD.replace(":2", ":3"))
    looker.look()
    assert (looker.addresses, looker.told[-1].failure) == (["127.0.0.1:1", "127.0.0.1:3"], "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("servers = []", "servers = []: an array of one or more of"),
        ('servers = ["a:1"]', 'servers[0] = "a:1": a host name is not allowed'),
        ('server = ["127.0.0.1:1"]', 'server: unknown key; did you mean "servers"?'),
        ('servers = ["127.0.0.1:1", "localhost:1"]', "each server once; see servers[0]"),
        ("\xff", "not TOML"),
    ],
)
def test_a_file_with_an_error_is_told_with_its_place_and_changes_nothing(
    text: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(GOOD)
    looker = Looker(f"file:{file}")
    looker.look()
    file.write_text(text)
    looker.look()
    looker.look()
    assert why in looker.told[-1].failure
    assert len(looker.told) == 2
    assert looker.addresses == ["127.0.0.1:1", "127.0.0.1:2"]


def test_a_file_that_is_gone_or_unreadable_changes_nothing_and_one_that_is_replaced_does(
    tmp_path: Path,
) -> None:
    file = tmp_path / "servers.toml"
    looker = Looker(f"file:{file}")
    looker.look()
    assert looker.told[-1] == Found(looker.told[-1].find, (), f"{file}: No such file or directory")
    file.write_text(GOOD)
    looker.look()
    file.unlink()
    looker.look()
    assert len(looker.addresses) == 2
    file.mkdir()
    looker.look()
    assert looker.told[-1].failure == f"{file}: Is a directory"
    file.rmdir()
    file.write_bytes(b"\xff\xfe")
    looker.look()
    assert "not UTF-8" in looker.told[-1].failure
    other = tmp_path / "new"
    other.write_text('servers = ["127.0.0.1:9"]')
    other.replace(file)
    looker.look()
    assert (looker.addresses, looker.told[-1].failure) == (["127.0.0.1:9"], "")

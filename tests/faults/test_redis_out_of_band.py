"""What ends a wait of others on a real Redis gets past those who wait."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.databases import redis
from tests.faults.scripted import words
from tests.faults.test_redis_authentication import Client
from tests.harness import Proxy, Rig, wait_until
from tests.proxy import connect


@pytest.fixture
def address() -> Iterator[str]:
    with redis() as address:
        yield address


@pytest.fixture
def proxy(rig: Rig, address: str) -> Proxy:
    return rig.proxy(address, listener={"protocol": "resp", "pooling": "multiplex"})


def client_of(rig: Rig, proxy: Proxy) -> Client:
    client: Client = rig.own(Client(proxy.connect()))
    return client


def test_script_kill_gets_past_the_script(rig: Rig, proxy: Proxy, address: str) -> None:
    runner, killer = client_of(rig, proxy), client_of(rig, proxy)
    assert killer.ask("CONFIG SET lua-time-limit 5") == [b"+OK"]
    runner.sock.sendall(words("EVAL", "while true do end", "0"))
    direct: Client = rig.own(Client(connect(address)))
    wait_until(lambda: direct.ask("PING")[0].startswith(b"-BUSY"), "the script runs")
    assert killer.ask("SCRIPT KILL") == [b"+OK"]
    assert runner.reply().startswith(b"-")
    assert runner.ask("PING") == killer.ask("PING") == [b"+PONG"]


def test_client_unpause_gets_past_the_paused(rig: Rig, proxy: Proxy, address: str) -> None:
    writer, other = client_of(rig, proxy), client_of(rig, proxy)
    assert other.ask("CLIENT PAUSE 600000 WRITE") == [b"+OK"]
    writer.sock.sendall(words("SET", "k", "v"))
    direct: Client = rig.own(Client(connect(address)))
    wait_until(lambda: b"blocked_clients:1" in direct.ask("INFO clients")[0], "the SET waits")
    assert other.ask("CLIENT UNPAUSE") == [b"+OK"]
    assert writer.reply() == b"+OK"

"""Stock clients of Redis through `multiplex`: connecting and plain commands pin nobody."""

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
import redis.asyncio as redis_py_asyncio

from tests.end_to_end.databases import redis
from tests.harness import Proxy, Rig
from tests.proxy import connect, needs

PASSWORDS = "user bob on >pw ~* &* +@all"
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "RESP2": {"protocol": 2},
    "RESP3": {"protocol": 3},
    "named, database 3": {"client_name": "me", "db": 3},
    "a user": {"username": "bob", "password": "pw"},
    "a user, RESP3, named, database 3": {
        "protocol": 3, "username": "bob", "password": "pw", "client_name": "me", "db": 3,
    },
    "health checks": {"health_check_interval": 1},
}  # fmt: skip


@pytest.fixture
def proxy(rig: Rig) -> Iterator[Proxy]:
    with redis() as address:
        with connect(address) as sock:
            sock.sendall(f"ACL SETUSER {PASSWORDS.removeprefix('user ')}\r\n".encode())
            assert sock.recv(100) == b"+OK\r\n"
        yield rig.proxy(address, listener={"protocol": "resp", "pooling": "multiplex"})


def pins(proxy: Proxy) -> dict[str, int]:
    found: dict[str, int] = {}
    for pool in proxy.figures().pools:
        found |= pool.pins
    return found


def port(proxy: Proxy) -> int:
    assert proxy.sock is not None
    return int(proxy.sock.getsockname()[1])


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_redis_py_shares(proxy: Proxy, way: dict[str, Any]) -> None:
    for number in range(3):
        with redis_py.Redis(port=port(proxy), decode_responses=True, **way) as client:
            assert client.set(f"k{number}", number)
            assert client.get(f"k{number}") == str(number)
            with client.pipeline(transaction=False) as pipeline:
                assert pipeline.incr("n").get(f"k{number}").execute() == [number + 1, str(number)]
            assert client.client_getname() == way.get("client_name")
            assert client.acl_whoami() == way.get("username", "default")
    assert pins(proxy) == {}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_redis_py_on_asyncio_shares(proxy: Proxy, way: dict[str, Any]) -> None:
    async def talk(number: int) -> None:
        async with redis_py_asyncio.Redis(port=port(proxy), decode_responses=True, **way) as client:
            assert await client.set(f"k{number}", number)
            assert await client.get(f"k{number}") == str(number)

    async def all_talk() -> None:
        await asyncio.gather(*(talk(number) for number in range(10)))

    asyncio.run(all_talk())
    assert pins(proxy) == {}


def test_redis_py_goes_on_after_a_wrong_password(proxy: Proxy) -> None:
    with (
        redis_py.Redis(port=port(proxy), username="bob", password="no") as client,
        pytest.raises(redis_py.AuthenticationError),
    ):
        client.ping()
    with redis_py.Redis(port=port(proxy), single_connection_client=True) as client:
        with pytest.raises(redis_py.AuthenticationError):
            client.auth("no", username="bob")
        assert client.ping()
        assert client.auth("pw", username="bob")
    assert pins(proxy) == {}


def test_redis_cli_and_redis_benchmark_share(proxy: Proxy) -> None:
    needs("redis-cli", "redis-benchmark")
    front = ["-p", str(port(proxy))]
    user = ["--user", "bob", "--pass", "pw", "--no-auth-warning"]
    for options in ([], ["-3"], ["-n", "3"], user, [*user, "-3", "-n", "3"]):
        command = ["redis-cli", *front, *options, "set", "k", "v"]
        assert subprocess.check_output(command, timeout=60) == b"OK\n"
    load = ["-t", "set,get,lpush", "-n", "300", "-c", "10", "-P", "5", "-q"]
    subprocess.run(["redis-benchmark", *front, *load], check=True, capture_output=True, timeout=60)
    assert pins(proxy) == {}

"""What a configuration says of servers: tables, health, discovery, and every mistake in them."""

from pathlib import Path

import msgspec
import pytest

from aegis.addresses import SERVER_FORMS
from aegis.config import Config, config_digest, worker_digest
from aegis.config_backend import Server, parse_discover, servers_of
from aegis.config_file import load_config
from aegis.config_health import parse_status
from aegis.errors import ConfigError

LISTENER = '[[listener]]\nname = "l"\nbind = "127.0.0.1:2"\nbackend = "b"\n'
DISCOVER = '"" (nowhere), "dns:HOST:PORT", "srv:NAME" or "file:/absolute/path"'


def backend(more: str, servers: str = '["127.0.0.1:1"]', listener: str = "") -> str:
    return f'{LISTENER}{listener}\n[[backend]]\nname = "b"\nservers = {servers}\n{more}\n'


def health(more: str, servers: str = '["127.0.0.1:1"]', listener: str = "") -> str:
    return backend(f"[backend.health]\n{more}", servers, listener)


def load(directory: Path, content: str) -> Config:
    file = directory / "a.toml"
    file.write_text(content)
    return load_config(file)


def test_addresses_and_tables_may_be_mixed(tmp_path: Path) -> None:
    servers = """[
        "localhost:1",
        { address = "[::1]:2", name = "two", weight = 3, backup = true, max_connections = 4 },
    ]"""
    config = load(tmp_path, backend("", servers))
    assert servers_of(config.backends[0].servers) == (
        Server(address="127.0.0.1:1"),
        Server(address="[::1]:2", name="two", weight=3, backup=True, max_connections=4),
    )
    packed = msgspec.msgpack.encode(config)
    assert msgspec.msgpack.decode(packed, type=Config) == config


@pytest.mark.parametrize(
    "changed",
    [
        backend("", '["127.0.0.1:1", "127.0.0.1:3"]'),
        backend("", '[{ address = "127.0.0.1:1", weight = 2 }]'),
        backend("slow_start_s = 3"),
        backend('on_marked_down = "shutdown-sessions"'),
        backend("panic_threshold_percent = 50"),
        backend('discover = "dns:db.example:1"'),
        health("inter_s = 1"),
        backend("[backend.outlier_detection]"),
        'dns.resolvers = ["127.0.0.1:53"]\n' + backend(""),
    ],
)
def test_what_is_about_servers_replaces_no_worker(changed: str, tmp_path: Path) -> None:
    before, after = load(tmp_path, backend("")), load(tmp_path, changed)
    assert config_digest(before) != config_digest(after)
    assert worker_digest(before) == worker_digest(after)


def test_with_discovery_servers_may_be_left_out(tmp_path: Path) -> None:
    content = f'{LISTENER}[[backend]]\nname = "b"\ndiscover = "srv:_db._tcp.example"\n'
    assert load(tmp_path, content).backends[0].servers == ()


def test_what_discover_means() -> None:
    assert parse_discover("dns:db.example:6379") == ("dns", "db.example", 6379)
    assert parse_discover("srv:_redis._tcp.example.") == ("srv", "_redis._tcp.example.", 0)
    assert parse_discover("file:/etc/aegis/servers.toml") == ("file", "/etc/aegis/servers.toml", 0)


def test_what_status_means() -> None:
    assert parse_status("200-399") == ((200, 399),)
    assert parse_status("200, 204,300-399") == ((200, 200), (204, 204), (300, 399))


MISTAKES = [
    (
        backend("", '[{ name = "a" }]'),
        [f"backend[0].servers[0].address: missing; {SERVER_FORMS}"],
    ),
    (
        backend("", '[{ address = "127.0.0.1:1", wight = 2 }]'),
        [
            'backend[0].servers[0].wight: unknown key; did you mean "weight"? known keys: '
            "address, name, weight, backup, max_connections"
        ],
    ),
    (
        backend("", '[{ address = "*:1", weight = -1, backup = 1 }]'),
        [
            'backend[0].servers[0].address = "*:1": a server is one address; a wildcard is only '
            "for listening",
            "backend[0].servers[0].weight = -1: an integer from 0 to 65535",
            "backend[0].servers[0].backup = 1: true or false",
        ],
    ),
    (
        backend("", '["127.0.0.1:1", { address = "localhost:1" }]'),
        [
            'backend[0].servers[1].address = "localhost:1": each server once; '
            "see backend[0].servers[0]"
        ],
    ),
    (
        backend(
            "",
            '[{ address = "127.0.0.1:1", name = "a" }, { address = "127.0.0.1:3", name = "a" }]',
        ),
        [
            'backend[0].servers[1].name = "a": each server has its own name; '
            "see backend[0].servers[0].name"
        ],
    ),
    (
        backend("", '[{ address = "127.0.0.1:2" }]'),
        [
            'backend[0].servers[0].address = "127.0.0.1:2": a server other than the proxy itself; '
            'listener[0], which this backend serves, is bound to "127.0.0.1:2"'
        ],
    ),
    (
        backend('discover = "dns:db.example"'),
        [f'backend[0].discover = "dns:db.example": {DISCOVER}'],
    ),
    (backend('discover = "file:here"'), [f'backend[0].discover = "file:here": {DISCOVER}']),
    (
        'dns.resolvers = ["ns.example:53"]\n' + backend(""),
        ['dns.resolvers[0] = "ns.example:53": a host name is not allowed; write its IP address'],
    ),
    (
        backend('balance = "source"', listener='protocol = "line"\npooling = "multiplex"'),
        [
            'backend[0].balance = "source": listener[0] shares connections, so that none is one '
            "client's: `pooling` must be off"
        ],
    ),
    (
        backend('balance = "source"').replace("127.0.0.1:2", "unix:/run/x"),
        ['backend[0].balance = "source": clients of listener[0], a unix socket, have no address'],
    ),
    (backend("health = true"), ["backend[0].health = true: a table"]),
    (
        health('type = "ping"'),
        ['backend[0].health.protocol = "": must name one: the backend\'s listeners speak only raw'],
    ),
    (
        health('type = "ping"\nprotocol = "rsp"'),
        ['backend[0].health.protocol = "rsp": no protocol with a framer'],
    ),
    (
        health('send = "PING"\nstatus = "200"'),
        [
            'backend[0].health.send = "PING": only for `type` "send"',
            'backend[0].health.status = "200": only for `type` "http"',
        ],
    ),
    (
        health('type = "send"\nsend = "€"'),
        [
            'backend[0].health.send = "€": characters from U+0000 to U+00FF, each of which is '
            "one byte"
        ],
    ),
    (
        health('type = "http"\nstatus = "2xx"\nmethod = "G T"\npath = "x"\nhost = "a b"'),
        [
            'backend[0].health.method = "G T": an HTTP method, such as "GET"',
            'backend[0].health.path = "x": "*", or a path that begins with "/"',
            'backend[0].health.host = "a b": a host, and a port if need be, without spaces',
            'backend[0].health.status = "2xx": codes and ranges such as "200-399" or '
            '"200,204,300-399"',
        ],
    ),
    (
        health('type = "http"\nstatus = "399-200"'),
        [
            'backend[0].health.status = "399-200": codes and ranges such as "200-399" or '
            '"200,204,300-399", the lower code first'
        ],
    ),
    (
        health("port = 80", '["unix:/run/x"]'),
        ["backend[0].health.port = 80: backend[0].servers[0] is a unix socket, which has none"],
    ),
    (
        health("inter_s = 0\nrise = 0\njitter_percent = 51"),
        [
            "backend[0].health.inter_s = 0: a number above 0, at most 2592000",
            "backend[0].health.rise = 0: an integer from 1 to 1000",
            "backend[0].health.jitter_percent = 51: an integer from 0 to 50",
        ],
    ),
    (
        backend("[backend.outlier_detection]\nbase_ejection_s = 9\nmax_ejection_s = 5.5"),
        ["backend[0].outlier_detection.max_ejection_s = 5.5: at least base_ejection_s, which is 9"],
    ),
]


@pytest.mark.parametrize(("content", "problems"), MISTAKES)
def test_every_mistake_is_told(content: str, problems: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert [line.replace(f"{tmp_path}/a.toml: ", "") for line in caught.value.problems] == problems


def test_a_ping_takes_the_protocol_of_the_listeners(tmp_path: Path) -> None:
    content = health('type = "ping"', listener='protocol = "resp"')
    assert load(tmp_path, content).backends[0].health is not None

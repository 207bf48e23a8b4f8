"""Every way a configuration can be wrong, with the whole text its user reads."""

from pathlib import Path

import pytest

from aegis.addresses import ADDRESS_FORMS, SERVER_FORMS, TCP_FORMS
from aegis.config_file import load_config
from aegis.errors import ConfigError

NAME = "1 to 64 of the characters A-Z a-z 0-9 _ . -, the first a letter or a digit"
TIMEOUT = "a number from 0 to 2592000"
LISTENER_KEYS = (
    "name, bind, backend, protocol, pooling, backlog, access, proxy_protocol, trusted, sni, tls, "
    "max_sessions, max_sessions_per_client, accept_rate_per_client, accept_burst_per_client, "
    "refusal, max_frame_bytes, max_pipelined, upload_bytes_per_s, download_bytes_per_s, "
    "first_byte_timeout_s, idle_timeout_s, client_fin_timeout_s, keepalive_s"
)
ROOT_KEYS = (
    "workers, drain_timeout_s, lame_duck_s, close_spread_s, hard_stop_s, max_sessions, user, "
    "group, slab_bytes, slabs, kernel_pipes, metrics, log, bus, dns, listener, backend"
)
BACKEND_KEYS = (
    "name, servers, discover, balance, connect_timeout_s, connect_attempts, max_connections, "
    "queue_timeout_s, queue_max, reply_timeout_s, pool_min, max_idle_s, max_lifetime_s, "
    "server_fin_timeout_s, keepalive_s, slow_start_s, on_marked_down, panic_threshold_percent, "
    "send_proxy, tls, health, outlier_detection"
)
SERVER = f"{SERVER_FORMS}, or a table"
BACKEND = '[[backend]]\nname = "b"\nservers = ["127.0.0.1:1"]\n'
LISTENER = '[[listener]]\nname = "l"\nbind = "127.0.0.1:2"\nbackend = "b"\n'
VALID = LISTENER + BACKEND


def lines_of(directory: Path, content: str | bytes) -> list[str]:
    file = directory / "a.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.replace(f"{file}: ", "FILE: ") for line in caught.value.problems]


def top(value: str) -> str:
    return f"{value}\n{VALID}"


def listener(more: str) -> str:
    return f"{LISTENER}{more}\n{BACKEND}"


def backend(more: str) -> str:
    return f"{VALID}{more}\n"


def bind(value: str, metrics: str = "127.0.0.1:9") -> str:
    return (
        f'metrics.bind = "{metrics}"\n{VALID}'
        f'[[listener]]\nname = "m"\nbind = "{value}"\nbackend = "b"\n'
    )


def bus(more: str, log: str = "") -> str:
    return f'log.sessions = "{log}"\n[bus]\nkeys = "/etc/aegis/curve"\n{more}\n{VALID}'


def servers(value: str, listen: str = "127.0.0.1:2") -> str:
    return (
        f'[[listener]]\nname = "l"\nbind = "{listen}"\nbackend = "b"\n'
        f'[[backend]]\nname = "b"\nservers = {value}\n'
    )


NUMBERS = [
    (top("workers = 0"), 'workers = 0: an integer from 1 to 1024 or "auto"'),
    (top("workers = 1025"), 'workers = 1025: an integer from 1 to 1024 or "auto"'),
    (top("workers = 2.0"), 'workers = 2.0: an integer from 1 to 1024 or "auto"'),
    (top("workers = true"), 'workers = true: an integer from 1 to 1024 or "auto"'),
    (top('workers = "all"'), 'workers = "all": an integer from 1 to 1024 or "auto"'),
    (top("workers = []"), 'workers = []: an integer from 1 to 1024 or "auto"'),
    (
        top("workers = 0x" + "f" * 5000),
        'workers = an integer of 20000 bits: an integer from 1 to 1024 or "auto"',
    ),
    (top("drain_timeout_s = -1"), f"drain_timeout_s = -1: {TIMEOUT}"),
    (top("drain_timeout_s = nan"), f"drain_timeout_s = nan: {TIMEOUT}"),
    (top("drain_timeout_s = inf"), f"drain_timeout_s = inf: {TIMEOUT}"),
    (top("drain_timeout_s = 2592001"), f"drain_timeout_s = 2592001: {TIMEOUT}"),
    (top('drain_timeout_s = "1"'), f'drain_timeout_s = "1": {TIMEOUT}'),
    (top("drain_timeout_s = false"), f"drain_timeout_s = false: {TIMEOUT}"),
    (top("drain_timeout_s = 07:32:00"), f"drain_timeout_s = 07:32:00: {TIMEOUT}"),
    (top("slab_bytes = 63"), "slab_bytes = 63: an integer from 64 to 16777216"),
    (top("slab_bytes = 16777217"), "slab_bytes = 16777217: an integer from 64 to 16777216"),
    (top("slabs = 1"), "slabs = 1: an integer from 2 to 65536"),
    (top("slabs = 65537"), "slabs = 65537: an integer from 2 to 65536"),
    (
        top("slab_bytes = 65537\nslabs = 65536"),
        "slabs = 65536: times slab_bytes = 65537 makes 4295032832 bytes in each worker; "
        "at most 4294967296",
    ),
    (listener("backlog = 0"), "listener[0].backlog = 0: an integer from 1 to 65535"),
    (listener("backlog = 65536"), "listener[0].backlog = 65536: an integer from 1 to 65535"),
    (listener("idle_timeout_s = -0.1"), f"listener[0].idle_timeout_s = -0.1: {TIMEOUT}"),
    (listener("client_fin_timeout_s = -1"), f"listener[0].client_fin_timeout_s = -1: {TIMEOUT}"),
    (
        listener("keepalive_s = 32768"),
        "listener[0].keepalive_s = 32768: an integer from 0 to 32767",
    ),
    (listener("keepalive_s = 1.5"), "listener[0].keepalive_s = 1.5: an integer from 0 to 32767"),
    (
        backend("connect_timeout_s = 0"),
        "backend[0].connect_timeout_s = 0: a number above 0, at most 2592000",
    ),
    (backend("connect_attempts = 0"), "backend[0].connect_attempts = 0: an integer from 1 to 8"),
    (backend("connect_attempts = 9"), "backend[0].connect_attempts = 9: an integer from 1 to 8"),
    (backend("server_fin_timeout_s = -1"), f"backend[0].server_fin_timeout_s = -1: {TIMEOUT}"),
    (backend("keepalive_s = -1"), "backend[0].keepalive_s = -1: an integer from 0 to 32767"),
]

SHAPES = [
    (BACKEND, "listener: missing; one or more tables, each headed [[listener]]"),
    (LISTENER, "backend: missing; one or more tables, each headed [[backend]]"),
    (
        f"listener = []\n{BACKEND}",
        "listener = []: one or more tables, each headed [[listener]]",
    ),
    (
        VALID.replace("[[listener]]", "[listener]"),
        "listener = {…}: one or more tables, each headed [[listener]]",
    ),
    (f"listener = [5]\n{BACKEND}", "listener[0] = 5: a table"),
    (f"listener = [[]]\n{BACKEND}", "listener[0] = []: a table"),
    (top("metrics = 8082"), "metrics = 8082: a table"),
    (top("metrics = [{}]"), "metrics = [{}]: a table"),
    (top("metrics.bind = 8082"), f'metrics.bind = 8082: "" (no exporter), {TCP_FORMS}'),
    (VALID.replace('name = "l"', ""), f"listener[0].name: missing; {NAME}"),
    (VALID.replace('bind = "127.0.0.1:2"', ""), f"listener[0].bind: missing; {ADDRESS_FORMS}"),
    (VALID.replace('backend = "b"', ""), "listener[0].backend: missing; a string"),
    (VALID.replace('name = "b"', ""), f"backend[0].name: missing; {NAME}"),
    (
        VALID.replace('servers = ["127.0.0.1:1"]', ""),
        f"backend[0].servers: missing; an array of one or more of {SERVER}, "
        "unless there is `discover`",
    ),
    (servers("[]"), f"backend[0].servers = []: an array of one or more of {SERVER}"),
    (
        servers('"127.0.0.1:1"'),
        f'backend[0].servers = "127.0.0.1:1": an array of one or more of {SERVER}',
    ),
    (servers('["127.0.0.1:1", 7]'), f"backend[0].servers[1] = 7: {SERVER}"),
    (
        servers('["127.0.0.1:1", ["127.0.0.1:1", []]]'),
        f'backend[0].servers[1] = ["127.0.0.1:1", []]: {SERVER}',
    ),
    (
        listener("protocol = 1"),
        'listener[0].protocol = 1: "http1", "line", "memcached", "raw" or "resp", '
        "or an installed framer's name",
    ),
]

UNKNOWN_KEYS = [
    (
        listener('bnd = "x"'),
        f'listener[0].bnd: unknown key; did you mean "bind"? known keys: {LISTENER_KEYS}',
    ),
    (
        listener("BackLog = 1"),
        f'listener[0].BackLog: unknown key; did you mean "backlog"? known keys: {LISTENER_KEYS}',
    ),
    (
        listener('"a b\\n" = 1'),
        f'listener[0]."a b\\n": unknown key; known keys: {LISTENER_KEYS}',
    ),
    (top("zzz = 1"), f"zzz: unknown key; known keys: {ROOT_KEYS}"),
    (
        top("listeners = []"),
        f'listeners: unknown key; did you mean "listener"? known keys: {ROOT_KEYS}',
    ),
    (
        top('log.sessions = "sessions.log"'),
        'log.sessions = "sessions.log": "" (none), "-" (standard output of the exporter) '
        "or an absolute path of printable characters",
    ),
    (
        top('log.sessions = "/var/log/a\\nb"'),
        'log.sessions = "/var/log/a\\nb": "" (none), "-" (standard output of the exporter) '
        "or an absolute path of printable characters",
    ),
    (top('log.format = "xml"'), 'log.format = "xml": "json" or "text"'),
    (top("metrics.port = 1"), "metrics.port: unknown key; known keys: bind"),
    (
        backend("balanc = 1"),
        'backend[0].balanc: unknown key; did you mean "balance"? known keys: ' + BACKEND_KEYS,
    ),
]

NAMES = [
    (VALID.replace('"l"', '""'), f'listener[0].name = "": {NAME}'),
    (VALID.replace('"l"', '"-a"'), f'listener[0].name = "-a": {NAME}'),
    (VALID.replace('"l"', '"a\\n"'), f'listener[0].name = "a\\n": {NAME}'),
    (VALID.replace('"l"', '"é"'), f'listener[0].name = "é": {NAME}'),
    (
        VALID.replace('"l"', f'"{"a" * 65}"'),
        f'listener[0].name = "{"a" * 58}…: {NAME}',
    ),
    (
        VALID.replace('"l"', '"\\u202e\\u007f\\""'),
        f'listener[0].name = "\\u202e\\u007f\\"": {NAME}',
    ),
    (VALID.replace('"b"', '"a b"'), f'backend[0].name = "a b": {NAME}'),
    (
        VALID + LISTENER.replace(":2", ":3"),
        'listener[1].name = "l": each listener has its own name; see listener[0].name',
    ),
    (
        VALID + BACKEND,
        'backend[1].name = "b": each backend has its own name; see backend[0].name',
    ),
    (
        VALID.replace('backend = "b"', 'backend = "c"'),
        'listener[0].backend = "c": no such backend; known backends: "b"',
    ),
    (
        VALID.replace('"b"', '"chronos"').replace('backend = "chronos"', 'backend = "Chrono"')
        + BACKEND,
        'listener[0].backend = "Chrono": no such backend; did you mean "chronos"? '
        'known backends: "chronos" and "b"',
    ),
]

WORDS = [
    (
        backend('balance = "rand"'),
        'backend[0].balance = "rand": "first", "least_conn", "leastconn", "random", '
        '"round_robin", "roundrobin" or "source"',
    ),
    (
        listener('protocol = "rw"'),
        'listener[0].protocol = "rw": known protocols: "raw", "line", '
        '"resp", "memcached" and "http1"',
    ),
    (
        listener('pooling = "multiplex"'),
        'listener[0].pooling = "multiplex": protocol "raw" supports "off" and "warm"',
    ),
    (
        listener('protocol = "raw"\npooling = "of"'),
        'listener[0].pooling = "of": protocol "raw" supports "off" and "warm"',
    ),
]

IPV6_SAMPLE = 'an IPv6 address stands in brackets, such as "[::1]:8081"'
LOOP = "a server other than the proxy itself; listener[0], which this backend serves, is bound to"
ADDRESSES = [
    (
        bind(":3"),
        'listener[1].bind = ":3": the address before the port is missing; '
        '"*:3" is every IPv4 address',
    ),
    (bind("*:0"), 'listener[1].bind = "*:0": the port must be a number from 1 to 65535'),
    (bind("::1:3"), f'listener[1].bind = "::1:3": {IPV6_SAMPLE}'),
    (
        bind("*:3", metrics="unix:/run/m"),
        'metrics.bind = "unix:/run/m": a TCP address is needed here, not a unix socket',
    ),
    (
        servers('["db.example:1"]'),
        'backend[0].servers[0] = "db.example:1": a host name is not allowed; write its IP address',
    ),
    (
        servers('["*:1"]'),
        'backend[0].servers[0] = "*:1": a server is one address; a wildcard is only for listening',
    ),
    (
        servers('["127.0.0.1:1", "127.0.0.2:1", "localhost:1"]'),
        'backend[0].servers[2] = "localhost:1": each server once; see backend[0].servers[0]',
    ),
    (
        bind("localhost:2"),
        'listener[1].bind = "localhost:2": needs an address of its own; '
        'listener[0].bind is "127.0.0.1:2"',
    ),
    (
        bind("*:2"),
        'listener[1].bind = "*:2": needs an address of its own; listener[0].bind is "127.0.0.1:2"',
    ),
    (
        bind("*:9"),
        'listener[1].bind = "*:9": needs an address of its own; metrics.bind is "127.0.0.1:9"',
    ),
    (
        bind("unix:/run/l").replace("127.0.0.1:2", "unix:/run/l"),
        'listener[1].bind = "unix:/run/l": needs an address of its own; '
        'listener[0].bind is "unix:/run/l"',
    ),
    (
        VALID.replace("127.0.0.1:2", "127.0.0.1:8082"),
        'listener[0].bind = "127.0.0.1:8082": needs an address of its own; '
        'metrics.bind is "127.0.0.1:8082"',
    ),
    (
        servers('["10.0.0.1:2", "localhost:2"]'),
        f'backend[0].servers[1] = "localhost:2": {LOOP} "127.0.0.1:2"',
    ),
    (
        servers('["[::1]:2"]', listen="[::]:2"),
        f'backend[0].servers[0] = "[::1]:2": {LOOP} "[::]:2"',
    ),
    (
        servers('["unix:/run/x"]', listen="unix:/run/x"),
        f'backend[0].servers[0] = "unix:/run/x": {LOOP} "unix:/run/x"',
    ),
]

NO_KEYS = "TCP needs `keys` as well: `aegis-ctl keys DIR` makes some"
BUS = [
    (
        top('bus.requests = "tcp://10.0.0.1:7081"'),
        f'bus.requests = "tcp://10.0.0.1:7081": {NO_KEYS}',
    ),
    (
        top('bus.telemetry = "10.0.0.1:7081"'),
        'bus.telemetry = "10.0.0.1:7081": "" (a socket in the runtime directory) or "tcp://" and '
        '"IPv4:port", "[IPv6]:port", "*:port" or "localhost:port"',
    ),
    (
        bus('telemetry = "tcp://*:7082"'),
        'bus.telemetry = "tcp://*:7082": a server is one address; a wildcard is only for listening',
    ),
    (
        bus('requests = "tcp://unix:/run/x"'),
        'bus.requests = "tcp://unix:/run/x": a TCP address is needed here, not a unix socket',
    ),
    (top('bus.keys = "curve"'), 'bus.keys = "curve": "" (none) or an absolute path'),
    (
        bus('requests = "tcp://*:2"'),
        'listener[0].bind = "127.0.0.1:2": needs an address of its own; '
        'bus.requests is "tcp://*:2"',
    ),
    (
        bus('telemetry = "tcp://10.0.0.2:9"\nsessions = "tcp://10.0.0.2:9"'),
        'bus.sessions = "tcp://10.0.0.2:9": needs an address of its own; '
        'bus.telemetry is "tcp://10.0.0.2:9"',
    ),
    (
        bus('telemetry = "tcp://10.0.0.2:9"', log="/var/log/sessions"),
        'bus.sessions = "": needs to be TCP where bus.telemetry is: the exporter writes the '
        "session log",
    ),
    (
        top('log.sessions = "-"\nmetrics.bind = ""'),
        'log.sessions = "-": needs metrics.bind: the exporter writes it',
    ),
]

NOT_TOML = [
    (b"a = 1\nb = \xff\n", "not UTF-8: byte 0xff at line 2, byte 5"),
    ("workers = \n", "not TOML: Invalid value (at line 1, column 11)"),
    ("workers = 1\nworkers = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 12)"),
    (
        "[metrics\n",
        "not TOML: Expected ']' at the end of a table declaration (at line 1, column 9)",
    ),
    (
        "workers",
        "not TOML: Expected '=' after a key in a key/value pair (at end of document)",
    ),
    ("workers = " + "[" * 100_000, "not a configuration: arrays or tables nested too deeply"),
]


@pytest.mark.parametrize(
    ("content", "problem"),
    [*NUMBERS, *SHAPES, *UNKNOWN_KEYS, *NAMES, *WORDS, *ADDRESSES, *BUS, *NOT_TOML],
)
def test_one_mistake_gives_one_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    assert lines_of(tmp_path, content) == [f"FILE: {problem}"]


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    content = """
worker = 3
slabs = 0
[metrics]
bind = "example.org:80"
[[listener]]
name = "a"
bind = "127.0.0.1:80"
backend = "x"
protocol = "mysql"
pooling = "shared"
[[listener]]
name = "a"
bind = "*:80"
backend = "bb"
pooling = "session"
[[backend]]
name = "b"
servers = ["127.0.0.1:80", "nowhere", "127.0.0.1:80"]
connect_attempts = true
"""
    assert lines_of(tmp_path, content) == [
        f'FILE: worker: unknown key; did you mean "workers"? known keys: {ROOT_KEYS}',
        "FILE: slabs = 0: an integer from 2 to 65536",
        'FILE: metrics.bind = "example.org:80": a host name is not allowed; write its IP address',
        'FILE: backend[0].servers[1] = "nowhere": the port is missing; '
        'an address with one is "127.0.0.1:8081"',
        "FILE: backend[0].connect_attempts = true: an integer from 1 to 8",
        'FILE: listener[1].name = "a": each listener has its own name; see listener[0].name',
        'FILE: listener[0].backend = "x": no such backend; known backends: "b"',
        'FILE: listener[1].backend = "bb": no such backend; did you mean "b"? known backends: "b"',
        'FILE: listener[0].protocol = "mysql": known protocols: "raw", "line", '
        '"resp", "memcached" and "http1"',
        'FILE: listener[0].pooling = "shared": known poolings: "multiplex", "off", "session" '
        'and "warm"',
        'FILE: listener[1].pooling = "session": protocol "raw" supports "off" and "warm"',
        'FILE: listener[1].bind = "*:80": needs an address of its own; '
        'listener[0].bind is "127.0.0.1:80"',
        'FILE: backend[0].servers[2] = "127.0.0.1:80": each server once; see backend[0].servers[0]',
    ]


def test_a_wrong_name_of_a_backend_is_not_blamed_on_its_listener(tmp_path: Path) -> None:
    content = VALID.replace('"b"', '"a b"')
    assert lines_of(tmp_path, content) == [f'FILE: backend[0].name = "a b": {NAME}']


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.problems == [f"{file}: cannot be read: No such file or directory"]


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert caught.value.problems == [f"{tmp_path}: cannot be read: Is a directory"]


def test_an_integer_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, f"workers = {'9' * 5000}\n{VALID}")
    assert line.startswith("FILE: not TOML: Exceeds the limit (4300 digits)")

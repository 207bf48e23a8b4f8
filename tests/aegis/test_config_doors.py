"""What a configuration says of who may come, and every mistake in it."""

from pathlib import Path

import msgspec
import pytest

from aegis.access import NETWORK_FORMS, RULE_FORMS
from aegis.config import Config, worker_digest
from aegis.config_file import load_config
from aegis.config_listener import SniRoute
from aegis.config_tls import BackendTls, ListenerTls
from aegis.errors import ConfigError

PEM = "an absolute path"


def config(
    listener: str = "",
    backend: str = "",
    *,
    bind: str = "127.0.0.1:2",
    servers: str = '["127.0.0.1:1"]',
    more: str = "",
) -> str:
    return (
        f'[[listener]]\nname = "l"\nbind = "{bind}"\nbackend = "b"\n{listener}\n'
        f'[[backend]]\nname = "b"\nservers = {servers}\n{backend}\n'
        f'[[backend]]\nname = "c"\nservers = ["127.0.0.1:9"]\n{more}\n'
    )


SHARING = 'protocol = "line"\npooling = "multiplex"\n'
UNIX = "unix:/run/a.sock"
TRUSTED = 'proxy_protocol = "required"\ntrusted = ["10.0.0.0/8", "fd00::/8", "unix:"]\n'
TLS = '[listener.tls]\ncertificate = "/c.pem"\nkey = "/k.pem"\n'
SNI = 'sni = [{ name = "a.example", backend = "c" }, { name = "*.a.example", backend = "b" }]\n'


def load(directory: Path, content: str) -> Config:
    file = directory / "a.toml"
    file.write_text(content)
    return load_config(file)


def test_every_key_has_its_place(tmp_path: Path) -> None:
    access = 'access = ["allow 10.0.0.0/8", "deny all"]\n'
    limits = "max_sessions = 9\nmax_sessions_per_client = 2\naccept_rate_per_client = 0.5\n"
    loaded = load(tmp_path, config(TRUSTED + access + limits + TLS, "[backend.tls]\n"))
    listener, backend = loaded.listeners[0], loaded.backends[0]
    assert listener.trusted == ("10.0.0.0/8", "fd00::/8", "unix:")
    assert listener.access == ("allow 10.0.0.0/8", "deny all")
    assert listener.tls == ListenerTls(certificate="/c.pem", key="/k.pem")
    assert backend.tls == BackendTls(verify=True)
    packed = msgspec.msgpack.encode(loaded)
    assert msgspec.msgpack.decode(packed, type=Config) == loaded


def test_routes_by_name_are_tables(tmp_path: Path) -> None:
    routes = load(tmp_path, config(SNI)).listeners[0].sni
    assert routes == (
        SniRoute(name="a.example", backend="c"),
        SniRoute(name="*.a.example", backend="b"),
    )


@pytest.mark.parametrize(
    "listener",
    [
        TRUSTED,
        TRUSTED + "max_sessions_per_client = 1\n",
        'access = ["deny unix:"]\nmax_sessions = 1\nrefusal = "drop"\n',
    ],
)
def test_a_unix_listener_may_have_what_needs_no_address(tmp_path: Path, listener: str) -> None:
    load(tmp_path, config(listener, bind=UNIX))


def test_what_a_worker_goes_by_is_part_of_its_digest(tmp_path: Path) -> None:
    digests = [
        worker_digest(load(tmp_path, content))
        for content in (
            config(),
            config('access = ["deny all"]'),
            config(TLS),
            config("", "[backend.tls]"),
            config("", 'send_proxy = "v2"'),
            "max_sessions = 1\n" + config(),
        )
    ]
    assert len(set(digests)) == len(digests)


MISTAKES = [
    (
        config('access = ["permit all"]'),
        f'listener[0].access[0] = "permit all": {RULE_FORMS}',
    ),
    (
        config('access = ["allow all", "deny 10.0.0.1/8"]'),
        'listener[0].access[1] = "deny 10.0.0.1/8": the address has bits behind its prefix; the '
        'network is "10.0.0.0/8"',
    ),
    (config('access = "deny all"'), f'listener[0].access = "deny all": an array of {RULE_FORMS}'),
    (config('trusted = ["x"]'), f'listener[0].trusted[0] = "x": {NETWORK_FORMS}'),
    (
        config('proxy_protocol = "required"'),
        'listener[0].proxy_protocol = "required": needs `trusted`, the networks of the proxies '
        "whose header is believed",
    ),
    (
        config('trusted = ["10.0.0.0/8"]'),
        'listener[0].trusted = ["10.0.0.0/8"]: only with proxy_protocol = "required"',
    ),
    (
        config('proxy_protocol = "required"\ntrusted = ["10.0.0.0/8"]', bind=UNIX),
        'listener[0].trusted = ["10.0.0.0/8"]: "unix:" must be among them: the clients of a unix '
        "socket have no other address",
    ),
    (
        config('proxy_protocol = "auto"'),
        'listener[0].proxy_protocol = "auto": "off" or "required"',
    ),
    (
        config('sni = [{ name = "a.example", backend = "d" }]'),
        'listener[0].sni[0].backend = "d": no such backend; known backends: "b" and "c"',
    ),
    (
        config('sni = [{ name = "10.0.0.1", backend = "c" }]'),
        'listener[0].sni[0].name = "10.0.0.1": a host name in ASCII such as "db1.example.org", or '
        '"*." and one',
    ),
    (
        config('sni = [{ name = "a.b", backend = "c" }, { name = "A.b", backend = "b" }]'),
        'listener[0].sni[1].name = "A.b": each name once; see listener[0].sni[0]',
    ),
    (
        config('sni = ["a.b"]'),
        'listener[0].sni[0] = "a.b": a table',
    ),
    (
        config(SHARING + SNI),
        "listener[0].sni = [{…}, {…}]: TLS that is not ended cannot be shared: `pooling` must be "
        '"off" or "warm"',
    ),
    (
        config(SNI + TLS),
        "listener[0].sni = [{…}, {…}]: TLS is ended here: `sni` is for who does not end it",
    ),
    (
        config(SNI, bind=UNIX),
        "listener[0].sni = [{…}, {…}]: only for TCP: what a unix socket holds cannot be looked at "
        "and left there",
    ),
    (
        config('pooling = "warm"\n' + SNI, "pool_min = 1"),
        'backend[1].pool_min = 0: at least 1: listener[0] is "warm" and takes connections opened '
        "ahead",
    ),
    (
        config(SNI, bind="127.0.0.1:9"),
        'backend[1].servers[0] = "127.0.0.1:9": a server other than the proxy itself; listener[0], '
        'which this backend serves, is bound to "127.0.0.1:9"',
    ),
    (
        config("max_sessions_per_client = 3", bind=UNIX),
        "listener[0].max_sessions_per_client = 3: the clients of a unix socket have no address; 0 "
        "is allowed",
    ),
    (
        config("accept_rate_per_client = 3", bind=UNIX),
        "listener[0].accept_rate_per_client = 3.0: the clients of a unix socket have no address; 0 "
        "is allowed",
    ),
    (
        config("accept_burst_per_client = 3"),
        "listener[0].accept_burst_per_client = 3: needs `accept_rate_per_client`",
    ),
    (
        config(SHARING + "upload_bytes_per_s = 1"),
        'listener[0].upload_bytes_per_s = 1: only with `pooling` "off" or "warm": a pipe that is '
        "shared is slowed down for all",
    ),
    (
        config(SHARING + "download_bytes_per_s = 1"),
        'listener[0].download_bytes_per_s = 1: only with `pooling` "off" or "warm": a pipe that is '
        "shared is slowed down for all",
    ),
    (
        config("max_frame_bytes = 9"),
        'listener[0].max_frame_bytes = 9: only with `pooling` "session" or "multiplex": elsewhere '
        "no requests are told apart",
    ),
    (config("max_pipelined = 0"), "listener[0].max_pipelined = 0: an integer from 1 to 4096"),
    (config('refusal = "reset"'), 'listener[0].refusal = "reset": "close", "drop" or "error"'),
    (
        config(SHARING, 'send_proxy = "v1"'),
        'backend[0].send_proxy = "v1": the header says who the client is for as long as the '
        'connection lasts; listener[0].pooling = "multiplex" must be off',
    ),
    (
        config('pooling = "warm"', 'pool_min = 1\nsend_proxy = "v2"'),
        'backend[0].send_proxy = "v2": the header says who the client is for as long as the '
        'connection lasts; listener[0].pooling = "warm" must be off',
    ),
    (config('[listener.tls]\ncertificate = "/c"'), f"listener[0].tls.key: missing; {PEM}"),
    (
        config('[listener.tls]\ncertificate = "c"\nkey = "/k"'),
        f'listener[0].tls.certificate = "c": {PEM}',
    ),
    (
        config('[listener.tls]\ncertificate = "/c"\nkey = "/k"\nmin_version = "1.1"'),
        'listener[0].tls.min_version = "1.1": "1.2" or "1.3"',
    ),
    (config("tls = true"), "listener[0].tls = true: a table"),
    (
        config("", '[backend.tls]\ncertificate = "/c"'),
        'backend[0].tls.certificate = "/c": needs `key` as well',
    ),
    (
        config("", '[backend.tls]\nkey = "/k"'),
        'backend[0].tls.key = "/k": needs `certificate` as well',
    ),
    (
        config("", '[backend.tls]\nserver_name = "10.0.0.1"'),
        'backend[0].tls.server_name = "10.0.0.1": "" (its IP address) or a host name in ASCII such '
        'as "db1.example.org"',
    ),
    (
        config("", "[backend.tls]", servers='["127.0.0.1:1", "unix:/run/db.sock"]'),
        'backend[0].tls.server_name = "": needed to verify "unix:/run/db.sock", which has no IP '
        "address",
    ),
    ("max_sessions = -1\n" + config(), "max_sessions = -1: an integer from 0 to 10000000"),
]


@pytest.mark.parametrize(("content", "problem"), MISTAKES)
def test_one_mistake_gives_one_line(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert caught.value.problems == [f"{tmp_path / 'a.toml'}: {problem}"]


def test_a_unix_server_that_is_not_verified_needs_no_name(tmp_path: Path) -> None:
    servers = '["unix:/run/db.sock"]'
    load(tmp_path, config("", "[backend.tls]\nverify = false", servers=servers))
    load(tmp_path, config("", '[backend.tls]\nserver_name = "a.b"', servers=servers))


def test_source_balances_who_has_said_an_address_on_a_unix_socket(tmp_path: Path) -> None:
    load(tmp_path, config(TRUSTED, 'balance = "source"', bind=UNIX))

"""What a valid file becomes, and that any input gives a Config or a ConfigError, nothing else."""

import os
import string
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegis.config import Config, Metrics, config_digest, worker_digest
from aegis.config_backend import Backend
from aegis.config_file import config_from_tables, load_config
from aegis.config_listener import Listener
from aegis.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "listener": [{"name": "l", "bind": "127.0.0.1:2", "backend": "b"}],
    "backend": [{"name": "b", "servers": ["127.0.0.1:1"]}],
}


def with_workers(workers: int) -> Config:
    return config_from_tables({**MINIMAL, "workers": workers}, "a.toml")


def test_a_minimal_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        '[[listener]]\nname = "l"\nbind = "127.0.0.1:2"\nbackend = "b"\n'
        '[[backend]]\nname = "b"\nservers = ["127.0.0.1:1"]\n'
    )
    assert load_config(file) == Config(
        workers="auto",
        drain_timeout_s=30.0,
        slab_bytes=65536,
        slabs=256,
        metrics=Metrics(bind="127.0.0.1:8082"),
        listeners=(
            Listener(
                name="l",
                bind="127.0.0.1:2",
                backend="b",
                protocol="raw",
                pooling="off",
                backlog=4096,
                idle_timeout_s=3600.0,
                client_fin_timeout_s=30.0,
                keepalive_s=60,
            ),
        ),
        backends=(
            Backend(
                name="b",
                servers=("127.0.0.1:1",),
                balance="round_robin",
                connect_timeout_s=5.0,
                connect_attempts=3,
                server_fin_timeout_s=300.0,
                keepalive_s=60,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", 1),
        ("workers", 1024),
        ("drain_timeout_s", 0),
        ("drain_timeout_s", 2592000),
        ("slab_bytes", 64),
        ("slab_bytes", 16 << 20),
        ("slabs", 2),
        ("slabs", 65536),
    ],
)
def test_the_ends_of_a_range_belong_to_it(key: str, value: int) -> None:
    config = config_from_tables({**MINIMAL, key: value}, "a.toml")
    assert getattr(config, key) == value


def test_slabs_of_exactly_4_gib_are_allowed() -> None:
    config = config_from_tables({**MINIMAL, "slab_bytes": 65536, "slabs": 65536}, "a.toml")
    assert config.slab_bytes * config.slabs == 4 << 30


def test_a_whole_number_of_seconds_becomes_a_float() -> None:
    config = config_from_tables({**MINIMAL, "drain_timeout_s": 5}, "a.toml")
    assert isinstance(config.drain_timeout_s, float)


def test_a_backend_without_listeners_is_allowed() -> None:
    spare = {"name": "spare", "servers": ["unix:/run/spare.sock"]}
    tables = {**MINIMAL, "backend": [*MINIMAL["backend"], spare]}
    assert config_from_tables(tables, "a.toml").backends[1].name == "spare"


def test_one_port_may_be_bound_for_ipv4_and_for_ipv6() -> None:
    six = {"name": "six", "bind": "[::]:2", "backend": "b"}
    tables = {**MINIMAL, "listener": [*MINIMAL["listener"], six]}
    assert len(config_from_tables(tables, "a.toml").listeners) == 2


def test_a_listener_in_front_of_another_is_no_loop() -> None:
    front = {"name": "front", "bind": "127.0.0.1:3", "backend": "inner"}
    inner = {"name": "inner", "servers": ["127.0.0.1:2"]}
    tables = {
        "listener": [*MINIMAL["listener"], front],
        "backend": [*MINIMAL["backend"], inner],
    }
    assert len(config_from_tables(tables, "a.toml").backends) == 2


def test_an_exporter_elsewhere_may_have_a_port_that_is_a_listeners_here() -> None:
    bus = {"telemetry": "tcp://10.0.0.2:7", "sessions": "tcp://[::1]:7", "keys": "/k"}
    listener = MINIMAL["listener"][0] | {"bind": "*:7"}
    config = config_from_tables(MINIMAL | {"bus": bus, "listener": [listener]}, "a.toml")
    assert config.bus.telemetry == "tcp://10.0.0.2:7"


@pytest.mark.parametrize(
    ("more", "replaces"),
    [
        ({"metrics": {"bind": "127.0.0.1:1"}}, False),
        ({"metrics": {"bind": ""}}, True),
        ({"bus": {"requests": "tcp://10.0.0.1:7", "keys": ""}}, False),
        ({"bus": {"telemetry": "tcp://10.0.0.1:7"}}, True),
        ({"bus": {"keys": "/k"}}, True),
        ({"workers": 7, "hard_stop_s": 1.0}, False),
        ({"slabs": 7}, True),
    ],
)
def test_workers_are_replaced_for_what_they_go_by(more: dict[str, Any], replaces: bool) -> None:
    before = msgspec.convert(MINIMAL, Config)
    after = msgspec.convert(MINIMAL | more, Config)
    assert (worker_digest(before) != worker_digest(after)) == replaces
    assert config_digest(before) != config_digest(after)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        with_workers(1).workers = 2  # type: ignore[misc]


def test_digests_of_equal_configurations_are_equal_however_the_numbers_are_written() -> None:
    one = msgspec.structs.replace(with_workers(1), drain_timeout_s=30)
    assert one == with_workers(1)
    assert config_digest(one) == config_digest(with_workers(1))


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_digest_is_the_same_in_every_process(hash_seed: str) -> None:
    program = (
        "from aegis.config import *; config = Config("
        "listeners=(Listener(name='l', bind='127.0.0.1:2', backend='b'),),"
        "backends=(Backend(name='b', servers=('127.0.0.1:1',)),)); print(config_digest(config))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert printed.strip() == config_digest(config_from_tables(MINIMAL, "a.toml"))


# Other tests keep the machine busy; what takes long here is not a defect.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORD = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
TIMEOUT = st.floats(0, 2592000)


@st.composite
def valid_tables(draw: st.DrawFn) -> dict[str, Any]:
    backends = draw(st.lists(WORD, min_size=1, max_size=4, unique=True))
    names = draw(st.lists(WORD, min_size=1, max_size=4, unique=True))
    ports = iter(range(1000, 2000))
    listeners = [
        {
            "name": name,
            "bind": f"{draw(st.sampled_from(['*', 'localhost', '[::1]']))}:{next(ports)}",
            "backend": draw(st.sampled_from(backends)),
            "idle_timeout_s": draw(TIMEOUT),
            "backlog": draw(st.integers(1, 65535)),
        }
        for name in names
    ]
    servers = {name: [f"10.0.0.1:{next(ports)}", "unix:/run/db"] for name in backends}
    return {
        "workers": draw(st.integers(1, 1024) | st.just("auto")),
        "drain_timeout_s": draw(TIMEOUT),
        "listener": listeners,
        "backend": [{"name": name, "servers": servers[name]} for name in backends],
    }


@UNHURRIED
@given(valid_tables())
def test_a_configuration_survives_the_bus(tables: dict[str, Any]) -> None:
    config = config_from_tables(tables, "a.toml")
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config)
    assert decoded == config
    assert config_digest(decoded) == config_digest(config)


@UNHURRIED
@given(valid_tables(), valid_tables())
def test_digests_are_equal_exactly_when_configurations_are(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = config_from_tables(one, "a.toml"), config_from_tables(other, "b.toml")
    assert (config_digest(first) == config_digest(second)) == (first == second)


KEYS = st.sampled_from(
    [
        *Config.__struct_encode_fields__,
        *Metrics.__struct_encode_fields__,
        *Listener.__struct_encode_fields__,
        *Backend.__struct_encode_fields__,
    ]
)
SCALARS = (
    st.text(max_size=20)
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.integers(1, 9)
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from(["raw", "off", "auto", "b", "127.0.0.1:2", "*:2", "unix:/a", "least_conn"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)


def gives_a_config_or_printable_lines(tables: dict[str, Any]) -> None:
    try:
        config = config_from_tables(tables, "a.toml")
    except ConfigError as error:
        problems = error.problems
    else:
        assert msgspec.convert(msgspec.to_builtins(config), Config) == config
        return
    assert problems
    assert all(line.startswith("a.toml: ") and line.isprintable() for line in problems)
    assert len(set(problems)) == len(problems)


@UNHURRIED
@given(st.dictionaries(KEYS | st.text(max_size=5), VALUES, max_size=8))
def test_any_tables_give_a_config_or_a_config_error(tables: dict[str, Any]) -> None:
    gives_a_config_or_printable_lines(tables)


@UNHURRIED
@given(valid_tables(), st.data())
def test_any_one_value_changed_gives_a_config_or_a_config_error(
    tables: dict[str, Any], data: st.DataObject
) -> None:
    target = data.draw(st.sampled_from([tables, *tables["listener"], *tables["backend"]]))
    target[data.draw(KEYS)] = data.draw(VALUES)
    gives_a_config_or_printable_lines(tables)


@UNHURRIED
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_in_a_file_give_a_config_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(ConfigError):  # both required tables by chance: not in this universe
            load_config(Path(file.name))

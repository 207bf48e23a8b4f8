"""Code, schema, documentation and sample know the same keys, defaults and errors."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aegis.config import Config, Log, Metrics
from aegis.config_backend import Backend, Dns, Server
from aegis.config_bus import Bus
from aegis.config_file import config_from_tables, load_config
from aegis.config_health import Health, OutlierDetection
from aegis.config_listener import Listener, SniRoute
from aegis.config_schema import REFERENCE_FILE, SCHEMA_FILE, reference_text, schema_text
from aegis.config_tls import BackendTls, ListenerTls
from aegis.errors import ConfigError
from aegis.framers import POOLINGS

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "ops" / "aegis.toml"
REFERENCE = ROOT / "docs" / REFERENCE_FILE
TABLES: dict[str, type[msgspec.Struct]] = {
    "": Config,
    "metrics": Metrics,
    "log": Log,
    "bus": Bus,
    "dns": Dns,
    "listener": Listener,
    "listener.sni": SniRoute,
    "listener.tls": ListenerTls,
    "backend": Backend,
    "backend.servers": Server,
    "backend.health": Health,
    "backend.outlier_detection": OutlierDetection,
    "backend.tls": BackendTls,
}
HEADINGS = {
    "": "Top level",
    "metrics": "`[metrics]`",
    "log": "`[log]`",
    "bus": "`[bus]`",
    "dns": "`[dns]`",
    "listener": "`[[listener]]`",
    "listener.sni": "`[[listener]]`: `sni`",
    "listener.tls": "`[listener.tls]`",
    "backend": "`[[backend]]`",
    "backend.servers": "`[[backend]]`: `servers`",
    "backend.health": "`[backend.health]`",
    "backend.outlier_detection": "`[backend.outlier_detection]`",
    "backend.tls": "`[backend.tls]`",
}
KEYS = [(table, key) for table, kind in TABLES.items() for key in kind.__struct_encode_fields__]
COMMENTED_DEFAULT = re.compile(r"^# (?=\w+ = )", re.MULTILINE)


def sample_with_its_commented_keys() -> dict[str, Any]:
    return tomllib.loads(COMMENTED_DEFAULT.sub("", SAMPLE.read_text()))


SHOWN = {
    "backend.servers": r"^#   (?P<inline>\{ address = .*\})$",
    "listener.sni": r"^#   sni = \[(?P<inline>\{ .* \})\]$",
    "listener.tls": r"^#   \[listener\.tls\]\n(?P<lines>(?:#   \w.*\n)+)",
    "backend.tls": r"^#   \[backend\.tls\]\n(?P<lines>(?:#   \w.*\n)+)",
}
"""Tables that the sample shows beside the others: with them it would not start, or be another."""


def first_table(document: dict[str, Any], table: str) -> dict[str, Any]:
    if table in SHOWN:
        shown = re.search(SHOWN[table], SAMPLE.read_text(), re.MULTILINE)
        assert shown is not None
        if "lines" in shown.groupdict():
            return tomllib.loads(shown["lines"].replace("#   ", ""))
        one: dict[str, Any] = tomllib.loads(f"one = {shown['inline']}")["one"]
        return one
    found: Any = document
    for key in filter(None, table.split(".")):
        found = found[key]
        found = found[0] if isinstance(found, list) else found
    first: dict[str, Any] = found
    return first


def section_of(table: str) -> str:
    heading = f"## {HEADINGS[table]}\n"
    return REFERENCE.read_text().partition(heading)[2].partition("\n## ")[0]


def test_the_sample_is_valid() -> None:
    config = load_config(SAMPLE)
    assert [(one.name, one.bind, one.backend) for one in config.listeners] == [
        ("http", "127.0.0.1:8081", "chronos"),
        ("line", "127.0.0.1:8083", "chronos"),
    ]
    assert config.metrics.bind == "127.0.0.1:8082"
    assert config.backends[0].servers == ("127.0.0.1:8080",)


def test_the_sample_names_its_schema_on_the_first_line() -> None:
    directive = SAMPLE.read_text().splitlines()[0]
    assert directive.startswith("#:schema ")
    assert (SAMPLE.parent / directive.split()[1]).resolve() == ROOT / "docs" / SCHEMA_FILE


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_in_the_sample(table: str, key: str) -> None:
    shown = f"{table}.{key}" in SHOWN
    assert shown or key in first_table(sample_with_its_commented_keys(), table)


def test_keys_the_sample_comments_out_have_their_defaults() -> None:
    complete = sample_with_its_commented_keys()
    assert complete != tomllib.loads(SAMPLE.read_text())
    assert config_from_tables(complete, "sample") == load_config(SAMPLE)


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_is_documented_in_the_section_of_its_table(table: str, key: str) -> None:
    assert f"\n| `{key}` | " in section_of(table)


def test_the_reference_is_what_the_structs_say() -> None:
    document = REFERENCE.read_text()
    assert document.count("<!-- keys of ") == len(TABLES)
    assert reference_text(document) == document, "run: python -m aegis.config_schema docs"


def test_the_schema_is_what_the_structs_say() -> None:
    stored = (ROOT / "docs" / SCHEMA_FILE).read_text()
    assert stored == schema_text(), "run: python -m aegis.config_schema docs"


@pytest.mark.parametrize("protocol", POOLINGS)
def test_the_reference_lists_what_each_protocol_supports(protocol: str) -> None:
    poolings = ", ".join(f"`{pooling}`" for pooling in POOLINGS[protocol])
    assert f"\n| `{protocol}` | {poolings} |\n" in section_of("listener")


def test_the_errors_shown_in_the_reference_are_real(tmp_path: Path) -> None:
    shown = [line for line in REFERENCE.read_text().splitlines() if "ops/aegis.toml: " in line]
    file = tmp_path / "a.toml"
    file.write_text(
        SAMPLE.read_text()
        .replace('"http1"', '"raw"', 1)
        .replace('bind = "127.0.0.1:8083"', 'bnd = "127.0.0.1:8083"')
        .replace("# connect_attempts = 3", "connect_attempts = 9")
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    real = [line.replace(str(file), "ops/aegis.toml") for line in caught.value.problems]
    assert sorted(shown) == sorted(real)


def test_every_description_of_the_schema_is_there() -> None:
    for kind in TABLES.values():
        for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            assert field.type.extra_json_schema["description"].endswith("."), field

"""What users and their editors read about the configuration, made from the structs of config.py.

`python -m aegis.config_schema docs` rewrites two files of that directory: the JSON Schema
(aegis.schema.json) whole, and in configuration.md what stands between `<!-- keys of NAME -->` and
`<!-- end -->`. A test fails when either is not what this would write.
"""

import re
import sys
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from aegis.config import Config, Log, Metrics
from aegis.config_backend import Backend, Dns, Server
from aegis.config_bus import Bus
from aegis.config_health import Health, OutlierDetection
from aegis.config_listener import Listener, SniRoute
from aegis.config_problems import show_value
from aegis.config_table import allowed
from aegis.config_tls import BackendTls, ListenerTls

SCHEMA_FILE = "aegis.schema.json"
REFERENCE_FILE = "configuration.md"

_TABLES: dict[str, type[msgspec.Struct]] = {
    "Config": Config,
    "Metrics": Metrics,
    "Log": Log,
    "Bus": Bus,
    "Listener": Listener,
    "SniRoute": SniRoute,
    "ListenerTls": ListenerTls,
    "Dns": Dns,
    "Backend": Backend,
    "Server": Server,
    "Health": Health,
    "OutlierDetection": OutlierDetection,
    "BackendTls": BackendTls,
}
_GENERATED = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_UNITS = {"_bytes_per_s": "bytes/s", "_s": "seconds", "_bytes": "bytes"}
_TYPES: dict[type[inspect.Type], str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.LiteralType: "string",
    inspect.BoolType: "boolean",
    inspect.UnionType: "integer or string",
    inspect.StructType: "table",
    inspect.VarTupleType: "array",
}


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file; it knows keys, types and ranges, no rules."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Aegis configuration",
        **msgspec.json.schema(Config),
    }


def schema_text() -> str:
    """Return the JSON Schema as it stands in its file."""
    encoded = msgspec.json.encode(config_schema())
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def reference_text(document: str) -> str:
    """Return the document with its generated tables made anew."""
    return _GENERATED.sub(lambda m: m[1] + _keys_table(_TABLES[m[2]]) + m[3], document)


def _keys_table(kind: type[msgspec.Struct]) -> str:
    annotations = get_type_hints(kind, include_extras=True)
    rows = ["| Key | Type | Unit | Default | Allowed | Meaning |", "|---|---|---|---|---|---|"]
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        key, info = field.encode_name, field.type
        unit = next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
        shown = list(field.default) if isinstance(field.default, tuple) else field.default
        default = "required" if field.required else f"`{show_value(shown)}`"
        type_name = _TYPES[type(info.type)]
        if isinstance(info.type, inspect.StructType):
            default = "its defaults"
        elif field.default is None:
            type_name, default = "table", "none"
        words = info.extra_json_schema.get("enum")
        choice = ", ".join(f'"{word}"' for word in words) if words else ""
        cells = [
            f"`{key}`",
            type_name,
            unit,
            default,
            choice or allowed(annotations[field.name], key),
            info.extra_json_schema["description"],
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Rewrite the generated files of the directory that is the only argument."""
    docs = Path(sys.argv[1])
    (docs / SCHEMA_FILE).write_text(schema_text())
    reference = docs / REFERENCE_FILE
    reference.write_text(reference_text(reference.read_text()))


if __name__ == "__main__":
    main()

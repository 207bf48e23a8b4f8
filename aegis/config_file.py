"""Read a configuration file: TOML → tables → checked fields → checked rules → `Config`.

    FILE ──bytes──▶ tomllib ──dict──▶ config_table ──valid part──▶ config_checks ──▶ Config
             └───────── problems ──────────┴───────────────────────────┴──▶ ConfigError

No socket is opened and no other file read; the answer is the same for `aegis-ctl check` and start.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from aegis.config import Config
from aegis.config_checks import check_rules
from aegis.config_problems import Problems
from aegis.config_table import read_table
from aegis.errors import AegisError, ConfigError

_PLACES = (Path("aegis.toml"), Path("ops/aegis.toml"), Path("/etc/aegis/aegis.toml"))


def find_config() -> Path:
    """Return the file that is used when none is named: AEGIS_CONFIG, or the first that exists.

    Raises:
        AegisError: none of them exists.
    """
    if chosen := os.environ.get("AEGIS_CONFIG"):
        return Path(chosen)
    for place in _PLACES:
        if place.exists():
            return place
    raise AegisError(f"no --config given, and none of {', '.join(map(str, _PLACES))} exists")


def load_config(path: Path) -> Config:
    """Read and check a whole configuration.

    Raises:
        ConfigError: with every problem of the file, one line each.
    """
    problems = Problems(str(path))
    text = _read_text(path, problems)
    tables = _parse_toml(text, problems) if text is not None else None
    if tables is None:
        raise ConfigError(problems.lines)
    return config_from_tables(tables, str(path))


def config_from_tables(tables: dict[str, Any], file: str) -> Config:
    """Check what TOML of the given file (a name for the errors only) was parsed into.

    Raises:
        ConfigError: with every problem, one line each.
    """
    problems = Problems(file)
    check_rules(read_table(Config, tables, "", problems), problems)
    if problems.lines:
        raise ConfigError(problems.lines)
    return msgspec.convert(tables, Config)


def _read_text(path: Path, problems: Problems) -> str | None:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        problems.about_file(f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        problems.about_file(
            f"not UTF-8: byte 0x{error.object[error.start]:02x} at line {line}, byte {column}"
        )
    return None


def _parse_toml(text: str, problems: Problems) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.about_file(f"not TOML: {error}")
    except ValueError as error:  # an integer of thousands of digits
        problems.about_file(f"not TOML: {error}")
    except RecursionError:
        problems.about_file("not a configuration: arrays or tables nested too deeply")
    return None

"""A file of servers, which is read once a second.

    servers = ["10.0.0.1:6379", { address = "10.0.0.2:6379", weight = 2, backup = true }]

It is TOML with the one key `servers`, which says what `[[backend]]`'s does. A file that is half
written does not parse, because its array has no end; such a file, one that is empty or gone, and
one with any error in it changes nothing. Reading it whole each second is simpler than to watch it
and misses less: inotify(7) needs watches on the directory for renames and on both ends of symbolic
links, and hears nothing of a network file system; two writes within one tick of the file's clock
have the same mtime.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from aegis.config_backend import Server, servers_of
from aegis.config_problems import Problems
from aegis.config_server_checks import check_server_list
from aegis.config_table import read_table
from aegis.config_types import ServerAddress
from control.discovery.finding import FindError


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says."""

    servers: Annotated[tuple[ServerAddress | Server, ...], msgspec.Meta(min_length=1)]


def read_text(path: str) -> str:
    """Read the file.

    Raises:
        FindError: it cannot be read.
    """
    try:
        return Path(path).read_text()
    except OSError as error:
        raise FindError(f"{path}: {os.strerror(error.errno or 0)}") from None
    except UnicodeDecodeError as error:
        raise FindError(f"{path}: not UTF-8: {error}") from None


def parse_servers(text: str, path: str) -> tuple[Server, ...]:
    """Return the servers that the text of a file names.

    Raises:
        FindError: it is no such text; says every problem it has.
    """
    try:
        tables = tomllib.loads(text)
    except ValueError as error:
        raise FindError(f"{path}: not TOML: {error}") from None
    problems = Problems(path)
    valid = read_table(_File, tables, "", problems)
    check_server_list(valid.get("servers", []), problems)
    if problems.lines:
        raise FindError("; ".join(problems.lines))
    return servers_of(msgspec.convert(tables, _File).servers)

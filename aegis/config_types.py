"""The types of configuration values that several tables share: range, words for an error, parser.

In `extra`, `allowed` tells a user what no range or list of words says, and `parse` raises
ValueError for a string that is not it.
"""

from typing import Annotated

from msgspec import Meta

from aegis import limits
from aegis.addresses import (
    ADDRESS_FORMS,
    RESOLVER_FORMS,
    SERVER_FORMS,
    TCP_FORMS,
    parse_address,
    parse_resolver_address,
    parse_server_address,
    parse_tcp_address,
)
from aegis.config_problems import one_of
from aegis.framers import BUILT_POOLINGS, POOLINGS

# `$` alone would let a trailing newline through.
_NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{limits.MAX_NAME_CHARS - 1}}}$(?!\n)"
_NAME_ALLOWED = (
    f"1 to {limits.MAX_NAME_CHARS} of the characters A-Z a-z 0-9 _ . -, "
    "the first a letter or a digit"
)

ServerName = Annotated[
    str,
    Meta(
        pattern=_NAME_PATTERN.replace("^", "^(", 1).replace("$", ")?$", 1),
        extra={"allowed": _NAME_ALLOWED},
    ),
]
Name = Annotated[str, Meta(pattern=_NAME_PATTERN, extra={"allowed": _NAME_ALLOWED})]
_METRICS_ALLOWED = f'"" (no exporter), {TCP_FORMS}'


def _parse_metrics_address(text: str) -> None:
    if text:
        parse_tcp_address(text)


MetricsAddress = Annotated[
    str, Meta(extra={"allowed": _METRICS_ALLOWED, "parse": _parse_metrics_address})
]
BindAddress = Annotated[str, Meta(extra={"allowed": ADDRESS_FORMS, "parse": parse_address})]
ServerAddress = Annotated[str, Meta(extra={"allowed": SERVER_FORMS, "parse": parse_server_address})]
ResolverAddress = Annotated[
    str, Meta(extra={"allowed": RESOLVER_FORMS, "parse": parse_resolver_address})
]
# The schema proposes the built-in protocols; which others are installed it cannot know.
Protocol = Annotated[
    str,
    Meta(
        extra={"allowed": f"{one_of(sorted(POOLINGS))}, or an installed framer's name"},
        extra_json_schema={"anyOf": [{"enum": sorted(POOLINGS)}, {"type": "string"}]},
    ),
]
Pooling = Annotated[str, Meta(extra_json_schema={"enum": list(BUILT_POOLINGS)})]
Timeout = Annotated[float, Meta(ge=0, le=limits.MAX_TIMEOUT_S)]
PositiveTimeout = Annotated[float, Meta(gt=0, le=limits.MAX_TIMEOUT_S)]
Keepalive = Annotated[int, Meta(ge=0, le=limits.MAX_KEEPALIVE_S)]
_ACCOUNT_ALLOWED = '"" (stay what one is) or the name of an account of this machine'
# What useradd(8) accepts on Debian, without the `$` of Samba's machine accounts.
Account = Annotated[
    str, Meta(pattern=r"^([a-z_][a-z0-9_-]{0,31})?$(?!\n)", extra={"allowed": _ACCOUNT_ALLOWED})
]
_LOG_FILE_ALLOWED = (
    '"" (none), "-" (standard output of the exporter) or an absolute path of printable characters'
)


def _parse_log_file(text: str) -> None:
    if (text not in {"", "-"} and not text.startswith("/")) or not text.isprintable():
        raise ValueError(_LOG_FILE_ALLOWED)


LogFile = Annotated[str, Meta(extra={"allowed": _LOG_FILE_ALLOWED, "parse": _parse_log_file})]

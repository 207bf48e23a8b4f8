"""What a configuration says of TLS: ended at a listener, and spoken to servers.

Files are named here and read by whoever needs them (aegis/tls.py): a configuration is checked
without reading them.
"""

import re
from ipaddress import ip_address
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_PEM_ALLOWED = "an absolute path"
_NO_PEM_ALLOWED = '"" (none) or an absolute path'
_SERVER_NAME_ALLOWED = '"" (its IP address) or a host name in ASCII such as "db1.example.org"'
# Labels of letters, digits and hyphens (RFC 1123, 2.1), and underscores, which names in use have.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


def _parse_pem_file(text: str) -> None:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(_PEM_ALLOWED)


def _parse_optional_pem_file(text: str) -> None:
    if text and (not text.startswith("/") or "\0" in text):
        raise ValueError(_NO_PEM_ALLOWED)


def is_host_name(text: str) -> bool:
    """Whether a TLS client may ask for it as server_name: no IP address (RFC 6066, 3)."""
    if not _HOST_NAME.fullmatch(text):
        return False
    try:
        ip_address(text)
    except ValueError:
        return True
    return False


def _parse_server_name(text: str) -> None:
    if text and not is_host_name(text):
        raise ValueError(_SERVER_NAME_ALLOWED)


PemFile = Annotated[str, Meta(extra={"allowed": _PEM_ALLOWED, "parse": _parse_pem_file})]
OptionalPemFile = Annotated[
    str, Meta(extra={"allowed": _NO_PEM_ALLOWED, "parse": _parse_optional_pem_file})
]
ServerHostName = Annotated[
    str, Meta(extra={"allowed": _SERVER_NAME_ALLOWED, "parse": _parse_server_name})
]
MinVersion = Literal["1.2", "1.3"]


class ListenerTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS that is ended at a listener."""

    certificate: Annotated[
        PemFile, Meta(description="PEM file with the certificate and those that lead to its root.")
    ]
    key: Annotated[PemFile, Meta(description="PEM file with its key, not encrypted.")]
    client_ca: Annotated[
        OptionalPemFile,
        Meta(description="PEM file with the roots that every client's certificate must lead to."),
    ] = ""
    min_version: Annotated[
        MinVersion, Meta(description="Oldest version of TLS that is spoken.")
    ] = "1.2"


class BackendTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS that is spoken to the servers of a backend."""

    server_name: Annotated[
        ServerHostName,
        Meta(description="The name that is asked for, and that the certificate must have."),
    ] = ""
    ca: Annotated[
        OptionalPemFile,
        Meta(
            description="PEM file with the roots that a server's certificate must lead to; "
            '"" = those that OpenSSL finds on this machine.'
        ),
    ] = ""
    certificate: Annotated[
        OptionalPemFile, Meta(description="PEM file with the certificate that we show servers.")
    ] = ""
    key: Annotated[OptionalPemFile, Meta(description="PEM file with its key, not encrypted.")] = ""
    verify: Annotated[
        bool,
        Meta(description="Refuse servers whose certificate does not hold; false is for tests."),
    ] = True
    min_version: Annotated[
        MinVersion, Meta(description="Oldest version of TLS that is spoken.")
    ] = "1.2"

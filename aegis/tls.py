"""TLS contexts made of what a configuration names, with errors that name the file.

The controller makes them once to see whether they can be made, before it starts anything and before
a reload changes anything; workers make their own from the same files.

Facts used:
- An end of TCP without close_notify is an error unless OpenSSL is told to ignore it, and the ssl
  module tells it so (OP_IGNORE_UNEXPECTED_EOF, Modules/_ssl.c). What is cut short must not look
  whole, so that is undone.
- Renegotiation (TLS 1.2) would make a read wait for a write. Nobody needs it: OP_NO_RENEGOTIATION.
- ALPN chooses what is spoken inside, which is the servers' to say and not ours, so none is offered.
"""

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from aegis.config_tls import BackendTls, ListenerTls
from aegis.errors import AegisError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(conf: ListenerTls) -> ssl.SSLContext:
    """Make the context of a listener.

    Raises:
        AegisError: a file cannot be read or is not what it should be; says which and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _settle(context, conf)
    _load_pair(context, conf.certificate, conf.key)
    if conf.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_roots(context, conf.client_ca)
    return context


def client_context(conf: BackendTls) -> ssl.SSLContext:
    """Make the context of a backend.

    Raises:
        AegisError: a file cannot be read or is not what it should be; says which and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _settle(context, conf)
    if not conf.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif conf.ca:
        _load_roots(context, conf.ca)
    else:
        context.load_default_certs()
    if conf.certificate:
        _load_pair(context, conf.certificate, conf.key)
    return context


def fingerprint(tables: list[ListenerTls | BackendTls]) -> str:
    """Return 16 hex digits that change with what the files of these tables hold.

    Raises:
        AegisError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted({path for table in tables for path in _files(table)}):
        content = _read(path)
        digest.update(b"%s\0%d\0%s" % (path.encode(), len(content), content))
    return digest.hexdigest()


def _settle(context: ssl.SSLContext, conf: ListenerTls | BackendTls) -> None:
    context.minimum_version = _VERSIONS[conf.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


def _files(conf: ListenerTls | BackendTls) -> Iterator[str]:
    roots = conf.client_ca if isinstance(conf, ListenerTls) else conf.ca
    yield from (path for path in (conf.certificate, conf.key, roots) if path)


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _load_roots(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)  # what is wrong then is
    _read(key)  # wrong with the key: load_cert_chain does not say

    def encrypted() -> str:  # else OpenSSL asks the terminal
        raise AegisError(f"{key}: the key is encrypted; it must be readable without a password")

    try:
        context.load_cert_chain(certificate, key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise AegisError(f"{key}: not the key of the certificate in {certificate}") from None
        raise AegisError(f"{key}: no private key in PEM format") from None


def _load_roots(context: ssl.SSLContext, path: str) -> None:
    _read(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise AegisError(f"{path}: no certificates in PEM format") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AegisError(f"{path}: {error.strerror}") from None

"""CURVE keys: who may speak on the bus over TCP, and that nobody else hears it.

    DIR/proxy.key_secret      controller and workers      DIR/proxy.key      known to the other two
    DIR/exporter.key_secret   the exporter                DIR/exporter.key   known to the proxy
    DIR/operator.key_secret   aegis-ctl elsewhere         DIR/operator.key   known to the proxy

Whoever binds is a CURVE server: a client must know its public key, prove to have a secret key of
its own, and be known by it (ZeroMQ RFC 25 and 26). Each machine needs its own secret and the public
keys of whom it speaks with. There may be several operators: operator-NAME.key.

A server asks the handler on inproc://zeromq.zap.01 of its context about each client (RFC 27). The
`Gate` is that handler. It looks into the directory each time, so a key that is removed opens
nothing from then on; who is connected stays so.
"""

import os
import re
import stat
import struct
from pathlib import Path
from typing import Any, Literal

import zmq
import zmq.auth
from zmq.utils import z85

from aegis.errors import AegisError

Name = Literal["proxy", "exporter", "operator"]
SERVERS: dict[str, Name] = {"requests": "proxy", "telemetry": "exporter", "sessions": "exporter"}
"""Socket → whose key is the one of who binds it."""
CLIENTS: dict[str, Name] = {"requests": "operator", "telemetry": "proxy", "sessions": "proxy"}
"""Socket → whose key is the one of who connects."""

_KEY_BYTES = 32
_NO_Z85 = (ValueError, LookupError, struct.error)  # what z85.decode raises, and load_certificate
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_FOR_THE_OWNER, _FOR_ITS_WRITER = 0o077, 0o022
_SOME = "operator-[A-Za-z0-9_-]+"


def make_keys(directory: Path, operator: str | None = None) -> list[str]:
    """Make the key pairs that are missing, or one for another operator; returns their names.

    Raises:
        AegisError: the directory cannot be made or written, or is not ours alone.
    """
    names = [f"operator-{operator}"] if operator else ["proxy", "exporter", "operator"]
    if operator and not re.fullmatch(_SOME, names[0]):
        raise AegisError(f'operator "{operator}": letters, digits, _ and - are allowed')
    mask = os.umask(0o077)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _refuse_others(directory, _FOR_ITS_WRITER)
        missing = [name for name in names if not (directory / f"{name}.key_secret").exists()]
        for name in missing:
            zmq.auth.create_certificates(directory, name)
    except OSError as error:
        raise AegisError(f"{error.filename or directory}: {error.strerror}") from None
    finally:
        os.umask(mask)
    return missing


def serve(sock: Any, keys: Path, name: str) -> None:
    """Let a socket that is going to be bound accept those only whom the context's Gate knows.

    Raises:
        AegisError: its key cannot be used.
    """
    sock.curve_publickey, sock.curve_secretkey = own_pair(keys, SERVERS[name])
    sock.curve_server = True
    sock.zap_domain = name.encode()


def call(sock: Any, keys: Path, name: str) -> None:
    """Let a socket that is going to be connected prove who it is, to nobody but the right server.

    Raises:
        AegisError: a key cannot be used.
    """
    sock.curve_serverkey = public_key(keys / f"{SERVERS[name]}.key")
    sock.curve_publickey, sock.curve_secretkey = own_pair(keys, CLIENTS[name])


def own_pair(keys: Path, name: Name) -> tuple[bytes, bytes]:
    """Return a public and a secret key, in Z85.

    Raises:
        AegisError: there is none, it is no key pair, or others may read it.
    """
    path = keys / f"{name}.key_secret"
    _refuse_others(keys, _FOR_ITS_WRITER)
    _refuse_others(path, _FOR_THE_OWNER)
    public, secret = _load(path)
    try:
        fits = secret is not None and zmq.curve_public(secret) == public
    except (zmq.ZMQError, ValueError):
        fits = False
    if secret is None or not fits:
        raise AegisError(f"{path}: not a secret key with its public key")
    return public, secret


def public_key(path: Path) -> bytes:
    """Return a public key, in Z85.

    Raises:
        AegisError: there is none, or others may replace it.
    """
    _refuse_others(path.parent, _FOR_ITS_WRITER)
    _refuse_others(path, _FOR_ITS_WRITER)
    public, _ = _load(path)
    return public


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
        whole = len(z85.decode(public)) == _KEY_BYTES
    except OSError as error:
        raise AegisError(f"{path}: {error.strerror or 'no such file'}") from None
    except _NO_Z85:
        whole = False
    if not whole:
        raise AegisError(f"{path}: not a CURVE key")
    return public, secret


def _refuse_others(path: Path, forbidden: int) -> None:
    """Refuse what is somebody else's, or what its mode lets others do."""
    try:
        info = path.stat()
    except OSError as error:
        raise AegisError(f"{path}: {error.strerror}; `aegis-ctl keys` makes keys") from None
    if info.st_uid not in {0, os.geteuid()}:
        raise AegisError(f"{path}: owned by uid {info.st_uid}, not by us or root")
    if mode := stat.S_IMODE(info.st_mode) & forbidden:
        may = "read" if mode & 0o044 else "write"
        raise AegisError(f"{path}: mode {stat.S_IMODE(info.st_mode):04o} lets others {may} it")


class Gate:
    """The ZAP handler of one context; `answer` when its socket is readable."""

    def __init__(self, context: zmq.Context[Any], keys: Path) -> None:
        """Bind, before any socket that it is to guard."""
        self._keys = keys
        self.socket: Any = context.socket(zmq.REP)
        self.socket.bind(_ZAP_ENDPOINT)

    def answer(self) -> None:
        """Let in or turn away everybody who waits."""
        while True:
            try:
                version, request, domain, _, _, mechanism, *credentials = (
                    self.socket.recv_multipart(zmq.NOBLOCK)
                )
            except zmq.Again:
                return
            name = domain.decode()
            known = mechanism == b"CURVE" and z85.encode(credentials[0]) in self._known(name)
            # After a 4xx ZeroMQ does not try again; a worker whose key is added later is to.
            no = b"400" if name == "requests" else b"300"
            verdict = (b"200", b"OK") if known else (no, b"unknown key")
            self.socket.send_multipart([version, request, *verdict, name.encode(), b""])

    def _known(self, name: str) -> set[bytes]:
        """Return the public keys that open a socket; a file that cannot be used opens nothing."""
        client = CLIENTS[name]
        paths = [self._keys / f"{client}.key"]
        if client == "operator":
            paths += [p for p in self._keys.glob("operator-*.key") if re.fullmatch(_SOME, p.stem)]
        found = set()
        for path in paths:
            try:
                found.add(public_key(path))
            except AegisError:
                continue
        return found

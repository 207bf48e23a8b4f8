"""Certificates that a test makes for itself, and contexts of peers that believe in them."""

import secrets
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """A certificate with its chain, and its key: paths of PEM files."""

    certificate: str
    key: str


class Authority:
    """A root that exists for one test, and what it signs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.root = str(directory / f"root-{secrets.token_hex(4)}.pem")
        self._ca.cert_pem.write_to_path(self.root)

    def issue(self, *names: str) -> Pair:
        """Sign a certificate for host names or IP addresses."""
        issued = self._ca.issue_cert(*names)
        stem = self._directory / secrets.token_hex(4)
        pair = Pair(f"{stem}.pem", f"{stem}.key")
        write(issued, pair)
        return pair

    def renew(self, pair: Pair, *names: str) -> None:
        """Put another certificate and key in the place of a pair's."""
        write(self._ca.issue_cert(*names), pair)

    def client_context(self, own: Pair | None = None) -> ssl.SSLContext:
        """Return what a client that trusts this root connects with."""
        context = ssl.create_default_context(cafile=self.root)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context

    def server_context(self, own: Pair) -> ssl.SSLContext:
        """Return what a server with this certificate accepts with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        context.load_cert_chain(own.certificate, own.key)
        return context


def write(issued: trustme.LeafCert, pair: Pair) -> None:
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    Path(pair.certificate).write_bytes(chain)
    issued.private_key_pem.write_to_path(pair.key)

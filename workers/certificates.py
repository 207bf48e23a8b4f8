"""The TLS contexts of a worker, and how they are exchanged while everything goes on.

    Desired.tls, a fingerprint of the files ── another than before ──▶ all contexts are made anew

A connection keeps the context it began with; new handshakes take the new one. The controller has
made the same contexts of the same files before it asked for this, so a failure here means that the
files have changed once more: then all stays as it was, and the next fingerprint brings the next
attempt.
"""

import logging

from aegis.errors import AegisError
from aegis.tls import client_context, server_context
from workers.backend import Backend
from workers.door import Door

log = logging.getLogger(__name__)


class Certificates:
    """Makes contexts for the doors and backends that speak TLS."""

    def __init__(self, doors: list[Door], backends: list[Backend], fingerprint: str) -> None:
        """Make them for the first time.

        Raises:
            AegisError: a file cannot be read or is not what it should be.
        """
        self._doors = [door for door in doors if door.conf.tls is not None]
        self._backends = [backend for backend in backends if backend.config.tls is not None]
        self._fingerprint = fingerprint
        self._make()

    def apply(self, fingerprint: str) -> None:
        """Go by what the files hold now, if that is not what this worker went by."""
        if fingerprint in {"", self._fingerprint}:
            return
        self._fingerprint = fingerprint
        try:
            self._make()
        except AegisError as error:
            log.error("certificates stay as they were: %s", error)
        else:
            log.info("certificates are exchanged", extra={"event": "certificates"})

    def _make(self) -> None:
        of_doors = [server_context(door.conf.tls) for door in self._doors if door.conf.tls]
        of_backends = [client_context(b.config.tls) for b in self._backends if b.config.tls]
        for door, context in zip(self._doors, of_doors, strict=True):
            door.context = context
        for backend, context in zip(self._backends, of_backends, strict=True):
            backend.tls_context = context

"""What a controller has to know of servers when the one before it has died, or become another.

Operators' overrides, the last answers of discovery, and who was down: without the file a new
controller would give sessions to a server that is under maintenance, and none to servers whose
name cannot be looked up at that moment. It is good for this boot of the machine only (instants are
CLOCK_MONOTONIC), and removed when Aegis is stopped.
"""

import logging
from pathlib import Path

import msgspec

from aegis.config_backend import Server
from aegis.runtime import SERVERS_FILE, boot_id
from control import kept_file
from control.known_server import Override

log = logging.getLogger(__name__)


class FoundBefore(msgspec.Struct, frozen=True):
    """The servers that discovery has found."""

    discover: str
    """Where, as the configuration says it."""
    servers: tuple[Server, ...]


class Saved(msgspec.Struct, frozen=True):
    """What is kept."""

    overrides: dict[str, Override] = {}
    """By BACKEND/ADDRESS."""
    found: dict[str, FoundBefore] = {}
    """By backend."""
    down: list[str] = []
    """BACKEND/ADDRESS of each server that its checks hold for down."""


class _File(msgspec.Struct, frozen=True):
    boot: str
    saved: Saved


_decode = msgspec.json.Decoder(_File).decode


class ServersFile:
    """The file; only for who holds the controller's claim."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / SERVERS_FILE
        self._written = Saved()

    def read(self) -> Saved:
        """Return what was kept, or nothing."""
        file = kept_file.read(self._path, _decode, log, "overrides are lost")
        if file is None or file.boot != boot_id():
            return Saved()
        self._written = file.saved
        return file.saved

    def write(self, saved: Saved) -> None:
        """Keep this; a disk that is full costs a warning, until the next change."""
        if saved == self._written:
            return
        self._written = saved
        try:
            kept_file.write(self._path, msgspec.json.encode(_File(boot_id(), saved)))
        except OSError as error:
            log.warning("%s: %s; a new controller would not know", self._path, error.strerror)

    def remove(self) -> None:
        """Forget."""
        kept_file.remove(self._path)

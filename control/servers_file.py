"""What a controller has to know of servers when the one before it has died, or become another.

Operators' overrides, the last answers of discovery, and who was down: without the file a new
controller would give sessions to a server that is under maintenance, and none to servers whose
name cannot be looked up at that moment. It is in the runtime directory, renamed into place, good
for this boot of the machine only (instants are CLOCK_MONOTONIC), and removed when Aegis is stopped.
"""

import contextlib
import logging
from pathlib import Path

import msgspec

from aegis.config_backend import Server
from aegis.runtime import SERVERS_FILE, boot_id
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


class ServersFile:
    """The file; only for who holds the controller's claim."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / SERVERS_FILE
        self._written = Saved()

    def read(self) -> Saved:
        """Return what was kept, or nothing."""
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return Saved()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s: not understood, overrides are lost: %s", self._path, error)
            return Saved()
        if file.boot != boot_id():
            return Saved()
        self._written = file.saved
        return file.saved

    def write(self, saved: Saved) -> None:
        """Keep this; a disk that is full costs a warning, until the next change."""
        if saved == self._written:
            return
        self._written = saved
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(_File(boot_id(), saved)))
            new.replace(self._path)
        except OSError as error:
            log.warning("%s: %s; a new controller would not know", self._path, error.strerror)

    def remove(self) -> None:
        """Forget."""
        for path in (self._path, self._path.with_suffix(".new")):
            with contextlib.suppress(OSError):
                path.unlink()

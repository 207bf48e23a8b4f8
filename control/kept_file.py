"""A file of the runtime directory that a process keeps for the one that comes after it.

It is renamed into place, so a reader finds a whole one, and not synced: it need not outlive the
machine. One that is damaged is as good as none.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

Content = TypeVar("Content")

_UNREADABLE = (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read(
    path: Path, decode: Callable[[bytes], Content], log: logging.Logger, instead: str
) -> Content | None:
    """Return what was kept; None if nothing was, or after a warning that says what comes instead.

    Args:
        path: the file.
        decode: makes its content of its bytes.
        log: for the warning.
        instead: what becomes of it that it is not understood.
    """
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        log.warning("%s: not understood, %s: %s", path, instead, error)
        return None


def write(path: Path, data: bytes) -> None:
    """Put this in its place.

    Raises:
        OSError: that is not possible; what was there stays.
    """
    new = _beside(path)
    new.write_bytes(data)
    new.replace(path)


def remove(path: Path) -> None:
    """Forget, as far as possible; a file that was not finished as well."""
    for each in (path, _beside(path)):
        with contextlib.suppress(OSError):
            each.unlink()


def _beside(path: Path) -> Path:
    return path.with_suffix(".new")

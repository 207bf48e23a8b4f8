"""The HUD's charts and events, in a file of the runtime directory, for the next exporter.

Written at the end and every few seconds before, in case there is no end: a killed exporter takes
the seconds since along, which is a gap in the charts. Only for who holds the exporter's claim.
"""

import contextlib
import logging
from pathlib import Path

import msgspec

from aegis.limits import HISTORY_S
from aegis.runtime import EXPORTER_HISTORY_FILE
from control.exporter.picture import Event

_Numbers = list[int | float | None]
Point = tuple[float, _Numbers, list[_Numbers], list[_Numbers]]
"""As in history.py."""

log = logging.getLogger(__name__)


class Kept(msgspec.Struct):
    """What a page shows of the past; instants are Unix time."""

    form: list[str] = []
    """What the numbers of a point are: another form is another version's."""
    points: list[Point] = []
    events: list[Event] = []


class Memory:
    """The file."""

    def __init__(self, runtime_dir: Path, form: list[str]) -> None:
        self._path = runtime_dir / EXPORTER_HISTORY_FILE
        self._form = form

    def read(self, wall: float) -> Kept:
        """Return what is still to be shown at `wall`; nothing if it is not understood."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s: not understood, charts begin anew: %s", self._path, error)
            return Kept()
        if kept.form != self._form:
            return Kept()
        points = [point for point in kept.points if wall - HISTORY_S < point[0] <= wall]
        return Kept(kept.form, points, [event for event in kept.events if event.at <= wall])

    def write(self, points: msgspec.Raw, events: list[Event]) -> None:
        """Write it down; where that fails, charts will begin anew."""
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            kept = {"form": self._form, "points": points, "events": events}
            new.write_bytes(msgspec.json.encode(kept))
            new.replace(self._path)

    def remove(self) -> None:
        """Forget; when there is no proxy left to look back at."""
        for path in (self._path, self._path.with_suffix(".new")):
            with contextlib.suppress(OSError):
                path.unlink()

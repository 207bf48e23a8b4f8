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
from control import kept_file
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


_decode = msgspec.json.Decoder(Kept).decode


class Memory:
    """The file."""

    def __init__(self, runtime_dir: Path, form: list[str]) -> None:
        self._path = runtime_dir / EXPORTER_HISTORY_FILE
        self._form = form

    def read(self, wall: float) -> Kept:
        """Return what is still to be shown at `wall`; nothing if it is not understood."""
        kept = kept_file.read(self._path, _decode, log, "charts begin anew")
        if kept is None or kept.form != self._form:
            return Kept()
        points = [point for point in kept.points if wall - HISTORY_S < point[0] <= wall]
        return Kept(kept.form, points, [event for event in kept.events if event.at <= wall])

    def write(self, points: msgspec.Raw, events: list[Event]) -> None:
        """Write it down; where that fails, charts will begin anew."""
        kept = {"form": self._form, "points": points, "events": events}
        with contextlib.suppress(OSError):
            kept_file.write(self._path, msgspec.json.encode(kept))

    def remove(self) -> None:
        """Forget; when there is no proxy left to look back at."""
        kept_file.remove(self._path)

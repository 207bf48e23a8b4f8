"""The HUD's data: each second a picture, a point of the charts, and news for the browsers.

main thread: tick() ─▶ Observer ─▶ Watcher, History ─▶ Streams.publish
HTTP thread: opening() ─▶ everything until now; status() ─▶ the last picture
"""

import threading
from pathlib import Path
from time import monotonic, time

import msgspec

from aegis.limits import HEARTBEAT_S, HISTORY_S
from control.exporter.events import Watcher
from control.exporter.history import History
from control.exporter.memory import Memory
from control.exporter.observer import LATENCIES, Observer
from control.exporter.picture import Event, Picture
from control.exporter.state import Snapshot
from control.exporter.streams import Streams, message

_encode = msgspec.json.Encoder().encode
_KEEP_EVERY_S = 5.0
"""What a killed exporter may take along of the charts; a few hundred kB are written each time."""


class Opening(msgspec.Struct):
    """The first message of a stream."""

    step_s: float
    span_s: float
    points: msgspec.Raw
    events: list[Event]
    now: Picture


class Tick(msgspec.Struct, omit_defaults=True):
    """Each further message."""

    point: msgspec.Raw
    now: Picture
    events: list[Event] | None = None
    """All of them, when they have changed."""


class Hud:
    """Made with the first snapshot, so that there is a picture at once."""

    def __init__(self, snapshot: Snapshot, runtime_dir: Path) -> None:
        self.streams = Streams()
        self._lock = threading.Lock()
        self._observer = Observer()
        self._watcher = Watcher()
        self._history = History()
        self._picture = self._observer.look(snapshot, monotonic(), time())
        form = [self._picture.version, *(metric.name for metric in LATENCIES)]
        self._memory = Memory(runtime_dir, form)
        kept = self._memory.read(time())
        self._history.restore(kept.points)
        self._watcher.events.extend(kept.events)
        self._keep_at = 0.0

    def see(self, snapshot: Snapshot, now: float, wall: float) -> None:
        """See what is now, once a second; `now` is monotonic, `wall` Unix time."""
        picture = self._observer.look(snapshot, now, wall)
        with self._lock:
            self._picture = picture
            changed = self._watcher.look(picture, snapshot, now)
            events = list(self._watcher.events) if changed else None
            news = Tick(self._history.append(picture), picture, events)
            self.streams.publish(message("tick", _encode(news)))
        if now >= self._keep_at:
            self._keep_at = now + _KEEP_EVERY_S
            self._memory.write(self._history.all(), list(self._watcher.events))

    def close(self, *, keep: bool) -> None:
        """End the streams; `keep`: another exporter will go on with the charts and events."""
        self.streams.close()
        if keep:
            self._memory.write(self._history.all(), list(self._watcher.events))
        else:
            self._memory.remove()

    def opening(self) -> tuple[int, bytes]:
        """Return the first message of a stream, and the number of the next one less one."""
        with self._lock:
            first = Opening(
                step_s=HEARTBEAT_S,
                span_s=HISTORY_S,
                points=self._history.all(),
                events=list(self._watcher.events),
                now=self._picture,
            )
            seen = self.streams.published
        return seen, message("opening", _encode(first))

    def status(self) -> bytes:
        """Return the last picture with the events, as JSON for people too."""
        with self._lock:
            whole = {**msgspec.to_builtins(self._picture), "events": list(self._watcher.events)}
        return msgspec.json.format(_encode(whole)) + b"\n"

"""The charts' last quarter of an hour: one point a second, kept as the JSON that pages get.

A point is a list of lists, because names repeated 900 times would be most of what a page loads:

    [at, [sessions/s, requests/s, bytes/s from clients, bytes/s from servers, sessions, waiting],
     [[p50, p99, p99.9] per histogram of LATENCIES], [[slot, load, sessions, lag] per worker]]
"""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from aegis.limits import HEARTBEAT_S, HISTORY_S
from control.exporter.picture import Picture

_encode = msgspec.json.Encoder().encode


class History:
    """A ring of points."""

    def __init__(self) -> None:
        self._points: deque[bytes] = deque(maxlen=int(HISTORY_S / HEARTBEAT_S))

    def restore(self, points: Iterable[Sequence[object]]) -> None:
        """Begin with what an exporter before this one has kept."""
        self._points.extend(map(_encode, points))

    def append(self, picture: Picture) -> msgspec.Raw:
        """Add the picture's point, and return it."""
        point = _encode(point_of(picture))
        self._points.append(point)
        return msgspec.Raw(point)

    def all(self) -> msgspec.Raw:
        """Return every point, the oldest first."""
        return msgspec.Raw(b"[" + b",".join(self._points) + b"]")


def point_of(picture: Picture) -> list[object]:
    """Return what the charts show of a picture; four digits are more than a pixel can show."""
    total = picture.total
    return [
        round(picture.at, 1),
        [
            _short(total.sessions_per_s),
            _short(total.requests_per_s),
            _short(total.from_clients_bytes_per_s),
            _short(total.from_servers_bytes_per_s),
            total.sessions,
            sum(backend.waiting for backend in picture.backends),
        ],
        [[_short(each.p50), _short(each.p99), _short(each.p999)] for each in picture.latency],
        [
            [lane.slot, _short(lane.load), lane.sessions, _short(lane.lag_s)]
            for lane in picture.workers
            if not lane.retired
        ],
    ]


def _short(number: float | None) -> float | None:
    if number is None:
        return None
    short = float(f"{number:.4g}")
    return int(short) if short.is_integer() else short

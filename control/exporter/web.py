"""The exporter's pages, a WSGI application: /metrics, /healthz, /readyz and a page that names them.

Reads only, and only the snapshot that `Site.snapshot` is at that moment, so nothing here can hold
up the reception of telemetry.
"""

from collections.abc import Callable, Iterable
from time import monotonic, sleep
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, make_wsgi_app

from aegis.limits import REQUEST_BODY_BYTES, SETTLE_S
from control.exporter.collector import Collector
from control.exporter.readiness import why_not_ready, why_unhealthy
from control.exporter.state import Snapshot

_INDEX = """\
Aegis exporter

/metrics   Prometheus metrics; docs/metrics.md says what each means
/healthz   200 while any worker is heard
/readyz    200 while new clients are welcome
"""


class _Answer(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Site:
    """The application; `snapshot` is replaced by whoever receives telemetry."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(lambda: self.snapshot))
        self._metrics_app: WSGIApplication = make_wsgi_app(registry)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        answer = self._get(environ) if method in {"GET", "HEAD"} else _refuse(environ)
        length = ("Content-Length", str(len(answer.body)))
        start_response(answer.status, [*answer.headers, length])
        return [] if method == "HEAD" else [answer.body]

    def _get(self, environ: WSGIEnvironment) -> _Answer:
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ)
            case "/healthz":
                return _verdict(why_unhealthy(self.snapshot, monotonic()))
            case "/readyz":
                return _verdict(why_not_ready(self.snapshot, monotonic()))
            case "/":
                return _text("200 OK", _INDEX)
        return _text("404 Not Found", "not found; / names the pages there are\n")

    def _metrics(self, environ: WSGIEnvironment) -> _Answer:
        # A sum in which a living worker is still missing would look like a counter that was reset,
        # and the next one like a burst. So the first scrapes wait until all have spoken.
        sleep(max(0.0, self.snapshot.started + SETTLE_S - monotonic()))
        heads: list[tuple[str, list[tuple[str, str]]]] = []
        parts: list[bytes] = []

        def note(
            status: str, headers: list[tuple[str, str]], _exc_info: object = None
        ) -> Callable[[bytes], object]:
            heads.append((status, headers))
            return parts.append

        accept = _understood(environ.get("HTTP_ACCEPT", ""))
        request = {**environ, "REQUEST_METHOD": "GET", "HTTP_ACCEPT": accept}
        parts.extend(self._metrics_app(request, note))
        return _Answer(*heads[0], b"".join(parts))


def _understood(accept: str) -> str:
    # prometheus-client (0.26) compares whatever follows `version=` with numbers.
    try:
        choose_encoder(accept)
    except (TypeError, ValueError):
        return ""
    return accept


def _refuse(environ: WSGIEnvironment) -> _Answer:
    # Closing a socket that has unread bytes resets it, and the client may lose the answer.
    length = environ.get("CONTENT_LENGTH", "")
    if length.isascii() and length.isdigit():
        environ["wsgi.input"].read(min(int(length), REQUEST_BODY_BYTES))
    refusal = _text("405 Method Not Allowed", "this exporter is only read: GET or HEAD\n")
    return refusal._replace(headers=[*refusal.headers, ("Allow", "GET, HEAD")])


def _verdict(why_not: str) -> _Answer:
    if why_not:
        return _text("503 Service Unavailable", why_not + "\n")
    return _text("200 OK", "ok\n")


def _text(status: str, text: str) -> _Answer:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    return _Answer(status, headers, text.encode())

"""The exporter's pages, a WSGI application: the HUD and its stream, /metrics, /healthz and others.

Reads only, and only what `Site.snapshot` and the HUD's last picture are at that moment, so nothing
here can hold up the reception of telemetry.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic, sleep
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, make_wsgi_app

from aegis.limits import REQUEST_BODY_BYTES, SETTLE_S
from control.exporter.collector import Collector
from control.exporter.document import read_document
from control.exporter.hud import Hud
from control.exporter.readiness import why_not_ready, why_unhealthy
from control.exporter.state import Snapshot
from control.exporter.streams import limit_buffer

Keep = Callable[[Callable[[socket.socket], None]], None]

# Of every answer but the HUD's page: nothing in it is a document that could do anything.
_NO_DOCUMENT = "default-src 'none'; frame-ancestors 'none'"


class _Answer(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Site:
    """The application; `snapshot` is replaced by whoever receives telemetry."""

    def __init__(self, snapshot: Snapshot, hud: Hud) -> None:
        self.snapshot = snapshot
        self._hud = hud
        self._page = read_document()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(lambda: self.snapshot))
        self._metrics_app: WSGIApplication = make_wsgi_app(registry)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        if environ["PATH_INFO"] == "/events" and method == "GET":
            return self._events(environ, start_response)
        answer = self._get(environ) if method in {"GET", "HEAD"} else _refuse(environ)
        _start(answer, start_response)
        return [] if method == "HEAD" else [answer.body]

    def _get(self, environ: WSGIEnvironment) -> _Answer:
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ)
            case "/healthz":
                return _verdict(why_unhealthy(self.snapshot, monotonic()))
            case "/readyz":
                return _verdict(why_not_ready(self.snapshot, monotonic()))
            case "/status.json":
                return _Answer("200 OK", _headers("application/json"), self._hud.status())
            case "/events":  # HEAD
                return _Answer("200 OK", _headers("text/event-stream"), b"")
            case "/":
                policy = ("Content-Security-Policy", self._page.policy)
                headers = _headers("text/html; charset=utf-8", policy)
                return _Answer("200 OK", headers, self._page.body)
        return _text("404 Not Found", "not found; / names the pages there are\n")

    def _events(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        streams = self._hud.streams
        if not streams.admit():
            answer = _text("503 Service Unavailable", "too many pages are open already\n")
            _start(answer, start_response)
            return [answer.body]
        limit_buffer(environ["aegis.socket"])
        start_response("200 OK", _headers("text/event-stream"))
        return _Stream(self._hud, environ["aegis.keep"])

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


class _Stream:
    """The body of /events: the beginning, whose end hands the connection to the streams."""

    def __init__(self, hud: Hud, keep: Keep) -> None:
        self._hud = hud
        self._keep = keep
        self._kept = False

    def __iter__(self) -> Iterator[bytes]:
        seen, opening = self._hud.opening()
        yield opening  # within the time that any answer has, else the thread ends here
        self._kept = True
        self._keep(partial(self._hud.streams.adopt, seen=seen))

    def close(self) -> None:
        """Give the place back when it came to nothing; wsgiref calls this in any case."""
        if not self._kept:
            self._hud.streams.leave()


def _start(answer: _Answer, start_response: StartResponse) -> None:
    length = ("Content-Length", str(len(answer.body)))
    start_response(answer.status, [*answer.headers, length])


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
    return _Answer(status, _headers("text/plain; charset=utf-8"), text.encode())


def _headers(
    content_type: str, policy: tuple[str, str] = ("Content-Security-Policy", _NO_DOCUMENT)
) -> list[tuple[str, str]]:
    return [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        policy,
    ]

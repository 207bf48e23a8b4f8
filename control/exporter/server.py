"""The HTTP server: a thread per connection, of which there are only so many, none for long.

A connection has SCRAPE_TIMEOUT_S from accept to the last byte of its answer, however it spends
them; when MAX_SCRAPERS are open, the oldest makes room for the next. So a scraper that hangs costs
a thread for a while and nobody has to wait for it. One request per connection (HTTP/1.0). An
application may keep a connection that it has answered on (environ["aegis.keep"]), for a stream.
"""

import contextlib
import logging
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from socketserver import ThreadingMixIn
from time import monotonic
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication, WSGIEnvironment

from aegis.limits import MAX_SCRAPERS, SCRAPE_TIMEOUT_S

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_POLL_S = 0.5  # how late a deadline or the end may be noticed; a wake-up costs 0.1 ms

log = logging.getLogger(__name__)


class Server(ThreadingMixIn, WSGIServer):
    """Serves an application on a bound socket between `start` and `stop`."""

    daemon_threads = True

    def __init__(
        self,
        sock: socket.socket,
        application: WSGIApplication,
        *,
        timeout_s: float = SCRAPE_TIMEOUT_S,
        most: int = MAX_SCRAPERS,
    ) -> None:
        """Listen on `sock`, which may listen already; a limit other than ours is for tests."""
        name = sock.getsockname()
        super().__init__(name, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        # Another holder of the socket may be quicker to accept what select() has told us of.
        sock.setblocking(False)
        sock.listen(MAX_SCRAPERS)
        self.server_address = name
        self.server_name, self.server_port = str(name[0]), int(name[1])
        self.setup_environ()
        self.set_app(application)
        self._timeout_s, self._most = timeout_s, most
        self._open: dict[socket.socket, float] = {}  # → when accepted, the oldest first
        self._kept: dict[socket.socket, Callable[[socket.socket], None]] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL_S,), daemon=True)

    def start(self) -> None:
        """Accept in a thread of the server's own."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """False when the accepting thread has ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept no more, cut what is open, close the socket."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._changed:
            for sock in self._open:
                _cut(sock)
            self._changed.wait_for(lambda: not self._open, timeout=1.0)

    # --- connections ---------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a new connection its thread, once there is room for it."""
        with self._changed:
            while len(self._open) >= self._most:
                _cut(next(iter(self._open)))
                self._changed.wait(_POLL_S)
            self._open[request] = monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been answered or has failed, or give it to who keeps it."""
        keeper = self._kept.pop(request, None)
        if keeper is None:
            super().shutdown_request(request)
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()
        if keeper is not None:
            keeper(request)

    def keep(self, request: socket.socket, keeper: Callable[[socket.socket], None]) -> None:
        """Have `keeper` own the connection once its thread is done with it."""
        self._kept[request] = keeper

    def service_actions(self) -> None:
        """Cut the connections whose time is over."""
        overdue = monotonic() - self._timeout_s
        with self._changed:
            for sock, accepted in self._open.items():
                if accepted > overdue:
                    break
                _cut(sock)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what a connection's thread raised; a lost connection is no news."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        log.log(level, "request of %s failed", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    """Reads one request; logs none."""

    server: Server

    def get_environ(self) -> WSGIEnvironment:
        """Return the base class's and ours: the socket, and how to keep it."""
        return super().get_environ() | {
            "aegis.socket": self.connection,
            "aegis.keep": partial(self.server.keep, self.connection),
        }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        log.debug("%s: " + format, self.client_address, *args)  # noqa: G003


def _cut(sock: socket.socket) -> None:
    # shutdown(2) wakes the thread that waits in recv or send, which then closes the socket. To
    # linger for no time frees what the client did not take from the kernel's buffer (socket(7)).
    with contextlib.suppress(OSError):  # closed meanwhile
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.shutdown(socket.SHUT_RDWR)

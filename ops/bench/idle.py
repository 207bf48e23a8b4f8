"""Memory of idle sessions: the proxy's resident memory with many, less that with none.

Each session has had one request answered, so that every connection stands and every buffer that is
made lazily has been made. The kernel's memory for sockets is not in it.
"""

import contextlib
import resource
import socket
from time import monotonic, sleep
from typing import NamedTuple

from ops.bench import cpu, resp
from ops.bench.failure import MeasurementError
from ops.bench.open_loop import REQUEST, receive_answer
from ops.bench.scene import Scene

WARM_UP = 100
"""Sessions before the first reading: code paths, free lists, first tables."""
SETTLED_S = 0.3
SETTLE_DEADLINE_S = 3.0


class Size(NamedTuple):
    """How many sessions."""

    sessions: int


def open_sessions(own: contextlib.ExitStack, port: int, count: int) -> None:
    """Open sessions that live as long as `own` and have one request answered on each."""
    socks = []
    for _ in range(count):
        sock = own.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        sock.sendall(REQUEST)
        socks.append(sock)
    for sock in socks:
        receive_answer(sock)


def _settled_rss(pids: tuple[int, ...]) -> int:
    """Wait until the memory stays as it is, for a while at most; return it."""
    value, since = cpu.rss_bytes(pids), monotonic()
    give_up = since + SETTLE_DEADLINE_S
    while monotonic() - since < SETTLED_S and monotonic() < give_up:
        sleep(0.02)
        if (now := cpu.rss_bytes(pids)) != value:
            value, since = now, monotonic()
    return value


def run(scene: Scene, size: Size, _: float) -> dict[str, float]:
    """Open the sessions once."""
    if (limit := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < 2 * size.sessions + 500:
        raise MeasurementError(
            f"{size.sessions} sessions need more than the {limit} fds of this machine"
        )
    with contextlib.ExitStack() as own:
        open_sessions(own, scene.port, WARM_UP)
    before = _settled_rss(scene.proxy_pids)
    with contextlib.ExitStack() as own:
        with scene.window() as window:
            open_sessions(own, scene.port, size.sessions)
        after = _settled_rss(scene.proxy_pids)
        clients = resp.ask(scene.server_port, b"INFO", b"clients").decode()
    connected = int(clients.partition("connected_clients:")[2].split()[0])
    return {
        "bytes": (after - before) / size.sessions,
        "user": window.proxy.user_s / size.sessions * 1e6,
        "system": window.proxy.system_s / size.sessions * 1e6,
        "server": window.server.total_s / size.sessions * 1e6,
        "server_connections": float(connected),
    }

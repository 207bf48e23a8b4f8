"""Memory of idle sessions: RSS of each proxy with none and with N, and what one session costs.

    python -m ops.bench.idle_sessions [--sessions 8000]

Each session has carried one byte both ways, so that both connections stand and every buffer that
is made lazily has been made.
"""

import argparse
import socket
import tempfile
import time
from pathlib import Path

from aegis import bus
from aegis.messages import Status, StatusRequest
from ops.bench.echo import echo_server
from ops.bench.proxies import LOAD_CPU, PROXIES, installed


def open_sessions(port: int, count: int) -> list[socket.socket]:
    """Open sessions and send a byte through each and back."""
    clients = []
    for index in range(count):
        # A client address has some 28,000 ports; several addresses leave room for TIME_WAIT.
        source = f"127.0.1.{1 + index % 200}"
        client = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        client.sendall(b"x")
        clients.append(client)
    for client in clients:
        assert client.recv(1) == b"x"
    return clients


def slabs_in_use(directory: Path) -> int:
    """Ask a running Aegis how many slabs its workers hold."""
    status = bus.ask(directory / "run", StatusRequest())
    assert isinstance(status, Status)
    return sum(worker.slabs_used for worker in status.workers)


def measure(name: str, sessions: int, server_port: int) -> tuple[int, int, int | None]:
    """Return the proxy's RSS in bytes without and with the sessions, and Aegis' slabs in use."""
    with (
        tempfile.TemporaryDirectory() as directory,
        PROXIES[name](Path(directory), server_port) as (port, process),
    ):
        for client in open_sessions(port, 100):  # warm up: code paths, free lists, first tables
            client.close()
        time.sleep(1)
        before = process.memory_info().rss
        clients = open_sessions(port, sessions)
        time.sleep(1)
        after = process.memory_info().rss
        slabs = slabs_in_use(Path(directory)) if name == "aegis" else None
        for client in clients:
            client.close()
    return before, after, slabs


def main() -> None:
    """Print a row per proxy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=8000)
    sessions = parser.parse_args().sessions
    with echo_server(LOAD_CPU) as server_port:
        print(f"{sessions} idle sessions, one worker")
        print(f"{'proxy':10} {'RSS before':>14} {'RSS after':>14} {'bytes a session':>16}")
        for name in installed():
            before, after, slabs = measure(name, sessions, server_port)
            each = (after - before) / sessions
            print(
                f"{name:10} {before >> 10:>10} KiB {after >> 10:>10} KiB {each:>16.0f}"
                + (f"   slabs in use: {slabs}" if slabs is not None else "")
            )


if __name__ == "__main__":
    main()

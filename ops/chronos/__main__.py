"""Start Chronos: `python -m ops.chronos --listen HOST:PORT --data DIR`.

It prints one line when it serves, with the real port if the port was 0, and ends with exit code 0
on SIGTERM or SIGINT. What keeps it from starting is told on one line of stderr, exit code 1.
"""

import argparse
import gc
import resource
import socket
import sys
from pathlib import Path

from ops.chronos.limits import LISTEN_BACKLOG, RESERVED_FDS
from ops.chronos.server import Server, bind, stop_signals
from ops.chronos.store import Store, StoreError


class StartError(Exception):
    """Chronos cannot start; the text says why."""


def main() -> int:
    """Run until a signal ends it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="chronos", description="A small database: a line protocol and HTTP over RocksDB."
    )
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8080")
    parser.add_argument("--data", metavar="DIR", type=Path, required=True)
    options = parser.parse_args()
    try:
        serve(options.listen, options.data)
    except StartError as error:
        print(f"chronos: {error}", file=sys.stderr)
        return 1
    return 0


def serve(listen: str, data: Path) -> None:
    """Open everything, serve, close everything.

    Raises:
        StartError: the address or the directory cannot be used.
    """
    stop = stop_signals()
    host, port = parse_address(listen)
    try:
        listener = bind(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error.strerror}") from error
    try:
        store = Store(data)
    except StoreError as error:
        raise StartError(f"cannot use the data directory {data}: {error}") from error
    try:
        listener.listen(LISTEN_BACKLOG)
        server = Server(listener, store, stop.fileno(), max_clients())
        print(f"chronos: listening on {name(listener)}, data in {data}", flush=True)
        gc.freeze()  # what is here now stays; the collector need not look at it again
        server.run()
        server.close()
    finally:
        store.close()


def parse_address(listen: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or [IPV6]:PORT.

    Raises:
        StartError: it is neither.
    """
    host, colon, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    plain = port.isascii() and port.isdigit() and len(port) <= 5
    if not (colon and host and plain and int(port) < 65536 and bracketed == (":" in host)):
        raise StartError(f"--listen takes HOST:PORT or [IPV6]:PORT, not {listen!r}")
    return host, int(port)


def name(listener: socket.socket) -> str:
    """Return the address a listener is bound to, as --listen takes it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def max_clients() -> int:
    """Return how many clients leave the store the descriptors it needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return max(1, soft - RESERVED_FDS)


if __name__ == "__main__":
    sys.exit(main())

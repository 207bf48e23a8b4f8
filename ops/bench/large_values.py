"""Fetch large values over and over for some seconds: the bulk in a mix.

    python -m ops.bench.large_values --port PORT --streams N --seconds S

Each stream asks for the next value when it has the last, on one thread each; values are counted,
not kept (MSG_TRUNC, tcp(7)), only their headers and ends are compared.
"""

import argparse
import socket
import threading
from time import perf_counter

from ops.bench import generator, resp
from ops.bench.failure import MeasurementError
from ops.bench.servers import LARGE_BYTES, LARGE_KEY

REQUEST = resp.encode(b"GET", LARGE_KEY)
HEADER = b"$%d\r\n" % LARGE_BYTES
_CHUNK_BYTES = 1 << 20


def fetch(sock: socket.socket, sink: bytearray) -> None:
    """Fetch one value.

    Raises:
        MeasurementError: it was not whole, or something else came.
    """
    sock.sendall(REQUEST)
    if (header := sock.recv(len(HEADER), socket.MSG_WAITALL)) != HEADER:
        raise MeasurementError(f"a large value began with {header!r}")
    left = LARGE_BYTES
    while left:
        came = sock.recv_into(sink, min(left, _CHUNK_BYTES), socket.MSG_TRUNC)
        if not came:
            raise MeasurementError(f"a large value ended {left} bytes too soon")
        left -= came
    if (end := sock.recv(2, socket.MSG_WAITALL)) != b"\r\n":
        raise MeasurementError(f"a large value ended with {end!r}")


class Streams:
    """Connections that fetch at once, one thread each."""

    def __init__(self, port: int, count: int) -> None:
        self._socks = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
        self._values = [0] * count
        self._failures: list[str] = []

    def run(self, seconds: float) -> dict[str, float]:
        """Fetch for so long; return how much, and in what time."""
        start = perf_counter()
        threads = [
            threading.Thread(target=self._fetch_until, args=(index, start + seconds))
            for index in range(len(self._socks))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise MeasurementError(self._failures[0])
        values = sum(self._values)
        return {"seconds": perf_counter() - start, "bytes": float(values * LARGE_BYTES)}

    def _fetch_until(self, index: int, end: float) -> None:
        sink = bytearray(_CHUNK_BYTES)
        try:
            while perf_counter() < end:
                fetch(self._socks[index], sink)
                self._values[index] += 1
        except (MeasurementError, OSError) as error:
            self._failures.append(str(error))


def main() -> None:
    """Run once and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    with generator.told():
        streams = Streams(options.port, options.streams)
        generator.wait_for_go()
        generator.tell(streams.run(options.seconds))


if __name__ == "__main__":
    main()

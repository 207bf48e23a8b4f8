"""Requests at their due times, whatever the answers do: latency without coordinated omission.

    python -m ops.bench.open_loop --port PORT --connections N --rate R --seconds S

Request k is due at start + k / rate, on connection k modulo N, and is sent then even if that
connection still waits for an answer (it is pipelined). Its latency runs from when it was due to
when its answer was read, so a stall is paid by every request that fell due in it. How late this
generator itself was (`lag`, from due to just before the send) is told beside it: a figure near the
lag is the generator's, and the same run directly against the server shows what it and the server
can do. Answers are compared byte by byte.
"""

import argparse
import contextlib
import gc
import math
import select
import socket
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from ops.bench import generator, resp
from ops.bench.failure import MeasurementError
from ops.bench.servers import KEY, VALUE

REQUEST = resp.encode(b"GET", KEY)
ANSWER = b"$%d\r\n%b\r\n" % (len(VALUE), VALUE)
GRACE_S = 10.0
"""How long after the last request was due its answer may come."""
WARM_UP = 3
"""Round trips of each connection before the clock starts."""
BURST = 32
"""Requests sent before answers are looked at again, when the generator is behind."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def connect(port: int, count: int) -> list[socket.socket]:
    """Open connections and have a few requests answered on each."""
    socks = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(count)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(WARM_UP):
            sock.sendall(REQUEST)
            receive_answer(sock)
        sock.setblocking(False)
    return socks


def receive_answer(sock: socket.socket) -> None:
    """Raise MeasurementError unless the next bytes are one answer."""
    answer = sock.recv(len(ANSWER), socket.MSG_WAITALL)
    if answer and answer != ANSWER:  # say all of what came instead
        with contextlib.suppress(BlockingIOError):
            answer += sock.recv(200, socket.MSG_DONTWAIT)
    check(answer)


def check(answer: bytes) -> None:
    """Raise MeasurementError unless this is one answer."""
    if answer != ANSWER:
        raise MeasurementError(f"a request was answered with {answer[:100]!r}")


class OpenLoop:
    """One run; `latencies` and `lags` in seconds, one of each per request."""

    def __init__(self, socks: list[socket.socket], rate: float, total: int) -> None:
        self._socks = socks
        self._interval = 1 / rate
        self._total = total
        self._due: list[deque[float]] = [deque() for _ in socks]
        self._partial = [b""] * len(socks)
        self.latencies = array("d")
        self.lags = array("d")

    def run(self) -> None:
        """Send all, and wait for the answers.

        Raises:
            MeasurementError: an answer is wrong or did not come.
        """
        index_of = {sock.fileno(): index for index, sock in enumerate(self._socks)}
        epoll = select.epoll()
        for fd in index_of:
            epoll.register(fd, select.EPOLLIN)
        start = perf_counter() + 0.01
        give_up = start + self._total * self._interval + GRACE_S
        while len(self.latencies) < self._total:
            next_s = self._send_what_is_due(start)
            # epoll_wait counts milliseconds; select(2) on the epoll fd counts microseconds.
            select.select([epoll], [], [], max(0.0, min(next_s, 1.0)))
            for fd, _ in epoll.poll(0):
                self._receive(index_of[fd])
            if perf_counter() > give_up:
                lost = self._total - len(self.latencies)
                raise MeasurementError(f"{lost} of {self._total} requests had no answer")

    def _send_what_is_due(self, start: float) -> float:
        """Return in how many seconds the next one is due; all sent: a while."""
        first = sent = len(self.lags)
        while sent < self._total:
            due = start + sent * self._interval
            lag = perf_counter() - due
            if lag < 0 or sent - first == BURST:
                return -lag
            index = sent % len(self._socks)
            if self._socks[index].send(REQUEST) != len(REQUEST):
                raise MeasurementError("a request did not fit into the socket")
            self._due[index].append(due)
            self.lags.append(lag)
            sent += 1
        return 1.0

    def _receive(self, index: int) -> None:
        data = self._partial[index] + self._socks[index].recv(65_536)
        now = perf_counter()
        if not data.startswith(self._partial[index]) or data == self._partial[index]:
            raise MeasurementError("a connection was closed before its answer")
        while len(data) >= len(ANSWER):
            check(data[: len(ANSWER)])
            if not self._due[index]:
                raise MeasurementError("an answer came that nobody had asked for")
            self.latencies.append(now - self._due[index].popleft())
            data = data[len(ANSWER) :]
        self._partial[index] = data


def figures(latencies: "array[float]", lags: "array[float]") -> dict[str, float]:
    """Return percentiles in milliseconds."""
    by_size = sorted(latencies)
    late = sorted(lags)
    return {
        "p50_ms": percentile(by_size, 0.5) * 1e3,
        "p99_ms": percentile(by_size, 0.99) * 1e3,
        "p999_ms": percentile(by_size, 0.999) * 1e3,
        "max_ms": by_size[-1] * 1e3,
        "lag_p50_ms": percentile(late, 0.5) * 1e3,
        "lag_p99_ms": percentile(late, 0.99) * 1e3,
        "lag_max_ms": late[-1] * 1e3,
        "requests": float(len(by_size)),
    }


def main() -> None:
    """Run once and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    # A timer may be late by the slack, 50 us by default (prctl(2), PR_SET_TIMERSLACK).
    Path("/proc/self/timerslack_ns").write_text("1")
    with generator.told():
        socks = connect(options.port, options.connections)
        loop = OpenLoop(socks, options.rate, int(options.rate * options.seconds))
        gc.collect()
        gc.disable()
        generator.wait_for_go()
        loop.run()
        generator.tell(figures(loop.latencies, loop.lags))


if __name__ == "__main__":
    main()

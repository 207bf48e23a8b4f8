"""Clients that reconnect all the time, in a process of their own, and a count of what went wrong.

A raw client asks once and leaves. A client of a shared listener asks some times; when the proxy
closes its connection between two requests (a drain does, that is what a request boundary is for)
it asks again on a new one, and only a failure of that counts as one.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

TIMEOUT_S = 30.0
PAUSE_S = 0.25  # between two connections of a client: keeps the load below what two cores can do


@dataclass
class Counts:
    """What a load has seen."""

    requests: int = 0
    refused: int = 0
    reset: int = 0
    failed: int = 0
    """Ended or silent with an answer due, and not by a close between two requests."""
    closed_between: int = 0
    """Asked again on a new connection, because the proxy had closed between two requests."""
    slowest_s: float = 0.0
    failed_at: list[float] = field(default_factory=list)
    """Instants (CLOCK_MONOTONIC) of all that went wrong."""

    @property
    def wrong(self) -> int:
        """Everything that must not happen."""
        return self.refused + self.reset + self.failed


class _Client:
    def __init__(self, port: int, requests: int, counts: Counts, name: int) -> None:
        self._port, self._requests, self._counts = port, requests, counts
        self._name = name

    async def run(self, over: asyncio.Event) -> None:
        await asyncio.sleep(PAUSE_S * (self._name % 50) / 50)
        while not over.is_set():
            try:
                await asyncio.wait_for(self._session(), TIMEOUT_S)
            except OSError as error:
                kind = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset"}
                self._wrong(kind.get(error.errno or 0, "failed"))
            except TimeoutError:
                self._wrong("failed")
            await asyncio.sleep(PAUSE_S)

    def _wrong(self, kind: str) -> None:
        setattr(self._counts, kind, getattr(self._counts, kind) + 1)
        self._counts.failed_at.append(time.monotonic())

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for number in range(self._requests):
                began = time.monotonic()
                answered = await self._ask(reader, writer, number)
                if not answered and number:
                    self._counts.closed_between += 1
                    return await self._session()
                if not answered:
                    self._wrong("failed")
                    return None
                self._counts.requests += 1
                self._counts.slowest_s = max(self._counts.slowest_s, time.monotonic() - began)
                if self._requests > 1:
                    await asyncio.sleep(PAUSE_S / 10)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return None

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        """Ask and hear the answer; False when the connection had ended without a byte of it."""
        question = b"client %d asks %d\n" % (self._name, number)
        try:
            writer.write(question)
            await writer.drain()
            answer = await reader.readexactly(len(question))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self._wrong("failed")
            return False
        except ConnectionError:
            if number:  # it was closed before this was written: a reset answers what came late
                return False
            raise
        if answer != question:
            self._wrong("failed")
        return True


async def _load(targets: list[tuple[int, int, int]]) -> list[Counts]:
    """Run clients until standard input ends; targets are (port, clients, requests a session)."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), over.set)
    results = [Counts() for _ in targets]
    clients = [
        _Client(port, requests, counts, name).run(over)
        for (port, count, requests), counts in zip(targets, results, strict=True)
        for name in range(count)
    ]
    await asyncio.gather(*clients)
    return results


@contextlib.contextmanager
def load(*targets: tuple[int, int, int]) -> Iterator[list[Counts]]:
    """Run the clients in a process of their own; the list is filled when the context ends."""
    results: list[Counts] = []
    child = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.reconnecting", json.dumps(targets)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield results
        said, _ = child.communicate(timeout=3 * TIMEOUT_S)
        results += [Counts(**each) for each in json.loads(said)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    print(json.dumps([asdict(c) for c in asyncio.run(_load(json.loads(sys.argv[1])))]))

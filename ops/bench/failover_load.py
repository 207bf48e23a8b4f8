"""Clients that notice every failure, in a process of their own: who answered, what went wrong.

    persistent   some clients, each asks again and again on its one connection, and connects anew
                 when that is gone
    short        so many sessions a second are begun, whatever becomes of those before (an open
                 loop: a server that hangs does not slow the load that would meet it)

Every server holds its own name under the key `who`, so an answer tells which one gave it.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

ASK = {"resp": b"GET who\r\n", "line": b"GET who\n"}
PAUSE_S = 0.02  # between two requests of a persistent client
END_S = 30.0


@dataclass
class Options:
    """What a load is."""

    port: int
    protocol: str
    persistent: int = 20
    short_per_s: float = 100.0
    patience_s: float = 3.0
    """How long a client waits for a connect, or a reply."""


@dataclass
class Seen:
    """What the clients have seen. Instants are CLOCK_MONOTONIC, which all processes share."""

    answers: int = 0
    served: dict[str, list[float]] = field(default_factory=dict)
    """Server → instants of its answers to short sessions."""
    errors: list[tuple[float, str, str]] = field(default_factory=list)
    """When the request that failed was begun, by which clients, and what it met."""

    def counts(self) -> dict[str, int]:
        """Return the errors by who met what."""
        counts: dict[str, int] = {}
        for _, who, what in self.errors:
            counts[f"{who} {what}"] = counts.get(f"{who} {what}", 0) + 1
        return counts


class _FailedError(Exception):
    """A client met something that it must not."""


class _Load:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.seen = Seen()
        self.over = asyncio.Event()
        self._sessions: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run until standard input ends."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self.over.set)
        persistent = [self._persistent(number) for number in range(self.options.persistent)]
        await asyncio.gather(self._begin_short_sessions(), *persistent)
        await asyncio.gather(*self._sessions)

    async def _begin_short_sessions(self) -> None:
        at = time.monotonic() + 2 * PAUSE_S * self.options.persistent  # these come first
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), max(0.0, at - time.monotonic()))
            at += 1 / self.options.short_per_s
            task = asyncio.create_task(self._client("short", requests=1))
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)

    async def _persistent(self, number: int) -> None:
        await asyncio.sleep(PAUSE_S * number)
        while not self.over.is_set():
            await self._client("persistent", requests=sys.maxsize)
            await asyncio.sleep(PAUSE_S)

    async def _client(self, kind: str, requests: int) -> None:
        """Connect and ask so many times, or until the load is over; note what went wrong."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.options.patience_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.options.port)
        except (OSError, TimeoutError) as error:
            self.seen.errors.append((began, kind, f"connect {type(error).__name__}"))
            return
        try:
            while requests and not self.over.is_set():
                began = time.monotonic()
                who = await self._ask(reader, writer)
                self.seen.answers += 1
                requests -= 1
                if kind == "short":
                    self.seen.served.setdefault(who, []).append(time.monotonic())
                else:
                    await asyncio.sleep(PAUSE_S)
        except _FailedError as error:
            self.seen.errors.append((began, kind, str(error)))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Return the name of the server that answers."""
        try:
            async with asyncio.timeout(self.options.patience_s):
                writer.write(ASK[self.options.protocol])
                await writer.drain()
                line = (await reader.readuntil(b"\n")).strip()
                if line.startswith(b"$") and not line.startswith(b"$-"):
                    line = (await reader.readexactly(int(line[1:]) + 2)).strip()
        except TimeoutError:
            raise _FailedError("timeout") from None
        except asyncio.IncompleteReadError:
            raise _FailedError("closed") from None
        except OSError:
            raise _FailedError("reset") from None
        if not line.startswith(b"server-"):
            raise _FailedError(f"reply {line[:30]!r}")
        return line.decode()


@contextlib.contextmanager
def load(options: Options) -> Iterator[Seen]:
    """Run the clients in a process of their own; what they saw is there when the context ends."""
    seen = Seen()
    child = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.failover_load", json.dumps(asdict(options))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield seen
        said, _ = child.communicate(timeout=END_S)
        told = Seen(**json.loads(said))
        seen.answers, seen.served, seen.errors = told.answers, told.served, told.errors
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    running = _Load(Options(**json.loads(sys.argv[1])))
    asyncio.run(running.run())
    print(json.dumps(asdict(running.seen)))


if __name__ == "__main__":
    _main()

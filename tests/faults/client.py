"""One checked connection: asks, pipelines, leaves in all manners, and verifies what comes back."""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter, deque
from typing import Any

from tests.faults.asks import Ask, Talk

SILENCE_S = 15.0
"""Longer than any legitimate wait: for a pipe (3 s), behind a slow reader (5 s)."""
ENDINGS = ("all", "all", "all", "half", "close", "reset", "torn")
RST = struct.pack("ii", 1, 0)


class Accounts:
    """What all clients of a run have met."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.found: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.acked: Counter[bytes] = Counter()
        """Counter's key → increments that were answered."""
        self.unsure: Counter[bytes] = Counter()
        """Counter's key → increments that may have been done."""

    def wrong(self, what: str) -> None:
        """Note what must never happen."""
        print("FOUND", what, flush=True)
        self.found.append(what)


class Client:
    """One connection from connect to end."""

    def __init__(
        self, accounts: Accounts, address: tuple[str, int], talk: Talk, rng: random.Random
    ) -> None:
        self.accounts = accounts
        self.address = address
        self.talk = talk
        self.rng = rng
        self.due: deque[Ask] = deque()
        self.buf = bytearray()
        self.outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self.depth = rng.choice((1, 1, 2, 5, 20, 100))
        self.ending = rng.choice(ENDINGS)
        self.slow = rng.random() < 0.05
        self.piece = rng.choice((0, 0, 0, 1, 7, 50))
        self.broken = False
        """An error has come: no more is known of what this connection may expect."""
        self.history: deque[str] = deque(maxlen=30)

    async def serve(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if self.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sending = asyncio.ensure_future(self._send_all(sock))
            try:
                await self._converse(sock)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except (ConnectionError, EOFError) as error:
            self.accounts.outcomes[f"ended by {type(error).__name__}"] += 1
        finally:
            sock.close()
            for ask in self.due:
                if ask.counter:
                    self.accounts.unsure[ask.counter] += 1

    async def _converse(self, sock: socket.socket) -> None:
        left = self.rng.randint(1, 80)
        while left > 0 and not self.broken:
            batch: list[Ask] = []
            while len(batch) < self.depth and left > 0:
                asks = self.talk.next()
                batch += asks
                left = 0 if self.talk.finished else left - len(asks)
            self.due += batch
            self.accounts.asked += len(batch)
            data = b"".join(ask.data for ask in batch)
            if left <= 0 and await self._leave(sock, data):
                return
            self.outgoing.put_nowait(data)
            await self._receive(sock, 0 if left <= 0 else self.rng.randrange(self.depth))
        if not self.broken:
            await self._end(sock)

    async def _send_all(self, sock: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):  # the reader finds out
                await self._send(sock, await self.outgoing.get())
            self.outgoing.task_done()

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if not self.piece or len(data) > 500 * self.piece:
            await loop.sock_sendall(sock, data)
            return
        for at in range(0, len(data), self.piece):
            await loop.sock_sendall(sock, data[at : at + self.piece])
            if self.rng.random() < 0.3:
                await asyncio.sleep(0)

    async def _leave(self, sock: socket.socket, data: bytes) -> bool:
        """Leave in the middle, if this one does; the replies to come are nobody's."""
        if self.ending in ("all", "half"):
            return False
        if self.ending == "torn":
            data = data[: self.rng.randrange(len(data) + 1)]
        self.outgoing.put_nowait(data)
        with contextlib.suppress(TimeoutError):  # we do not read: it may not take all
            await asyncio.wait_for(self.outgoing.join(), 1)
        if self.rng.random() < 0.5 and self.ending != "torn":
            await self._receive(sock, self.rng.randrange(len(self.due) + 1))
        if self.ending == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.accounts.outcomes[self.ending] += 1
        return True

    async def _receive(self, sock: socket.socket, keep: int) -> None:
        """Check replies until only so many are due."""
        while len(self.due) > keep:
            if self.slow:
                await asyncio.sleep(self.rng.random() * 0.05)
            data = await self._read(sock, f"{len(self.due)} due, first {self.due[0].data[:60]!r}")
            if not data:
                if self.buf:
                    self.accounts.outcomes["half a reply, then the end"] += 1
                raise EOFError
            self.buf += data
            self._check()
            if self.broken:
                raise EOFError

    async def _read(self, sock: socket.socket, what: str) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.sock_recv(sock, 65_536), SILENCE_S)
        except TimeoutError:
            self._wrong(f"silence for {SILENCE_S} s with {what}")
            raise EOFError from None

    def _check(self) -> None:
        at = 0
        while at < len(self.buf) and not self.broken:
            if not self.due:
                self._wrong(f"a reply nobody asked for: {bytes(self.buf[at : at + 200])!r}")
                return
            try:
                found = self.talk.parse(self.buf, at, self.due[0])
            except (AssertionError, ValueError) as error:
                self._wrong(f"not a reply ({error})")
                return
            if found is None:
                break
            reply, at = found
            self._account(self.due.popleft(), reply)
        del self.buf[:at]

    def _account(self, ask: Ask, reply: Any) -> None:
        self.history.append(f"{ask.data[:60]!r} -> {reply!r:.60}")
        if ask.fits(reply):
            self.accounts.answered += 1
            if ask.counter:
                self.accounts.acked[ask.counter] += 1
            return
        if ask.counter:
            self.accounts.unsure[ask.counter] += 1
        why = self.talk.gave_up(reply)
        if why:
            self.accounts.outcomes[why] += 1
            self.broken = True
        else:
            self._wrong(f"to {ask.data[:80]!r} came {reply!r:.200}")

    async def _end(self, sock: socket.socket) -> None:
        if self.ending == "half" or self.talk.finished:
            if self.ending == "half":
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(EOFError):
                if rest := await self._read(sock, "the end due"):
                    self._wrong(f"bytes behind the last reply: {rest[:100]!r}")
        self.accounts.outcomes["all well"] += 1

    def _wrong(self, what: str) -> None:
        self.broken = True
        name = self.talk.who.decode()
        tail = "\n    ".join(self.history)
        self.accounts.wrong(
            f"client {name} (depth {self.depth}, {self.ending}): {what}\n    {tail}"
        )

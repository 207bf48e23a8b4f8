"""One checked connection: asks, pipelines, leaves in all manners, and verifies what comes back.

_live ─▶ yields what it waits for: so many replies due at most, SENT, or END
  ▲            │
  └── _go_on ◀─┴─ on_event ◀─ epoll        reads, checks each reply, sends what is left
"""

import contextlib
import errno
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from tests.faults.accounts import Accounts
from tests.faults.asks import Ask, Talk
from tests.faults.poller import READ, WRITE, Poller

SILENCE_S = 30.0
"""Longer than any legitimate wait (for a pipe 3 s, behind a slow reader 5 s) on a busy machine."""
PARTING_S = 1.0
"""One that leaves without reading may not get rid of all it has to say."""
ENDINGS = ("all", "all", "all", "half", "close", "reset", "torn")
DEPTHS = (1, 2, 5, 20, 50, 100)
PIECES = (1, 7, 50, 50, *[0] * 36)
"""Bytes sent at once; most clients are not slowed."""
RST = struct.pack("ii", 1, 0)
SENT, END = -1, -2


class Client:
    """One connection from connect to end; `parted` is called when it has ended."""

    def __init__(
        self,
        accounts: Accounts,
        poller: Poller,
        talk: Talk,
        rng: random.Random,
        *,
        over: Callable[[], bool],
        parted: Callable[["Client"], None],
    ) -> None:
        self.accounts = accounts
        self.poller = poller
        self.talk = talk
        self.rng = rng
        self._over = over
        self._parted = parted
        self.due: deque[Ask] = deque()
        self._buf = bytearray()
        self._out = bytearray()
        self._depth = rng.choice(DEPTHS)
        self._ending = rng.choice(ENDINGS)
        self._slow = rng.random() < 0.05
        self._piece = rng.choice(PIECES)
        self.broken = False
        """An error has come: no more is known of what this connection may expect."""
        self._history: deque[tuple[bytes, Any]] = deque(maxlen=30)
        self._life = self._live()
        self._until = SENT
        self._connected = self._ended = self._paused = self._gone = False
        self._mask = WRITE
        self._asked_at = poller.now
        self._deadline = poller.now + SILENCE_S
        self._sock = socket.socket()

    def begin(self, address: tuple[str, int]) -> None:
        """Connect; everything else comes by events."""
        self._sock.setblocking(False)
        if self._slow:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self._sock.connect_ex(address)
        if code in {0, errno.EINPROGRESS}:
            self.poller.add(self._sock.fileno(), WRITE, self.on_event)
        else:
            self._end(f"ended by {errno.errorcode.get(code, code)}")

    # --- what it does --------------------------------------------------------------------------

    def _live(self) -> Generator[int, None, None]:
        left = int(2 ** self.rng.uniform(0, 9))
        while left > 0 and not self.broken:
            batch: list[Ask] = []
            while len(batch) < self._depth and left > 0:
                asks = self.talk.next()
                batch += asks
                left = 0 if self.talk.finished or self._over() else left - len(asks)
            self.due += batch
            self.accounts.asked += len(batch)
            data = b"".join([ask.data for ask in batch])
            if left <= 0 and self._ending not in ("all", "half"):
                yield from self._leave(data)
                return
            self._say(data)
            yield 0 if left <= 0 else self.rng.randrange(self._depth)
        if self._ending == "half":
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        if self._ending == "half" or self.talk.finished:
            yield END
        self.accounts.outcomes["all well"] += 1

    def _leave(self, data: bytes) -> Iterator[int]:
        """Leave in the middle; the replies to come are nobody's."""
        if self._ending == "torn":
            data = data[: self.rng.randrange(len(data) + 1)]
        self._say(data)
        yield SENT
        if self.rng.random() < 0.5 and self._ending != "torn":
            yield self.rng.randrange(len(self.due) + 1)
        if self._ending == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.accounts.outcomes[self._ending] += 1

    def _say(self, data: bytes) -> None:
        self._out += data
        self._asked_at = self.poller.now
        self._send()

    # --- events --------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """Read, check, send; go on when what is waited for has come."""
        try:
            if not self._connected:
                self._check_connect()
            if mask & WRITE:
                self._send()
            if mask & ~WRITE and not self._paused:
                self._receive()
            self._go_on()
        except EOFError:
            self._end("ended by the end")
        except ConnectionError as error:
            self._end(f"ended by {errno.errorcode.get(error.errno or 0, 'an error')}")

    def _check_connect(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ConnectionError(code, errno.errorcode.get(code, code))
        self._connected = True

    def _send(self) -> None:
        """Send what is taken; in pieces, some of them in a turn of their own."""
        out, piece = self._out, self._piece
        if len(out) > 100 * piece:
            piece = len(out)
        if out and self._until != SENT:
            self._deadline = max(self._deadline, self.poller.now + SILENCE_S)
        while out:
            try:
                del out[: self._sock.send(out[:piece] if piece < len(out) else out)]
            except BlockingIOError:
                return
            except OSError:  # the reader finds out
                out.clear()
            if self.rng.random() < 0.3:
                return

    def _receive(self) -> None:
        try:
            data = self._sock.recv(262_144)
        except BlockingIOError:
            return
        now = self.poller.now
        self.accounts.longest_wait_s = max(self.accounts.longest_wait_s, now - self._asked_at)
        self._asked_at = now
        self._deadline = now + SILENCE_S
        if not data:
            if self._until != END:
                if self._buf:
                    self.accounts.outcomes["half a reply, then the end"] += 1
                raise EOFError
            self._ended = True
            return
        self._buf += data
        self._check()
        if self.broken:
            raise EOFError
        if self._slow:
            self._paused = True
            self.poller.later(self.rng.random() * 0.05, self._unpause)

    def _unpause(self) -> None:
        self._paused = False
        if not self._gone:
            self._register()

    def _go_on(self) -> None:
        while self._met():
            self._until = next(self._life, END - 1)
            self._deadline = self.poller.now + (PARTING_S if self._until == SENT else SILENCE_S)
            if self._until < END:
                self._end("")
                return
        self._register()

    def _met(self) -> bool:
        if self._until >= 0:
            return len(self.due) <= self._until
        if self._until == SENT:  # we do not read: it may not take all
            return not self._out or self.poller.now >= self._deadline
        return self._ended

    def _register(self) -> None:
        reads = not (self._paused or self._until == SENT or self._ended)
        mask = (READ if reads else 0) | (WRITE if self._out else 0)
        if mask != self._mask:
            self._mask = mask
            self.poller.change(self._sock.fileno(), mask)

    def expire(self) -> None:
        """Note a silence that nothing explains; look now and then."""
        if self._gone or self.poller.now < self._deadline:
            return
        if self._until == SENT and self._connected:
            self.on_event(0)
            return
        first = self.due[0].data[:60] if self.due else b""
        self._wrong(f"silence for {SILENCE_S} s with {len(self.due)} due, first {first!r}")
        self._end("silence")

    def _end(self, outcome: str) -> None:
        self._gone = True
        if outcome:
            self.accounts.outcomes[outcome] += 1
            self.broken = True
        self.poller.remove(self._sock.fileno())
        self._sock.close()
        for ask in self.due:
            if ask.counter:
                self.accounts.unsure[ask.counter] += 1
        self._life.close()
        self._parted(self)

    # --- replies -------------------------------------------------------------------------------

    def _check(self) -> None:
        at, buf, due, parse = 0, self._buf, self.due, self.talk.parse
        while at < len(buf) and not self.broken:
            if not due:
                self._wrong(f"a reply nobody asked for: {bytes(buf[at : at + 200])!r}")
                return
            try:
                found = parse(buf, at, due[0])
            except (AssertionError, ValueError) as error:
                self._wrong(f"not a reply ({error})")
                return
            if found is None:
                break
            reply, at = found
            self._account(due.popleft(), reply)
        del buf[:at]

    def _account(self, ask: Ask, reply: Any) -> None:
        self._history.append((ask.data, reply))
        if ask.fits(reply):
            self.accounts.answered += 1
            if ask.counter:
                self.accounts.acked[ask.counter] += 1
            return
        if ask.counter:
            self.accounts.unsure[ask.counter] += 1
        why = self.talk.gave_up(reply)
        if why:
            self.accounts.outcomes[why.partition(": /")[0]] += 1  # without the name of a file
            self.broken = True
        else:
            self._wrong(f"to {ask.data[:80]!r} came {reply!r:.200}")

    def _wrong(self, what: str) -> None:
        self.broken = True
        name = self.talk.who.decode()
        tail = "\n    ".join(f"{data[:60]!r} -> {reply!r:.60}" for data, reply in self._history)
        self.accounts.wrong(
            f"client {name} (depth {self._depth}, {self._ending}): {what}\n    {tail}"
        )

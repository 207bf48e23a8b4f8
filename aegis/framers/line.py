r"""The line protocol, Chronos's: one line in, one line out.

    PING\n SET key value\n \n GET key\n   ─▶  PONG\n OK\n value\n

A line ends with ``\n``; an empty one, ``\n`` or ``\r\n``, gets no reply, every other exactly one.
No command leaves anything behind on its connection, so all are shared, those of the future too.
What is kept away from a shared pipe is HTTP: Chronos speaks it on the same port, to a connection
whose first line looks like a request line. Any line may become the first on a fresh pipe.

Source: ops/chronos/lines.py (lines, replies), ops/chronos/client.py (HTTP_LINE, BLANK_LINES).
"""

import re

from aegis.framers.contract import (
    ProtocolError,
    QuickLook,
    Replies,
    Requests,
    Setup,
    Special,
    Verdict,
)
from aegis.framers.simple import SimpleFramer, SimpleReplies, SimpleRequests

MAX_LINE_BYTES = 1 << 20
"""Of a request without its line end. Chronos answers a longer one with an error and closes the
connection (ops/chronos/limits.py), which others share."""
IN_FLIGHT = 1024
"""Requests on one pipe without a reply: more than a pipe's round trip holds, and it bounds how
many clients wait behind one slow line."""
TAIL_BYTES = 64
"""Of a line too long to be held, what is kept to tell at its end whether it asks for HTTP."""

# Chronos's HTTP_LINE, though that wants no other \r in the line. A line that begins with SET is
# never HTTP, its value may be anything.
HTTP_LINE = re.compile(rb"(?!SET )[^\n]* HTTP/[0-9.]+\r?\n")
HTTP_TAIL = re.compile(rb" HTTP/[0-9.]+\r?\n")
UNTELLABLE_TAIL = re.compile(rb"[ HTP/]{0,6}[0-9.]+\r?\n")  # of TAIL_BYTES: " HTTP/" was cut off
# One line that is not empty, has no CR and nothing of HTTP in it.
QUICK_LINE = re.compile(rb"[^\x00-\x0d](?:[^\n\rH]|H(?!TTP/)){0,1000}+\n").fullmatch
QUICK_REPLY = re.compile(rb"[^\n]{0,1000}+\n").match
SET = b"SET "
LINE_FEED = b"\n"
HTTP = b" HTTP/"
ERROR = b"ERR "


class LineRequests(SimpleRequests):
    """Follows the lines of one client."""

    __slots__ = ("_followed", "_head", "_seen", "_tail", "need")

    def __init__(self) -> None:
        self.need = 1
        self._seen = 0  # of an incomplete line: its first bytes, known to hold no line feed
        self._followed = 0  # of a line that is followed: the bytes that went by
        self._head = b""
        self._tail = b""

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, Special | None]:
        """See `contract.Requests.scan`."""
        stop = data.rfind(LINE_FEED, start + self._seen, end) + 1
        if not stop:
            if end - start > MAX_LINE_BYTES + 1:  # its \r may be there already
                raise ProtocolError(f"a line longer than {MAX_LINE_BYTES} bytes", "too_long")
            self._wait(end - start)
            return start, 0, None
        self._seen = 0
        if (
            stop - start <= MAX_LINE_BYTES
            and data[start] > 13  # neither \n nor \r
            and data.find(b"\n\n", start, stop) < 0
            and data.find(b"\n\r", start, stop) < 0
            and data.find(HTTP, start, stop) < 0
        ):
            if stop < end:
                self._wait(end - stop)
            return stop, data.count(LINE_FEED, start, stop), None
        return self._scan_each(data, start, stop, end)

    def _scan_each(
        self, data: bytearray, start: int, stop: int, end: int
    ) -> tuple[int, int, Special | None]:
        """Look at every line in data[start:stop], which ends with a line's end."""
        find = data.find
        at, replies = start, 0
        while at < stop:
            line_end = find(LINE_FEED, at, stop)
            size = line_end - at
            if size == 0 or (size == 1 and data[at] == 13):
                at = line_end + 1
                continue
            if size > MAX_LINE_BYTES and size - (data[line_end - 1] == 13) > MAX_LINE_BYTES:
                if at == start:
                    raise ProtocolError(f"a line longer than {MAX_LINE_BYTES} bytes", "too_long")
                return at, replies, Special(Verdict.REFUSE, end, "too_long", error("line too long"))
            if HTTP_LINE.match(data, at, line_end + 1):
                why = "an HTTP request on the line protocol's port"
                return at, replies, Special(Verdict.REFUSE, line_end + 1, "http", error(why))
            at = line_end + 1
            replies += 1
        if stop < end:
            self._wait(end - stop)
        return stop, replies, None

    def _wait(self, seen: int) -> None:
        """Note that a line has begun, and how much of it is there."""
        self._seen = seen
        self.need = seen + 1

    def follow(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """See `contract.Requests.follow`; every line it lets by is owed one reply."""
        self._seen = 0
        stop = data.find(LINE_FEED, start, end) + 1 or end
        head = self._head
        if len(head) < len(SET):
            head = self._head = head + bytes(data[start : min(stop, start + len(SET) - len(head))])
        self._followed += stop - start
        self._tail = (self._tail + bytes(data[max(start, stop - TAIL_BYTES) : stop]))[-TAIL_BYTES:]
        tail, followed = self._tail, self._followed
        done = tail.endswith(LINE_FEED)
        line_end = (2 if tail.endswith(b"\r\n") else 1) if done else 1  # not done: a \r, perhaps
        if followed - line_end > MAX_LINE_BYTES:
            raise ProtocolError(f"a line longer than {MAX_LINE_BYTES} bytes", "too_long")
        if done:
            untellable = followed > TAIL_BYTES and UNTELLABLE_TAIL.match(tail)
            if head != SET and (untellable or HTTP_TAIL.search(tail)):
                raise ProtocolError("an HTTP request on the line protocol's port", "http")
            self._followed = 0
            self._head = self._tail = b""
        return stop, done


class LineReplies(SimpleReplies):
    """Counts the reply lines on one pipe."""

    __slots__ = ("_head", "failed")

    def __init__(self) -> None:
        self.failed = False
        self._head = b""  # of a line that has begun: as much as tells an error

    def feed(
        self,
        data: bytearray,
        start: int,
        end: int,
        limit: int,
        note: int,  # noqa: ARG002 - the contract's
    ) -> tuple[int, int]:
        """See `contract.Replies.feed`."""
        if not limit:
            return start, 0
        replies = data.count(LINE_FEED, start, end)
        if replies <= limit:
            line_end = data.rfind(LINE_FEED, start, end)
        else:
            replies = limit
            line_end = start - 1
            for _ in range(limit):
                line_end = data.find(LINE_FEED, line_end + 1, end)
        stop = end if replies < limit else line_end + 1
        if not replies:
            self._begin(data, start, stop)
            return stop, 0
        before = data.rfind(LINE_FEED, start, line_end) + 1
        if before or not self._head:
            self.failed = data.startswith(ERROR, before or start, line_end)
        else:
            self.failed = (self._head + data[start : start + len(ERROR)]).startswith(ERROR)
        self._head = b""
        self._begin(data, line_end + 1, stop)
        return stop, replies

    def _begin(self, data: bytearray, start: int, stop: int) -> None:
        """Keep the beginning of a line in data[start:stop], which holds no line's end."""
        missing = len(ERROR) - len(self._head)
        if missing and start < stop:
            self._head += bytes(data[start : min(stop, start + missing)])

    @property
    def begun(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._head)


class Line(SimpleFramer):
    """The framer `line`."""

    name = "line"
    in_flight = IN_FLIGHT
    ping = b"PING\n"
    quick_request: QuickLook = staticmethod(QUICK_LINE)
    quick_reply: QuickLook = staticmethod(QUICK_REPLY)
    reset = Setup(ping, 1)  # there is nothing to undo; that PONG comes shows that no more was due

    def requests(self) -> Requests:
        """Make the parser for a new client."""
        return LineRequests()

    def replies(self) -> Replies:
        """Make the parser for a new pipe."""
        return LineReplies()

    def error(self, why: str) -> bytes:
        """Return `ERR why`."""
        return error(why)


def error(why: str) -> bytes:
    """Return the protocol's error; a line break in `why` would make two replies of it."""
    return b"ERR %s\n" % " ".join(why.split()).encode("ascii", "replace")

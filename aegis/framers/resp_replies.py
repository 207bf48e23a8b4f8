r"""RESP2 and RESP3 replies: where they end.

    :1\r\n   $5\r\nhello\r\n   *2\r\n:1\r\n:2\r\n   |1\r\n+ttl\r\n:3600\r\n+OK\r\n

A reply is counted, not built. `due` is how many values are still to come until it is complete: a
value takes one off, an aggregate adds its elements, an attribute (``|``) adds its own and takes
none off, for the value it speaks of follows. So any nesting costs one number, and needs no limit.

A push (``>``) belongs to nobody: on a pipe that several clients share it breaks the protocol.
Streamed strings and aggregates (``$?``, ``*?``) are in the specification and sent by no server.

Source: RESP3.md in github.com/redis/redis-specifications; addReply* in redis/src/networking.c.
"""

import re

from aegis.framers.contract import ProtocolError
from aegis.framers.resp_patterns import SMALL_BULK
from aegis.framers.simple import SimpleReplies

MAX_HEADER_BYTES = 32
"""Of a line that holds a number; nothing of other lines is kept but their first and last byte."""

_LINE = r"[+\-,(][^\r\n]*\r\n|:[+-]?[0-9]{1,20}\r\n|\$-1\r\n|\*-1\r\n|[*~%]0\r\n|_\r\n|#[tf]\r\n"
# One whole value that holds no others; of a bulk string that is not small only the header, its
# length captured.
VALUE = re.compile(rf"(?:{SMALL_BULK}|{_LINE}|\$([1-9][0-9]{{1,9}})\r\n)".encode(), re.DOTALL).match
SMALL_VALUE = re.compile(rf"(?:{SMALL_BULK}|{_LINE})".encode(), re.DOTALL).match
EIGHT_VALUES = re.compile(rf"(?:{SMALL_BULK}|{_LINE}){{8}}".encode(), re.DOTALL).match
HEADER = re.compile(
    rb"(?:(?P<bytes>[$!=])|(?P<values>[*~])|(?P<pairs>%)|(?P<attributes>\|))"
    rb"(?P<number>0|[1-9][0-9]{0,9})\r\n"
).fullmatch
LONE_LINE = re.compile(_LINE.encode()).fullmatch
OPEN_LINES = b"+-,("  # of any length
KINDS = b"+-:$*_#,(!=%~|"
PUSH = 62  # >
ERRORS = b"-!"
CRLF = b"\r\n"


class RespReplies(SimpleReplies):
    """Follows the replies on one pipe."""

    __slots__ = ("_begun", "_deep", "_due", "_kind", "_left", "failed")

    def __init__(self) -> None:
        self.failed = False
        self._due = 0  # values until the reply that has begun is complete; 0 between replies
        self._deep = False  # an aggregate is the reply that has begun, or part of it
        self._left = 0  # of a string: its bytes still to come, and its line end's
        self._kind = 0  # the first byte of the value under way
        self._begun = b""  # a line that is not whole

    def feed(
        self,
        data: bytearray,
        start: int,
        end: int,
        limit: int,
        note: int,  # noqa: ARG002 - the contract's
    ) -> tuple[int, int]:
        """See `contract.Replies.feed`."""
        if self._due:
            return self._feed_any(data, start, end, limit, 0)
        value = VALUE
        pos, replies, last = start, 0, -1
        while replies < limit and pos < end:
            match = value(data, pos, end)
            if match is None:
                break
            stop = match.end()
            if match.lastindex:
                stop += int(match[1]) + 2
                if stop > end or data[stop - 2] != 13 or data[stop - 1] != 10:
                    break
            last = pos
            pos = stop
            replies += 1
        if last >= 0:
            self.failed = data[last] == 45  # -
        if pos < end and replies < limit:
            return self._feed_any(data, pos, end, limit, replies)
        return pos, replies

    @property
    def begun(self) -> bool:
        """Whether a reply has begun and not ended."""
        return self._due > 0

    def _feed_any(
        self, data: bytearray, pos: int, end: int, limit: int, replies: int
    ) -> tuple[int, int]:
        """As `feed`, for replies of all kinds and in pieces; `replies` have ended before `pos`."""
        value, eight_values = VALUE, EIGHT_VALUES
        while pos < end and replies < limit:
            if self._left:
                pos = self._string(data, pos, end)
                whole = not self._left
            elif self._begun:
                pos, whole = self._line(data, pos, end)
            elif self._due > 8 and (match := eight_values(data, pos, end)):
                pos = match.end()
                self._due -= 8  # at least one is left
                continue
            elif match := value(data, pos, end):
                self._due = self._due or 1
                self._kind = data[pos]
                pos = match.end()
                whole = not match.lastindex
                if not whole:
                    self._left = int(match[1]) + 2
            else:
                pos, whole = self._line(data, pos, end)
            if whole:
                self._due -= 1
                if not self._due:
                    self.failed = self._kind in ERRORS and not self._deep
                    self._deep = False
                    replies += 1
        return pos, replies

    def _string(self, data: bytearray, pos: int, end: int) -> int:
        """Pass over the string under way; returns the index behind what there is of it."""
        left = self._left
        stop = min(pos + left, end)
        line_end = pos + left - 2
        if stop > line_end:
            at = max(line_end, pos)
            if data[at:stop] != CRLF[at - line_end : stop - line_end]:
                raise ProtocolError("a string is longer than it says")
        self._left = left - (stop - pos)
        return stop

    def _line(self, data: bytearray, pos: int, end: int) -> tuple[int, bool]:
        """Take a line, in pieces; returns the index behind it and whether it is a whole value."""
        if not self._begun:
            kind = self._kind = data[pos]
            if kind not in KINDS:
                push = kind == PUSH
                raise ProtocolError("a push, on a shared pipe" if push else "not a reply's type")
            self._due = self._due or 1
        stop = data.find(b"\n", pos, end) + 1
        line = self._begun + bytes(data[pos : stop or end])
        if not stop:
            inside, last = line[1:-1], line[-1:]
            if b"\r" in inside or (self._kind not in OPEN_LINES and len(line) > MAX_HEADER_BYTES):
                raise ProtocolError("a line that does not end in CRLF, or too long a number")
            self._begun = line[:1] + last if self._kind in OPEN_LINES and inside else line
            return end, False
        self._begun = b""
        if LONE_LINE(line):
            return stop, True
        header = HEADER(line)
        if header is None:
            raise ProtocolError("not a reply's first line")
        number = int(header["number"])
        if header["bytes"]:
            self._left = number + 2
            return stop, False
        if header["attributes"]:
            self._due += 2 * number
            return stop, False
        if self._due == 1:
            self._deep = True
        self._due += 2 * number if header["pairs"] else number
        return stop, True

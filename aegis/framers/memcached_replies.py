"""Follows the replies on one memcached pipe; each tells by itself where it ends.

    VALUE … ⏎ data ⏎ VALUE … END │ VA size … ⏎ data ⏎ │ STAT … STAT … END │ one line

An error line may stand for any reply and may cut off the VALUEs of one. Three kinds of error are
not replies that can be counted on, and break the pipe: see _UNCOUNTED.
Source: doc/protocol.txt, and proto_text.c and memcached.c of memcached 1.6.18.
"""

import re

from aegis.framers.contract import ProtocolError
from aegis.framers.memcached_lines import pass_block
from aegis.framers.simple import SimpleReplies

MAX_REPLY_LINE_BYTES = 8192
"""The longest are those of STAT with a path (PATH_MAX 4096); WRITE_BUFFER_SIZE is 1024."""

_REST = rb"[^\r\n]{0,8000}+"
_VALUE = rb"VALUE [!-~\x80-\xff]{1,250}+ \d{1,20}+ (\d{1,10}+)(?: \d{1,20}+)?+\r\n"
_VA = rb"VA (\d{1,10}+)(?: " + _REST + rb")?+\r\n"
_ONE = (
    rb"(?:END|STORED|HD(?: %(rest)b)?+|DELETED|NOT_FOUND|NOT_STORED|TOUCHED|EXISTS|OK|MN"
    rb"|(?:EN|NF|NS|EX)(?: %(rest)b)?+|\d{1,20}+ {0,20}+|RESET|VERSION %(rest)b|ME %(rest)b)\r\n"
    % {b"rest": _REST}
)
_SIMPLE = re.compile(rb"%b|%b|%b" % (_VALUE, _VA, _ONE)).match
_VALUE_LINE = re.compile(_VALUE).match
_VA_LINE = re.compile(_VA).match
_ONE_LINE = re.compile(_ONE).match
_STAT_LINE = re.compile(rb"STAT " + _REST + rb"\r\n").match
_ERROR_LINE = re.compile(rb"(?:ERROR|(?:(?:CLIENT|SERVER)_)?ERROR " + _REST + rb")\r\n").match
_UNCOUNTED = re.compile(
    # to nobody's request, and then the server closes (conn_new's maxconns_fast)
    rb"ERROR Too many open connections"
    # -Y: the server takes every line for a login, and bodies for lines
    rb"|CLIENT_ERROR (?:unauthenticated|authentication failure|bad authentication token format"
    rb"|auth token too long|bad command line termination)"
    # replies of earlier requests may have been thrown away with it (conn_release_items), or it
    # stands for a request that was never read
    rb"|SERVER_ERROR out of memory (?:writing get|reading|preparing|making)"
).match

_VALUE_ENDING = b"\r\nEND\r\n"


class MemcachedReplies(SimpleReplies):
    """Replies of the contract."""

    __slots__ = ("_block", "_left", "_line", "_open", "failed")

    def __init__(self) -> None:
        self.failed = False
        self._open = False  # a reply has begun
        self._block = b""  # VALUE or STAT: more lines of that kind, or END, follow
        self._left = 0  # of a data block, its CRLF included
        self._line = bytearray()  # of a line whose end has not come

    def feed(self, data: bytearray, start: int, end: int, limit: int, note: int) -> tuple[int, int]:  # noqa: ARG002
        """See contract.Replies."""
        pos = start
        replies = 0
        if self._open and limit:
            pos = self._go_on(data, pos, end)
            if self._open:
                return end, 0
            replies = 1
        while replies < limit and pos < end:
            simple = _SIMPLE(data, pos, end)
            if simple is not None:
                which = simple.lastindex
                if which is None:
                    pos = simple.end()
                    replies += 1
                    self.failed = False
                    continue
                block_end = simple.end() + int(simple[which])
                ending = _VALUE_ENDING if which == 1 else b"\r\n"
                stop = block_end + len(ending)
                if stop <= end and data[block_end:stop] == ending:
                    pos = stop
                    replies += 1
                    self.failed = False
                    continue
            self._open = True
            pos = self._go_on(data, pos, end)
            if self._open:
                break
            replies += 1
        return pos, replies

    @property
    def begun(self) -> bool:
        """Whether a reply has begun and not ended."""
        return self._open

    def _go_on(self, data: bytearray, pos: int, end: int) -> int:
        """Pass over the rest of the reply that has begun; it is open still if it goes on."""
        line = self._line
        while pos < end:
            if self._left:
                pos, self._left = pass_block(data, pos, end, self._left)
                if not self._left and not self._block:
                    self._open = False
                    return pos
                continue
            value = None if line or self._block == b"STAT" else _VALUE_LINE(data, pos, end)
            if value is not None:
                self._block = b"VALUE"
                pos = value.end()
                stop = pos + int(value[1]) + 2
                if stop <= end and data[stop - 2 : stop] == b"\r\n":
                    pos = stop
                else:
                    self._left = stop - pos
                continue
            newline = data.find(b"\n", pos, end)
            stop = end if newline < 0 else newline + 1
            line += data[pos:stop]
            pos = stop
            if len(line) > MAX_REPLY_LINE_BYTES:
                raise ProtocolError("a reply's line that is too long", "too_long")
            if newline >= 0:
                whole = bytes(line)
                line.clear()
                self._read_line(whole)
                if not self._open:
                    return pos
        return pos

    def _read_line(self, line: bytes) -> None:
        """Take a whole line, with its end, of the reply that is open."""
        block = self._block
        value = _VALUE_LINE(line)
        if value is not None and block != b"STAT":
            self._block = b"VALUE"
            self._left = int(value[1]) + 2
            return
        if _STAT_LINE(line) and block != b"VALUE":
            self._block = b"STAT"
            return
        failed = _ERROR_LINE(line) is not None
        if failed and _UNCOUNTED(line):
            raise ProtocolError(f"the server says {line[:80]!r}")
        va = None if block else _VA_LINE(line)
        if va is not None:
            self._left = int(va[1]) + 2
            self.failed = False
            return
        if not failed and (line != b"END\r\n" if block else _ONE_LINE(line) is None):
            raise ProtocolError(f"not a reply: {line[:80]!r}")
        self._block = b""
        self._open = False
        self.failed = failed

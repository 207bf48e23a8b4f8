"""Follows one client's memcached requests: runs of ordinary ones by pattern, the rest by `judge`.

    data ──_RUN──▶ lines that are shared as they stand, counted by their newlines
         ──_STORE─▶ a line with a body, framed by its length and held to its CRLF
         ──judge──▶ everything else; one with `noreply` is returned alone, to be sent without

A scan never raises: what is wrong becomes a REFUSE in its turn.
"""

import re

from aegis.framers.contract import ProtocolError, Setup, Special, Verdict
from aegis.framers.memcached_lines import (
    BINARY,
    BODY_UNENDED,
    KEY,
    LINE_TOO_LONG,
    MALFORMED,
    MAX_GET_KEYS,
    MAX_GET_LINE_BYTES,
    MAX_KEY_BYTES,
    MAX_LINE_BYTES,
    MAX_META_FLAGS,
    NOREPLY,
    NOREPLY_WORD,
    Ruling,
    judge,
    keys_are_sound,
    pass_block,
)
from aegis.framers.simple import SimpleRequests

PLAIN_SETUP = Setup(b"version\r\n", 1)
"""A server that wants a login (-Y) answers every first request with CLIENT_ERROR, and one that is
full sends an ERROR unasked: such a pipe is closed before it is shared. A login would be everyone's.
"""
META_SETUP = Setup(b"ms aegis:probe 0 C1\r\n\r\n", 1)
"""Before 1.6.10 `ms` had another form, or there was none: the body would be read as commands; and
the replies of mg, md and ma looked otherwise. This asks for the form of 1.6.10 and stores nothing:
the key is not there, or not with that CAS value. Older servers answer with an error, which closes
the pipe."""

_FLAG = rb" [cCDEfFhIJklLMNOPRstTuvx][!-~\x80-\xff]{0,64}+"  # without b: judge looks at b with k
_FLAGS = rb"(?:%b){0,%d}+" % (_FLAG, MAX_META_FLAGS)
_RUN = (
    rb"(?:(?:gets?+(?: %(key)b){1,%(keys)d}+%(meta)b"
    rb"|delete %(key)b"
    rb"|(?:incr|decr) %(key)b \d{1,20}+"
    rb"|touch %(key)b -?\d{1,10}+"
    rb"|gats?+ -?\d{1,10}+(?: %(key)b){1,7}+"  # 7 of the longest fit MAX_LINE_BYTES
    rb"|mn|version)(?<! noreply)\r\n)++"
)
_META = rb"|m[gda] %b%b" % (KEY, _FLAGS)
_PLAIN_RUN = re.compile(_RUN % {b"key": KEY, b"keys": MAX_GET_KEYS, b"meta": b""}).match
_META_RUN = re.compile(_RUN % {b"key": KEY, b"keys": MAX_GET_KEYS, b"meta": _META}).match
_STORE = re.compile(
    rb"(?:(?:set|add|replace|append|prepend) %(key)b %(tail)b"
    rb"|cas %(key)b %(tail)b \d{1,19}+|ms %(key)b (\d{1,9}+)%(flags)b)\r\n"
    % {b"key": KEY, b"tail": rb"\d{1,9}+ -?(?:[01]\d{9}|\d{1,9}) (\d{1,9}+)", b"flags": _FLAGS}
).match
_META_SET = 3  # the group
_BINARY_MAGIC = 0x80


class MemcachedRequests(SimpleRequests):
    """Requests of the contract. Nothing is ever pinned: what cannot be shared gets a tunnel."""

    __slots__ = ("_left", "_line", "_line_bytes", "_match_run", "_seen", "discard", "forward",
                 "need", "setup")  # fmt: skip

    def __init__(self) -> None:
        self.setup = PLAIN_SETUP
        self.need = 1
        self.forward = None
        self.discard = False
        self._match_run = _PLAIN_RUN
        self._seen = 0  # of an incomplete line: bytes known to hold no newline
        self._left = 0  # of a followed request's body
        self._line = bytearray()  # of a followed request's line
        self._line_bytes = 0

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, Special | None]:
        """See contract.Requests."""
        pos = start
        replies = 0
        self.forward = None
        self.discard = False
        if self._seen:
            if data.find(b"\n", start + self._seen, end) < 0:
                return start, 0, self._incomplete_line(data, start, end)
            self._seen = 0
        match_run = self._match_run
        while pos < end:
            run = match_run(data, pos, end)
            if run is not None:
                stop = run.end()
                replies += data.count(b"\n", pos, stop)
                pos = stop
                if pos == end:
                    break
            store = _STORE(data, pos, end)
            if store is not None:
                body = store.end()
                which = store.lastindex
                size = int(store[which]) + 2  # type: ignore[index]  # one of the three matched
                meta = which == _META_SET
            else:
                newline = data.find(b"\n", pos, end)
                if newline < 0:
                    return pos, replies, self._incomplete_line(data, pos, end)
                ruling = _rule(data, pos, newline)
                body = newline + 1
                if ruling.verdict is not None:
                    return pos, replies, _special(ruling, body)
                if ruling.discard:
                    self.need = 0
                    if replies:
                        return pos, replies, None
                    return self._unheard(data, pos, body, body + ruling.body_bytes, end)
                size = ruling.body_bytes
                meta = ruling.meta
            stop = body + size
            if stop > end:
                self.need = stop - pos
                if meta:
                    self.setup = META_SETUP  # if it is to be followed, then on such a pipe
                break
            if size and (data[stop - 2] != 13 or data[stop - 1] != 10):
                return pos, replies, _special(BODY_UNENDED, stop)
            if meta and match_run is _PLAIN_RUN:
                self._match_run = _META_RUN
                self.setup = META_SETUP
                return pos, replies, Special(Verdict.SWITCH, stop, "meta")
            replies += 1
            pos = stop
        return pos, replies, None

    def _unheard(
        self, data: bytearray, pos: int, body: int, stop: int, end: int
    ) -> tuple[int, int, Special | None]:
        """Return the request data[pos:stop], whose line ends at `body` and in noreply."""
        if stop > end:
            self.need = stop - pos
            return pos, 0, None
        if stop > body and (data[stop - 2] != 13 or data[stop - 1] != 10):
            return pos, 0, _special(NOREPLY, stop)  # what comes of it the server alone knows
        self.forward = _without_noreply(data, pos, body) + data[body:stop]
        self.discard = True
        return stop, 1, None

    def _incomplete_line(self, data: bytearray, pos: int, end: int) -> Special | None:
        """Look at a line whose end has not come, and remember how far it is known."""
        wrong = _first_byte(data[pos])
        if wrong is not None:
            return _special(wrong, end)
        length = end - pos
        limit = MAX_GET_LINE_BYTES if _is_get(data, pos, end) else MAX_LINE_BYTES
        if length >= limit:
            return _special(LINE_TOO_LONG, end)
        self._seen = length
        self.need = length + 1
        return None

    def follow(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """See contract.Requests. One reply is owed, or ProtocolError.

        A line is kept back until its end, which may be noreply, or until it is too long for that.
        """
        self._seen = 0
        self.forward = None
        at = start
        if not self._left:
            at = self._follow_line(data, start, end)
            if not self._left:
                return at, not self._line_bytes
        pos = at
        if at < end:
            pos, self._left = pass_block(data, at, end, self._left)
        if self.forward is not None:
            self.forward += data[at:pos]
        return pos, not self._left

    def _follow_line(self, data: bytearray, start: int, end: int) -> int:
        """Take bytes of a followed line; at its end `_line_bytes` is 0 and `_left` the body's."""
        line, before = self._line, self._line_bytes
        newline = data.find(b"\n", start, end)
        stop = end if newline < 0 else newline + 1
        line += data[start:stop]
        self._line_bytes += stop - start
        self.discard = False
        if newline < 0 and self._line_bytes < MAX_LINE_BYTES:
            self.forward = b""
            return stop
        if 0 < before < MAX_LINE_BYTES:
            self.forward = bytes(line)  # with what was kept back
        if len(line) >= MAX_LINE_BYTES:
            self._shorten_line()
        if newline < 0:
            return stop
        ruling = _rule(self._line, 0, len(self._line) - 1)
        if ruling.verdict is not None:
            raise ProtocolError(f"{ruling.why} in a request too long to be held", "too_long")
        if ruling.discard:
            self.forward = _without_noreply(self._line, 0, len(self._line))
            self.discard = True
        self._left = ruling.body_bytes
        self._line.clear()
        self._line_bytes = 0
        return stop

    def _shorten_line(self) -> None:
        """Hold a followed line down to its command and last key; only a get may be long."""
        line = self._line
        whole = line.endswith(b"\n")
        if not _is_get(line, 0, len(line)):
            if whole and len(line) == MAX_LINE_BYTES:
                return
            raise ProtocolError("a line that is too long", "too_long")
        if self._line_bytes > MAX_GET_LINE_BYTES - (not whole):
            raise ProtocolError("a line that is too long", "too_long")
        keys, _, last = line.rpartition(b" ")
        if not keys_are_sound(bytes(keys)) or len(last) > MAX_KEY_BYTES + 2:
            raise ProtocolError("a bad key in a line too long to be held")
        self._line = line[: line.index(b" ") + 1] + last


def _is_get(data: bytearray, pos: int, end: int) -> bool:
    return data.startswith((b"get ", b"gets "), pos, end)


def _without_noreply(data: bytearray, pos: int, stop: int) -> bytes:
    """Return the line data[pos:stop], which ends in noreply and CRLF or LF, without that word."""
    return bytes(data[pos : data.rindex(NOREPLY_WORD, pos, stop)]) + b"\r\n"


def _first_byte(first: int) -> Ruling | None:
    """Tell at once what is no text, a TLS greeting for example: it may never bring a newline."""
    if first == _BINARY_MAGIC:
        return BINARY
    return MALFORMED if first <= 0x20 and first != 13 else None


def _rule(data: bytearray, pos: int, newline: int) -> Ruling:
    """Judge the line data[pos:newline]; its end is CRLF or, as every server takes it, LF alone."""
    wrong = _first_byte(data[pos]) if newline > pos else None
    if wrong is not None:
        return wrong
    length = newline + 1 - pos
    if length > (MAX_GET_LINE_BYTES if _is_get(data, pos, newline) else MAX_LINE_BYTES):
        return LINE_TOO_LONG
    if newline > pos and data[newline - 1] == 13:
        newline -= 1
    return judge(bytes(data[pos:newline]))


def _special(ruling: Ruling, end: int) -> Special:
    assert ruling.verdict is not None
    return Special(ruling.verdict, end, ruling.why, ruling.reply)

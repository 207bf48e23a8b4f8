r"""RESP requests: where they end, and what kind they are.

    *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n     an array of bulk strings, or
    SET k v\r\n                                  a line: an "inline command"

    scan ─▶ a run of ordinary requests: one match of SIMPLE each
          └▶ anything else: _array or _inline finds its end, State.judge says what it is

Redis skips the two bytes behind a number or a string without looking (processMultibulkBuffer in
src/networking.c), and its inline parser stops at a NUL (processInlineBuffer). Bytes that it and
this parser could understand differently are refused.
"""

import re

from aegis.framers.contract import ProtocolError, Special, Verdict
from aegis.framers.resp_commands import (
    COMMANDS,
    LONGEST_NAME,
    SHARE,
    Act,
    find_rule,
    find_rule_within,
)
from aegis.framers.resp_limits import MAX_BULK_BYTES, MAX_INLINE_BYTES, MAX_WORDS, SMALL_BYTES
from aegis.framers.resp_long import LongRequest
from aegis.framers.resp_patterns import SMALL_BULK, one_of
from aegis.framers.resp_state import ASKING, State, protocol_error

_NAMES = {
    f"{len(name)}\r\n{name.decode()}": r"\r\n" for name, rule in COMMANDS.items() if rule is SHARE
}
_NAME = rf"(?i:\${one_of(_NAMES)})"
_BIG = rf"\$([1-9][0-9]{{{len(str(SMALL_BYTES)) - 1},8}})\r\n"
# Any shared command of one to six words. They are small but for the last: if that is big, the
# match ends behind its header and BIG is the group of its length. Group n has matched if there are
# more than n words. (Written out as six alternatives it is 30 ns faster and takes 60 ms to compile,
# not 12.)
BIG = 6
_ALL_BUT_LAST = (
    rf"\*(?:1|(2|(3|(4|(5|(6))))))\r\n{_NAME}"
    rf"(?(2){SMALL_BULK})(?(3){SMALL_BULK})(?(4){SMALL_BULK})(?(5){SMALL_BULK})"
)
SIMPLE = re.compile(
    rf"{_ALL_BUT_LAST}(?(1)(?:{SMALL_BULK}|{_BIG}))".encode(),
    re.DOTALL,
).match
SMALL = re.compile(rf"{_ALL_BUT_LAST}(?(1){SMALL_BULK})".encode(), re.DOTALL).fullmatch
WORD = re.compile(SMALL_BULK.encode(), re.DOTALL).match
EIGHT_WORDS = re.compile(rf"(?:{SMALL_BULK}){{8}}".encode(), re.DOTALL).match

COUNT = re.compile(rb"\*(0|-?[1-9][0-9]{0,8})\r\n").match
COUNT_BEGUN = re.compile(rb"\*(?:(?:0|-?[1-9][0-9]{0,8})\r?|-)?").fullmatch
LENGTH = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n").match
LENGTH_BEGUN = re.compile(rb"(?:\$(?:(?:0|[1-9][0-9]{0,8})\r?)?)?").fullmatch
LEAST_WORD_BYTES = 6  # $0\r\n\r\n
ARRAY = 42  # *
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]").search
QUOTES = re.compile(rb"[\"']").search


class RespRequests(State):
    """Follows the requests of one client."""

    __slots__ = ("_at", "_left", "_long", "need")

    def __init__(self) -> None:
        super().__init__()
        self.need = 1
        # Of a request that is not whole: how far it has been understood, and how many of an
        # array's words are still to come.
        self._at = 0
        self._left = 0
        self._long: LongRequest | None = None

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, Special | None]:
        """See `contract.Requests.scan`; a wrong request that is not the first is REFUSEd."""
        simple = SIMPLE
        pos, replies = start, 0
        while pos < end:
            if not self._at and self.pinned != "asking":
                while pos < end:
                    match = simple(data, pos, end)
                    if match is None:
                        break
                    stop = match.end()
                    if match.lastindex == BIG:
                        stop += int(match[BIG]) + 2
                        if stop > end or data[stop - 2] != 13 or data[stop - 1] != 10:
                            break
                    pos = stop
                    replies += 1
                else:
                    return pos, replies, None
            try:
                stop, owed, special = self._scan_any(data, pos, end)
            except ProtocolError as wrong:
                wrong.reply = protocol_error(str(wrong))
                if pos == start:
                    raise
                refusal = Special(Verdict.REFUSE, end, wrong.kind, wrong.reply)
                return pos, replies, refusal
            if special is not None or stop == pos:
                return pos, replies, special
            pos = stop
            replies += owed
        return pos, replies, None

    def follow(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """See `contract.Requests.follow`; every request it lets by is owed one reply."""
        self._at = 0
        if self._long is None:
            self._long = LongRequest()
        stop, done = self._long.feed(data, start, end)
        if done:
            self._long = None
            self._forget_asking()
        return stop, done

    def _scan_any(self, data: bytearray, pos: int, end: int) -> tuple[int, int, Special | None]:
        """Look at one request; `stop` is `pos` when it is not whole, and then `need` is set."""
        if data[pos] == ARRAY:
            stop = self._array(data, pos, end)
            if stop == pos:
                return pos, 0, None
            length = LENGTH(data, data.find(b"\n", pos) + 1, stop)
            if length is None:
                return stop, 0, None  # *0 and *-1: processInputBuffer passes over them
            name_at, size = length.end(), int(length[1])
            name = bytes(data[name_at : name_at + size]) if size <= LONGEST_NAME else b""
            rule = find_rule(name)
            words = [] if rule is SHARE else bulk_strings(data, pos, stop)
        else:
            stop = self._inline(data, pos, end)
            if stop == pos:
                return pos, 0, None
            line = bytes(data[pos : stop - 1]).removesuffix(b"\r")
            if QUOTES(line):  # sdssplitargs in src/sds.c joins and unescapes them
                return pos, 0, Special(Verdict.TUNNEL, stop, "quotes")
            words = line.split()
            if not words:
                return stop, 0, None
            name = words[0]
            rule = find_rule(name)
        self._forget_asking()
        if rule.act is Act.CONTAINER:
            rule = find_rule_within(name, words)
        special = None if rule is SHARE else self.judge(rule, words, stop)
        return (stop, 1, None) if special is None else (pos, 0, special)

    def _array(self, data: bytearray, pos: int, end: int) -> int:
        """Return where the array at `pos` ends, `pos` if it is not whole."""
        at, left = pos + self._at, self._left
        if at == pos:
            count = COUNT(data, pos, end)
            if count is None:
                if COUNT_BEGUN(data, pos, end) is None:
                    raise ProtocolError("invalid multibulk length")
                self.need = end - pos + 1
                return pos
            at, left = count.end(), int(count[1])
            if left > MAX_WORDS:
                raise ProtocolError("invalid multibulk length")
        while left > 0:
            if left >= 8 and (match := EIGHT_WORDS(data, at, end)):
                at = match.end()
                left -= 8
                continue
            if match := WORD(data, at, end):
                at = match.end()
                left -= 1
                continue
            match = LENGTH(data, at, end)
            if match is None:
                if LENGTH_BEGUN(data, at, end) is None:
                    raise ProtocolError(
                        "invalid bulk length"
                        if data[at] == 36
                        else f"expected '$', got '{chr(data[at])}'"
                    )
                return self._await(pos, end, at, left, at + left * LEAST_WORD_BYTES)
            stop = match.end() + int(match[1]) + 2
            if stop - match.end() - 2 > MAX_BULK_BYTES:
                raise ProtocolError("invalid bulk length")
            if stop > end:
                return self._await(pos, end, at, left, stop + (left - 1) * LEAST_WORD_BYTES)
            if data[stop - 2] != 13 or data[stop - 1] != 10:
                raise ProtocolError("a bulk string is longer than it says")
            at = stop
            left -= 1
        self._at = 0
        return at

    def _await(self, pos: int, end: int, at: int, left: int, goal: int) -> int:
        self._at, self._left = at - pos, left
        self.need = max(goal, end + 1) - pos
        return pos

    def _inline(self, data: bytearray, pos: int, end: int) -> int:
        """Return where the line at `pos` ends, `pos` if it is not whole."""
        first = data[pos]
        if first >= 127 or (first < 32 and first not in b"\t\r\n"):
            raise ProtocolError("neither an array nor an inline command")
        stop = data.find(b"\n", pos + self._at, min(end, pos + MAX_INLINE_BYTES)) + 1
        if not stop:
            if end - pos >= MAX_INLINE_BYTES:
                raise ProtocolError("too big inline request", "too_long")
            return self._await(pos, end, end, 0, 0)
        self._at = 0
        text_end = stop - 2 if stop - pos > 1 and data[stop - 2] == 13 else stop - 1
        if CONTROL(data, pos, text_end):
            raise ProtocolError("a control character in an inline command")
        return stop

    def _forget_asking(self) -> None:
        """Note that another request follows ASKING."""
        if self.pinned == "asking":
            self.let_go(ASKING)


def bulk_strings(data: bytearray, pos: int, stop: int) -> list[bytes]:
    """Return the words of a whole array."""
    words = []
    at = data.find(b"\n", pos) + 1
    while at < stop:
        length = LENGTH(data, at, stop)
        assert length is not None, "the array has been found whole"
        at = length.end() + int(length[1])
        words.append(bytes(data[length.end() : at]))
        at += 2
    return words

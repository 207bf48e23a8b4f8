"""A request too long to be held, skipped through in any split.

It streams through a pipe of its own, so it may block; but it can neither be answered here nor
change what is remembered of the client, and its reply is taken to be one. So what `State` would
have to look at is refused: it is never long in earnest.
"""

import re

from aegis.framers.contract import ProtocolError
from aegis.framers.resp_commands import LONGEST_NAME, Act, find_rule, find_rule_within
from aegis.framers.resp_limits import MAX_BULK_BYTES, MAX_INLINE_BYTES, MAX_WORDS

COUNT = re.compile(rb"\*([1-9][0-9]{0,8})\r\n").fullmatch
LENGTH = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n").fullmatch
LONGEST_HEADER = 12  # $123456789\r\n
UNTELLABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\"']").search  # as in resp_requests
HARMLESS = (Act.SHARE, Act.BLOCK, Act.MAY_BLOCK)
ARRAY = 42  # *
CRLF = b"\r\n"


class LongRequest:
    """One request, from its first byte to its last."""

    __slots__ = ("_begun", "_crlf", "_left", "_size", "_word", "_words")

    def __init__(self) -> None:
        self._begun = bytearray()  # a line that is not whole: an array's header, or an inline one
        self._left = -1  # words still to come; not known yet
        self._size = 0  # of the word under way, still to come
        self._crlf = 0  # and of the line end behind it
        self._word: bytearray | None = None  # the word under way, if it is worth looking at
        self._words: list[bytes] = []  # the command, and a container's second word

    def feed(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """See `contract.Requests.follow`."""
        pos = start
        while pos < end:
            if self._size:
                step = min(self._size, end - pos)
                if self._word is not None:
                    self._word += data[pos : pos + step]
                self._size -= step
            elif self._crlf:
                step = min(self._crlf, end - pos)
                at = len(CRLF) - self._crlf
                if not data.startswith(CRLF[at : at + step], pos, end):
                    raise ProtocolError("a bulk string is longer than it says")
                self._crlf -= step
                if not self._crlf and self._end_word():
                    return pos + step, True
            else:
                step, done = self._line(data, pos, end)
                if done:
                    return pos + step, True
            pos += step
        return pos, False

    def _line(self, data: bytearray, pos: int, end: int) -> tuple[int, bool]:
        """Take a header or an inline command; returns the bytes taken, and whether all is done."""
        begun = self._begun
        inline = self._left < 0 and (begun[0] if begun else data[pos]) != ARRAY
        longest = MAX_INLINE_BYTES if inline else LONGEST_HEADER
        stop = data.find(b"\n", pos, end) + 1
        begun += data[pos : min(stop or end, pos + longest + 1)]
        if len(begun) > longest:
            raise ProtocolError("a request's header or line is too long", "too_long")
        if not stop:
            return end - pos, False
        line = bytes(begun)
        begun.clear()
        if inline:
            text = line[:-1].removesuffix(b"\r")
            if UNTELLABLE(text):
                raise ProtocolError("quotes or control characters in a long inline command")
            self._check(text.split(None, 2)[:2], whole=True)
            return stop - pos, True
        if header := (COUNT if self._left < 0 else LENGTH)(line):
            number = int(header[1])
            if self._left < 0 and number <= MAX_WORDS:
                self._left = number
                return stop - pos, False
            if self._left >= 0 and number <= MAX_BULK_BYTES:
                self._size, self._crlf = number, 2
                looked_at = len(self._words) < 2 and number <= LONGEST_NAME
                self._word = bytearray() if looked_at else None
                return stop - pos, False
        raise ProtocolError("invalid multibulk or bulk length")

    def _end_word(self) -> bool:
        """Count a word, look at the first two; returns whether it was the last."""
        self._left -= 1
        if len(self._words) < 2:
            self._words.append(bytes(self._word or b""))
            self._check(self._words, whole=not self._left)
        self._word = None
        return not self._left

    def _check(self, words: list[bytes], *, whole: bool) -> None:
        """Refuse what is not harmless as soon as enough words are there to tell."""
        name = words[0] if words else b""
        rule = find_rule(name)
        if rule.act is Act.CONTAINER:
            if len(words) < 2 and not whole:
                return
            rule = find_rule_within(name, words)
        if rule.act not in HARMLESS:
            raise ProtocolError("a long request that is not simply shared", "too_long")

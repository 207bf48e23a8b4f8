"""The chunked coding (RFC 9112 section 7.1), sans-I/O, as strict as the head."""

import re

from ops.chronos.http_head import BARE_LF, FIELD, Head, refusal
from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_CHUNK_LINE_BYTES, MAX_HEAD_BYTES, MAX_VALUE_BYTES

# The size, then extensions, which are read over.
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class ChunkReader:
    """Takes one chunked body out of an inbox; trailer fields are checked and forgotten."""

    __slots__ = ("_body", "_ends", "_missing", "_trailers")

    def __init__(self) -> None:
        self._body = bytearray()
        self._missing = 0  # bytes of the current chunk, with the CRLF behind it; 0: at a size line
        self._ends = False  # the last chunk has been seen, trailers follow
        self._trailers = 0  # bytes of them so far

    def next(self, inbox: Inbox) -> bytes | Head | None:
        """Return the whole body, a refusal, or None when more input is needed."""
        while not self._ends:
            trouble = self._chunk_data(inbox) if self._missing else self._size_line(inbox)
            if trouble is not None:
                return trouble or None
        return self._trailer_lines(inbox)

    def _size_line(self, inbox: Inbox) -> Head | bytes | None:
        """Read a chunk's size; b"" when input is missing."""
        line = take_line(inbox, MAX_CHUNK_LINE_BYTES)
        if line is None:
            return b""
        size = None if isinstance(line, Head) else SIZE_LINE.fullmatch(line)
        if size is None:
            return refusal(400, "a malformed chunk size")
        length = int(size[1], 16)
        if len(self._body) + length > MAX_VALUE_BYTES:
            return refusal(413, f"body longer than {MAX_VALUE_BYTES} bytes")
        self._missing = length + 2
        self._ends = not length
        return None

    def _chunk_data(self, inbox: Inbox) -> Head | bytes | None:
        """Move what has arrived of a chunk into the body; b"" when input is missing."""
        data, at = inbox.data, inbox.at
        arrived = min(self._missing - 2, len(data) - at)
        self._body += memoryview(data)[at : at + arrived]
        self._missing -= arrived
        at += arrived
        line_end = bytes(data[at : at + 2])
        if self._missing > 2 or not b"\r\n".startswith(line_end):
            inbox.use(at)
            return b"" if self._missing > 2 else refusal(400, "a chunk without its CRLF")
        if len(line_end) < 2:
            inbox.use(at)
            return b""
        inbox.use(at + 2)
        self._missing = 0
        return None

    def _trailer_lines(self, inbox: Inbox) -> bytes | Head | None:
        while True:
            line = take_line(inbox, MAX_HEAD_BYTES - self._trailers)
            if line is None:
                return None
            if isinstance(line, Head):
                return line
            if not line:
                return bytes(self._body)
            if FIELD.fullmatch(line) is None:
                return refusal(400, "a malformed trailer field")
            self._trailers += len(line) + 2


def take_line(inbox: Inbox, limit: int) -> bytes | Head | None:
    """Take a line of at most `limit` bytes, its CRLF counted and cut off.

    A refusal tells of a longer line or a bare LF, None that more input is needed.
    """
    data, at = inbox.data, inbox.at
    end = data.find(b"\r\n", max(at, inbox.searched - 1), at + limit)
    stop = at + limit if end < 0 else end
    if BARE_LF.search(data, max(at, inbox.searched), min(stop, len(data))):
        return refusal(400, "a line ends in LF without CR")
    if end >= 0:
        inbox.use(end + 2)
        return bytes(data[at:end])
    if len(data) - at >= limit:
        return refusal(431, f"trailers longer than {MAX_HEAD_BYTES} bytes")
    inbox.searched = len(data)
    return None

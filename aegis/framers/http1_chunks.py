"""The chunked coding (RFC 9112 section 7.1), followed in any split without holding the body."""

from aegis.framers.contract import ProtocolError
from aegis.framers.http1_syntax import (
    CHUNK_LINE,
    FIELD_LINE,
    MAX_CHUNK_LINE_BYTES,
    MAX_TRAILER_BYTES,
)

CRLF = b"\r\n"


class Chunks:
    """Follows one chunked body; holds at most the beginning of one line."""

    __slots__ = ("_line", "_missing", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._line = bytearray()  # of a size or trailer line whose end has not arrived
        self._missing = 0  # bytes of the current chunk with the CRLF behind it; 0: at a line
        self._trailers = -1  # bytes of trailer fields so far; -1: the last chunk is still to come

    def least(self) -> int:
        """Return how many more bytes there must be at least before the body can end."""
        if self._missing:
            return self._missing + len(b"0\r\n\r\n")
        return 1

    def feed(self, data: bytearray, at: int, end: int) -> int:
        """Follow the body through data[at:end]; return where it stopped: `end`, or behind it.

        Raises:
            ProtocolError: it is malformed, or a limit was passed.
        """
        while at < end and not self.done:
            at = self._chunk(data, at, end) if self._missing else self._read_line(data, at, end)
        return at

    def _chunk(self, data: bytearray, at: int, end: int) -> int:
        missing = self._missing
        if missing > 2:
            step = min(missing - 2, end - at)
            at += step
            missing -= step
        while 0 < missing <= 2 and at < end:
            if data[at] != CRLF[2 - missing]:
                raise ProtocolError("a chunk that is not followed by CR LF")
            at += 1
            missing -= 1
        self._missing = missing
        return at

    def _read_line(self, data: bytearray, at: int, end: int) -> int:
        held = self._line
        limit = MAX_CHUNK_LINE_BYTES if self._trailers < 0 else MAX_TRAILER_BYTES - self._trailers
        stop = data.find(b"\n", at, min(end, at + limit - len(held))) + 1
        if not stop:
            if end - at >= limit - len(held):
                raise ProtocolError("a chunk's size line, or the trailer, is too long", "too_long")
            held += data[at:end]
            return end
        if held:
            held += data[at:stop]
            line = bytes(held)
            held.clear()
        else:
            line = bytes(data[at:stop])
        if self._trailers < 0:
            self._size(line)
        else:
            self._trailer(line)
        return stop

    def _size(self, line: bytes) -> None:
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError("a malformed chunk size")
        size = int(match[1], 16)
        if size:
            self._missing = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        if line == CRLF:
            self.done = True
        elif FIELD_LINE.fullmatch(line) is None:
            raise ProtocolError("a malformed trailer field")
        self._trailers += len(line)

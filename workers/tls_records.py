"""TLS records that the kernel has not taken whole, and how many of the caller's bytes are in each.

    [head 5 │ up to 16 KiB, encrypted] [head │ …] …      sent up to here: so many records are whole

A record is of use to the peer only when it is whole, so the bytes in it have been sent when its
last byte has. That is what `send` reports: bytes that it has not reported were seen by nobody, and
may be sent on another connection if this one breaks.

Source: RFC 8446, 5.1 and 5.2. SSL_write(3) fills each record but the last.
"""

from collections import deque
from typing import Final

_HEAD_BYTES: Final = 5
_MAX_PLAIN_BYTES: Final = 16_384


class Records:
    """Records in the order in which they are to go."""

    __slots__ = ("_parts", "data")

    def __init__(self) -> None:
        self.data = b""
        """What the kernel has not taken; the first record may have begun to go."""
        self._parts: deque[list[int]] = deque()  # [bytes that are left of a record, bytes in it]

    def add(self, data: bytes, plain: int) -> None:
        """Queue whole records that hold `plain` bytes of the caller's.

        Records before those, such as an answer to a KeyUpdate, hold none.
        """
        parts, at = [], 0
        while at < len(data):
            size = _HEAD_BYTES + int.from_bytes(data[at + 3 : at + 5], "big")
            parts.append([size, 0])
            at += size
        for part in parts[len(parts) - -(-plain // _MAX_PLAIN_BYTES) :]:
            part[1] = min(plain, _MAX_PLAIN_BYTES)
            plain -= part[1]
        self._parts.extend(parts)
        self.data += data

    def sent(self, count: int) -> int:
        """Note that the kernel has taken so many bytes; returns how many of the caller's went."""
        self.data = self.data[count:]
        taken = 0
        while count:
            part = self._parts[0]
            if count < part[0]:
                part[0] -= count
                break
            count -= part[0]
            taken += part[1]
            self._parts.popleft()
        return taken

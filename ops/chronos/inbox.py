"""What a client has sent and nobody has used yet; the readers of both protocols take from it.

Bytes that arrive while nothing is waiting are kept as they came, without a copy; only a request
in several pieces is gathered in a `bytearray`, which grows and loses its front in amortised
constant time. An inbox that is used up holds no buffer.
"""


class Inbox:
    """Unused input: `data[at:]`, of which `data[:searched]` is known not to hold what is sought."""

    __slots__ = ("at", "data", "searched")

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self.at = 0
        self.searched = 0

    def feed(self, more: bytes) -> None:
        """Append what was received."""
        data, at = self.data, self.at
        if at == len(data):
            self.data = more
            self.at = self.searched = 0
            return
        if isinstance(data, bytes):
            data = self.data = bytearray(memoryview(data)[at:])
        elif at:
            del data[:at]
        data += more
        self.searched = max(0, self.searched - at)
        self.at = 0

    def use(self, until: int) -> None:
        """Count `data[:until]` as used; the search for the next end begins there."""
        if until == len(self.data):
            self.data = b""
            until = 0
        self.at = self.searched = until

    def __len__(self) -> int:
        return len(self.data) - self.at

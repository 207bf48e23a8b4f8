"""A whole framer for protocols whose frames begin with their size: only that is left to be said.

    ┌ head, head_bytes of it ┐
    │ … how long it is …     │ body │ next frame …

For protocols with one reply to each request, in order, where no request leaves anything behind on
its connection: each may be shared. docs/framers.md has one of thirty lines.
"""

from aegis.framers.contract import ProtocolError, Replies, Requests, Special, Verdict
from aegis.framers.simple import SimpleFramer, SimpleReplies, SimpleRequests


class SizedFramer(SimpleFramer):
    """The base: `name`, `head_bytes` and `frame_bytes` are the protocol's."""

    name: str
    head_bytes: int
    """How much of a frame tells its size."""

    def frame_bytes(self, head: bytes) -> int:
        """Return the size of a whole frame, its head included.

        Raises:
            ProtocolError: no frame begins like this, or one that is longer than may be.
        """
        raise NotImplementedError

    def requests(self) -> Requests:
        """Make the parser for a new client."""
        return SizedRequests(self)

    def replies(self) -> Replies:
        """Make the parser for a new pipe."""
        return SizedReplies(self)


class Frames:
    """Where frames end in a stream that comes in any split."""

    __slots__ = ("_frame_bytes", "_head", "_head_bytes", "_left")

    def __init__(self, framer: SizedFramer) -> None:
        self._frame_bytes, self._head_bytes = framer.frame_bytes, framer.head_bytes
        self._head = b""  # of a frame whose head is not whole
        self._left = 0  # of a frame: bytes still to come

    @property
    def begun(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._head or self._left)

    def feed(self, data: bytearray, start: int, end: int, limit: int) -> tuple[int, int]:
        """Pass over at most `limit` frames; returns up to where, and how many have ended."""
        head_bytes, at, frames = self._head_bytes, start, 0
        while at < end and frames < limit:
            if not self._left:
                missing = head_bytes - len(self._head)
                head = self._head + bytes(data[at : min(end, at + missing)])
                at = min(end, at + missing)
                if len(head) < head_bytes:
                    self._head = head
                    break
                self._left = self._frame_bytes(head) - head_bytes
                self._head = b""
            step = min(self._left, end - at)
            at += step
            self._left -= step
            frames += not self._left
        return at, frames


class SizedRequests(SimpleRequests):
    """Follows the frames of one client."""

    __slots__ = ("_followed", "_framer", "need")

    def __init__(self, framer: SizedFramer) -> None:
        self.need = 1
        self._framer = framer
        self._followed = Frames(framer)

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, Special | None]:
        """See `contract.Requests.scan`; a wrong frame that is not the first is REFUSEd."""
        framer = self._framer
        head_bytes = framer.head_bytes
        at, replies = start, 0
        while end - at >= head_bytes:
            try:
                size = framer.frame_bytes(bytes(data[at : at + head_bytes]))
            except ProtocolError as wrong:
                if at == start:
                    raise
                reply = wrong.reply or framer.error("protocol_error")
                return at, replies, Special(Verdict.REFUSE, end, wrong.kind, reply)
            if size > end - at:
                self.need = size
                return at, replies, None
            at += size
            replies += 1
        self.need = head_bytes
        return at, replies, None

    def follow(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """See `contract.Requests.follow`."""
        stop, frames = self._followed.feed(data, start, end, 1)
        return stop, bool(frames)


class SizedReplies(SimpleReplies):
    """Counts the frames on one pipe."""

    __slots__ = ("_frames",)

    def __init__(self, framer: SizedFramer) -> None:
        self._frames = Frames(framer)

    @property
    def begun(self) -> bool:
        """Whether a reply has begun and not ended."""
        return self._frames.begun

    def feed(
        self,
        data: bytearray,
        start: int,
        end: int,
        limit: int,
        note: int,  # noqa: ARG002 - the contract's
    ) -> tuple[int, int]:
        """See `contract.Replies.feed`."""
        return self._frames.feed(data, start, end, limit)

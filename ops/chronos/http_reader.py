r"""HTTP/1.x requests out of an inbox, sans-I/O; each as the server's loop wants it: whole.

    inbox ─▶ head (up to the empty line) ─▶ body, by length or in chunks ─▶ (Head, body)

The quick path is a request without a body that arrived in one piece: one `find`, one slice that
copies nothing, and one look into the cache of `parse_head`. A head is sought in the first
MAX_HEAD_BYTES only, so that a request is judged alike however it was cut into packets.
"""

from ops.chronos.http_body import ChunkReader
from ops.chronos.http_head import BARE_LF, CHUNKED, Action, Head, parse_head, refusal
from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_HEAD_BYTES, MAX_REQUEST_LINE_BYTES

Request = tuple[Head, bytes]

GO_ON: Request = (Head(Action.CONTINUE), b"")


class HttpReader:
    """Takes requests out of an inbox, in order."""

    __slots__ = ("_chunks", "_head", "inbox")

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._head: Head | None = None  # set while its body is awaited
        self._chunks: ChunkReader | None = None

    def next(self) -> Request | None:
        """Take the next request; None when more input is needed.

        A client that waits for leave to send its body gets GO_ON first. After a request whose
        head `closes` the reader must not be used again.
        """
        if self._head is not None:
            return self._with_body(self._head)
        inbox = self.inbox
        data, at = inbox.data, inbox.at
        if not data:
            return None
        while data.startswith(b"\r\n", at):  # RFC 9112 section 2.2 bids us to skip these
            at += 2
        end = data.find(b"\r\n\r\n", max(at, inbox.searched - 3), at + MAX_HEAD_BYTES)
        if end < 0:
            return self._part_of_head(at)
        head = parse_head(bytes(data[at : end + 4]))
        inbox.use(end + 4)
        if not head.length or (head.closes and head.action is Action.REFUSE):
            return head, b""
        if head.length == CHUNKED:
            self._chunks = ChunkReader()
        self._head = head
        if head.expects and not len(inbox):
            return GO_ON
        return self._with_body(head)

    def _part_of_head(self, at: int) -> Request | None:
        inbox = self.inbox
        inbox.at = at
        data = inbox.data
        stop = min(len(data), at + MAX_HEAD_BYTES)
        if BARE_LF.search(data, max(at, inbox.searched), stop):
            return refusal(400, "a line ends in LF without CR"), b""
        if stop - at == MAX_HEAD_BYTES:
            if data.find(b"\r\n", at, at + MAX_REQUEST_LINE_BYTES + 2) < 0:
                return refusal(414, f"request line longer than {MAX_REQUEST_LINE_BYTES} bytes"), b""
            return refusal(431, f"head longer than {MAX_HEAD_BYTES} bytes"), b""
        inbox.searched = len(data)
        return None

    def _with_body(self, head: Head) -> Request | None:
        inbox = self.inbox
        if self._chunks is not None:
            body = self._chunks.next(inbox)
            if isinstance(body, Head):
                return body._replace(bodiless=head.bodiless), b""
            if body is None:
                return None
            self._chunks = None
        else:
            at = inbox.at
            if len(inbox) < head.length:
                return None
            body = bytes(inbox.data[at : at + head.length])
            inbox.use(at + head.length)
        self._head = None
        return head, body

"""The replies on one pipe: where each ends, and what becomes of the pipe then.

    feed ─▶ head ─┬─ 1xx: the next head                      (several may come, e.g. 100 and 103)
                  ├─ 101, CONNECT's 2xx: a tunnel            (only if the request asked for it)
                  ├─ HEAD, 204, 304, length 0: done
                  └─ body: by length, in chunks, or to the end of the stream

RFC 9112 section 6.3. A reply that could be read in two ways is an error, and its pipe is closed:
the bytes behind it would be taken for the next client's reply.
"""

import re

from aegis.framers.contract import ProtocolError
from aegis.framers.http1_chunks import Chunks
from aegis.framers.http1_syntax import (
    BROKEN,
    CHUNKED,
    CLOSE,
    CONNECT,
    HEAD,
    HEAD_END,
    LENGTH,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MEMO_BYTES,
    MEMO_ENTRIES,
    OLD,
    TEXT,
    TO_CLOSE,
    UPGRADE,
    framing_fields,
    options,
)

ReplyHead = tuple[int, bool, bool, int]
"""The body's length, CHUNKED or TO_CLOSE; whether the reply is the last on its connection, to a
request of HTTP/1.1 and to one of HTTP/1.0; the status."""
ReplyHeads = dict[bytes, ReplyHead]

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: %s)?\r\n" % TEXT)
BEGINNING = b"HTTP/1."
FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})
NOT_FAILED = frozenset({501, 505})
"""5xx that say that the server lives but does not do this."""

# What a pipe is in the middle of.
NOTHING, IN_HEAD, IN_BODY, IN_CHUNKS, IN_REST = range(5)


class Http1Replies:
    """Follows the replies on one pipe; implements contract.Replies.

    `last` and `tunnel` are known from a reply's head on. `failed` is a 5xx but 501 and 505. When
    `last` is set the client has been told so too, or needs the close to know where the body ends:
    its connection has to be closed with the pipe's.
    """

    __slots__ = ("_chunks", "_heads", "_held", "_left", "_phase", "failed", "last", "tunnel")

    def __init__(self, heads: ReplyHeads) -> None:
        self.tunnel = False
        self.last = False
        self.failed = False
        self._heads = heads  # a memo, shared by all pipes of a framer
        self._phase = NOTHING
        self._held = bytearray()  # the beginning of a head whose end has not arrived
        self._left = 0  # bytes of the body that are still to come
        self._chunks = Chunks()

    def feed(self, data: bytearray, start: int, end: int, limit: int, note: int) -> tuple[int, int]:
        """Pass over replies, see the contract; all of them to requests with this note.

        It stops behind a reply that is `last` or a `tunnel`, too. The quick way, a head seen
        before, costs 0.55 µs where careful parsing costs 5: the same page or value of the same
        length has the same head, with a Date for as long as that is the same.
        """
        if not self._phase and limit == 1 and note <= OLD:
            at = data.find(HEAD_END, start, end) + 4
            if at > 3:
                known = self._heads.get(bytes(data[start:at]))
                if known is not None and known[0] >= 0:
                    self.failed = self.tunnel = False
                    self.last = known[2] if note else known[1]
                    stop = at + known[0]
                    if stop <= end:
                        return stop, 1
                    self._left = stop - end
                    self._phase = IN_BODY
                    return end, 0
        replies = 0
        while replies < limit and start < end:
            start, done = self._careful(data, start, end, note)
            if done:
                self._phase = NOTHING
                replies += 1
                if self.last or self.tunnel:
                    break
        return start, replies

    @property
    def begun(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._phase)

    def end(self) -> bool:
        """Tell whether the server's end of stream completes the reply that has begun."""
        return self._phase == IN_REST

    def _careful(self, data: bytearray, at: int, end: int, note: int) -> tuple[int, bool]:
        """Take what data[at:end] has of one reply's head or body; tell whether the reply ended."""
        phase = self._phase
        if phase == IN_BODY:
            step = min(self._left, end - at)
            self._left -= step
            return at + step, not self._left
        if phase == IN_CHUNKS:
            at = self._chunks.feed(data, at, end)
            return at, self._chunks.done
        if phase == IN_REST:
            return end, False
        return self._take_head(data, at, end, note)

    def _take_head(self, data: bytearray, at: int, end: int, note: int) -> tuple[int, bool]:
        held = self._held
        before = len(held)
        stop = data.find(HEAD_END, at, min(end, at + MAX_HEAD_BYTES)) + 4 if not before else 0
        if stop > 3:
            head = bytes(data[at:stop])
        else:
            held += data[at : min(end, at + MAX_HEAD_BYTES - before)]
            size = held.find(HEAD_END, max(0, before - 3)) + 4
            if size < 4:
                self._check_beginning(before)
                self._phase = IN_HEAD
                return end, False
            head = bytes(held[:size])
            held.clear()
            stop = at + size - before
        self._phase = NOTHING
        known = self._heads.get(head)
        if known is None:
            known = parse_reply_head(head)
            self._memoize(head, known)
        return stop, self._begin(known, note)

    def _check_beginning(self, before: int) -> None:
        """Raise if what is held of a head cannot become one."""
        held = self._held
        if not held.startswith(BEGINNING[: len(held)]):
            raise ProtocolError("not an HTTP/1.x reply")
        if BROKEN.search(held, max(0, before - 1)) is not None:
            raise ProtocolError("a control character or a bare line end in a reply's head")
        if len(held) >= MAX_HEAD_BYTES:
            raise ProtocolError("a reply's head is too long", "too_long")

    def _begin(self, head: ReplyHead, note: int) -> bool:
        """Begin a reply whose head is complete; tell whether that is all of it."""
        length, last, last_if_old, status = head
        self.tunnel = self.failed = self.last = False
        if status < 200:
            if status != 101:
                return False  # the final response is still to come (RFC 9110 section 15.2)
            if not note & UPGRADE:
                raise ProtocolError("101 Switching Protocols that nobody asked for", "unasked")
            self.tunnel = True
            return True
        self.failed = 500 <= status < 600 and status not in NOT_FAILED
        if note & CONNECT and status < 300:
            self.tunnel = True
            return True
        if note & HEAD:
            length = 0
        self.last = bool(
            (last_if_old if note & OLD else last) or note & CLOSE or length == TO_CLOSE
        )
        if length == CHUNKED:
            self._chunks = Chunks()
            self._phase = IN_CHUNKS
        elif length == TO_CLOSE:
            self._phase = IN_REST
        elif length:
            self._left = length
            self._phase = IN_BODY
        return not length

    def _memoize(self, head: bytes, parsed: ReplyHead) -> None:
        """Keep what an ordinary head means: a final response that is not failed."""
        if not 200 <= parsed[3] < 500 or len(head) > MEMO_BYTES:
            return
        if len(self._heads) >= MEMO_ENTRIES:
            self._heads.clear()
        self._heads[head] = parsed


def parse_reply_head(head: bytes) -> ReplyHead:
    """Understand a reply's head, given with the empty line that ends it.

    Raises:
        ProtocolError: it is none, or could be read in two ways.
    """
    line = STATUS_LINE.match(head)
    if line is None:
        raise ProtocolError("not an HTTP/1.x status line")
    block = head[line.end() :]
    values = framing_fields(block, FRAMING)
    if values is None:
        raise ProtocolError("a malformed field in a reply")
    if block.count(b"\n") - 1 > MAX_FIELDS:
        raise ProtocolError("too many fields in a reply", "too_long")
    wishes = options(values.get(b"connection", []))
    if wishes is None:
        raise ProtocolError("a malformed Connection field in a reply")
    old = line[1] == b"0"
    closes = b"close" in wishes
    silent = b"keep-alive" not in wishes
    length, status = _body_length(values, old), int(line[2])
    if status in (204, 304):
        length = 0  # RFC 9112 section 6.3, rule 1; for 304 the field tells another's length
    return length, closes or (old and silent), closes or silent, status


def _body_length(values: dict[bytes, list[bytes]], old: bool) -> int:
    """Apply RFC 9112 section 6.3 to a reply's fields."""
    codings = values.get(b"transfer-encoding")
    lengths = values.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise ProtocolError("both Transfer-Encoding and Content-Length in a reply")
        if old or codings != [b"chunked"]:
            raise ProtocolError("a Transfer-Encoding that is not chunked, or in HTTP/1.0")
        return CHUNKED
    if lengths is None:
        return TO_CLOSE
    if len(lengths) > 1 or LENGTH.fullmatch(lengths[0]) is None:
        raise ProtocolError("a malformed or repeated Content-Length in a reply")
    return int(lengths[0])

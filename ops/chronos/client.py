"""One client: its socket, what it sent, what it is owed; and which protocol it speaks.

    recv ─▶ Inbox ─▶ reader.next() ─▶ answer ─▶ replies ──commit──▶ send ─▶ unsent

Invariants: a client whose output is not taken is neither read nor answered, so it holds at most
OUTPUT_BYTES and one reply, and one request and RECEIVE_BYTES of input; and its end is read only
after it has taken everything. `replies` go out only after the turn's commit. An idle client holds
no buffer. The loop alone closes sockets, at a turn's end.
"""

import re
import socket
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Any, Protocol

from ops.chronos.answers import answer_command, answer_request
from ops.chronos.http_reader import HttpReader
from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_LINE_BYTES, OUTPUT_BYTES, RECEIVE_BYTES
from ops.chronos.lines import LineReader
from ops.chronos.store import Store

# What no command of the line protocol ends in but SET, whose value may be anything.
HTTP_LINE = re.compile(rb"(?!SET )[^\r\n]* HTTP/[0-9.]+")
BLANK_LINES = re.compile(rb"(?:\r?\n)*")


class Reader(Protocol):
    """Takes whole requests of one protocol out of an inbox."""

    def next(self) -> Any:
        """Take the next request; None when more input is needed."""


Answer = Callable[[Any, Store, list[bytes]], bool]


class Client:
    """A connection, from accept to close."""

    __slots__ = (
        "answer",
        "closed",
        "done",
        "fd",
        "inbox",
        "interest",
        "lingers",
        "over",
        "reader",
        "replies",
        "sock",
        "unsent",
        "waits",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.inbox = Inbox()
        self.reader: Reader | None = None  # None until the first line is here
        self.answer: Answer = answer_command
        self.replies: list[bytes] = []  # of this turn; the store may replace one until the commit
        self.unsent = bytearray()
        self.interest = EPOLLIN  # what the poller is registered for
        self.waits = True  # no whole request is left in the inbox
        self.done = False  # the connection ends behind the last reply
        self.over = False  # it has ended and taken all it is owed, or it is gone: to be closed
        self.lingers = False  # all is said; input is read and dropped until the client leaves
        self.closed = False

    def receive(self, store: Store) -> None:
        """Read once and answer what can be answered."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset, timed out, unreachable: all mean that nobody is there
            self.over = True
            return
        if not data:
            self.over = True  # nothing is owed, or this would not have been read
        elif not self.done:
            self.inbox.feed(data)
            self.work(store)

    def work(self, store: Store) -> None:
        """Answer requests until the inbox has no whole one or the client has enough to take."""
        reader = self.reader or self._tell_protocol()
        if reader is None:
            return
        take, answer, replies = reader.next, self.answer, self.replies
        size = 0
        while size < OUTPUT_BYTES:
            request = take()
            if request is None:
                self.waits = True
                return
            if answer(request, store, replies):
                self.done = True
                return
            size += len(replies[-1])
        self.waits = False

    def flush(self) -> None:
        """Send what the client is owed, as far as it takes it."""
        replies, unsent = self.replies, self.unsent
        if replies:
            data = replies[0] if len(replies) == 1 else b"".join(replies)
            replies.clear()
            if unsent:
                unsent += data
            else:
                sent = self._send(data)
                if sent < len(data):
                    unsent += memoryview(data)[sent:]
                return
        if unsent:
            del unsent[: self._send(unsent)]

    def wanted(self) -> int:
        """Return the events to poll for: output before input, input only while it can be used."""
        if self.unsent:
            return EPOLLOUT
        return EPOLLIN if self.waits or self.done else 0

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.over = True
            return 0

    def _tell_protocol(self) -> Reader | None:
        """Choose the reader by the first line that is not empty; None until it is whole."""
        inbox = self.inbox
        data = inbox.data
        blank = BLANK_LINES.match(data, inbox.at)
        start = blank.end() if blank else inbox.at
        end = data.find(b"\n", max(start, inbox.searched))
        inbox.use(start)
        if end < 0 and len(inbox) <= MAX_LINE_BYTES + 1:
            inbox.searched = len(inbox.data)
            return None
        if end >= 0 and HTTP_LINE.fullmatch(bytes(data[start:end]).removesuffix(b"\r")):
            self.reader = HttpReader(inbox)
            self.answer = answer_request
        else:
            self.reader = LineReader(inbox)
        return self.reader

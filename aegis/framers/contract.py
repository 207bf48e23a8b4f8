"""What a framer is: the only thing Aegis has to know about a protocol to share its connections.

A framer is sans-I/O. It makes two kinds of parser, which are given bytes and answer with positions:

    client ─▶ Requests.scan ─▶ whole requests, how many replies they are owed, may they be shared
    server ─▶ Replies.feed  ─▶ where replies end, so that each goes to whom it is owed

One `Requests` follows one client, one `Replies` one pipe. Both hold bounded memory and never look
outside the range they are given. Bytes that break the protocol raise ProtocolError: a client then
gets the framer's error and is closed, a pipe is closed.

Sharing is opt-in: whatever a framer does not know to be harmless on a shared connection, it pins.
"""

import re
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

QuickLook = Callable[[bytearray, int, int], "re.Match[bytes] | None"]
"""What a compiled pattern's `match` and `fullmatch` are: of data[start:end]."""
QUIT = "quit"
"""Why a request is refused that breaks nothing: the client says that it leaves."""


class ProtocolError(Exception):
    """Bytes that are not the protocol; the text says what is wrong, for a log."""

    reply = b""
    """What to tell the client; empty: Framer.error("protocol_error")."""

    def __init__(self, text: str, kind: str = "malformed") -> None:
        """`kind` says the same in a short fixed word, a metric's label."""
        super().__init__(text)
        self.kind = kind


class Verdict(IntEnum):
    """What is to be done with a request that is not simply shared."""

    ANSWER = 1
    """The proxy sends `reply` in the request's turn; the server hears nothing of it."""
    REFUSE = 2
    """The proxy sends `reply` in the request's turn and closes the client; what follows is lost."""
    PIN = 3
    """Send it on a pipe that serves this client alone, until `Requests.pinned` is empty again and
    all replies have come. Requests that follow are scanned as ever."""
    SWITCH = 4
    """Send it on a pipe that has been set up with `Requests.setup`, which has just changed; there
    it changes nothing more, so the pipe may be shared by all clients with the same setup."""
    TUNNEL = 5
    """Send it on a pipe of its own and relay bytes blindly from then on; the pipe is never reused.
    For requests whose replies cannot be counted."""
    TUNNEL_IF_ACCEPTED = 6
    """As PIN; once `Replies.tunnel` is set by the reply, as TUNNEL."""


class Special(NamedTuple):
    """One whole request that is not simply shared."""

    verdict: Verdict
    end: int
    """Index behind its last byte."""
    why: str
    """For PIN and TUNNEL the reason, for REFUSE the kind of error, or QUIT: a short fixed word, a
    metric's label."""
    reply: bytes = b""
    """For ANSWER and REFUSE."""
    replies: int = 1
    """For PIN and SWITCH: how many replies it is owed."""
    clean: bool = False
    """For PIN and TUNNEL_IF_ACCEPTED: once its replies are complete, nothing of it is left on the
    pipe, which others may have as it is: without a reset, and where there is none."""
    undo: Callable[[], None] | None = None
    """For SWITCH, called when the server answers with an error: makes `Requests` as it was before.
    None: what the server then remembers is unknown, and the client is closed."""


class Setup(NamedTuple):
    """What a fresh pipe is sent before a client with this setup may use it."""

    requests: bytes = b""
    replies: int = 0
    """How many replies that brings; one that `Replies.failed` calls an error closes the pipe."""


NO_SETUP = Setup()


class Requests(Protocol):
    """Follows the requests of one client."""

    setup: Setup
    """What the client's pipes need; changes only with a SWITCH, or with a request that streams."""
    pinned: str
    """Why the client needs a pipe of its own now; empty when it does not."""
    need: int
    """After a scan that ended in an incomplete request: how many bytes from its start on must be
    there before it is worth scanning again; at least one more than there were. 0: the scan ended
    before a request that it did not look at, scan that at once."""
    note: int
    """Of the last request scanned: what its reply's parser has to know (Replies.feed); 0 for most
    protocols. A framer that uses notes returns at most one request a scan."""

    forward: bytes | None
    """Of the last request scanned, or of what was followed last: what to send instead of it, None
    for the bytes themselves. A scan that returns a request to be forwarded, discarded or closed
    after returns that one only, and sets `need` to 0 if more follows."""
    discard: bool
    """Of the last request scanned or followed: its replies are thrown away whole, because the
    client does not expect any. If they are lost it is closed: no error would have its turn."""
    clean: bool
    """Of the last request followed: as Special.clean, for one that streamed."""
    close_after: bool
    """Of the last request scanned: whether the client is closed after its reply."""
    stream_now: bool
    """After a scan that ended in an incomplete request: whether to stream it at once, because the
    client waits for a sign of the server before it sends the rest."""

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, Special | None]:
        """Find whole requests in data[start:end]; `start` is where a request begins.

        Returns:
            (stop, replies, special): data[start:stop] are whole requests that may be shared and are
            owed `replies` replies in all. `special` follows at `stop`, up to special.end; where it
            is None, data[stop:end] is the beginning of a request, or nothing.

        Raises:
            ProtocolError: data[stop:] is not a request; those before it were returned by the scan
                before, so a scan raises only when its first request is wrong.
        """
        ...

    def follow(self, data: bytearray, start: int, end: int) -> tuple[int, bool]:
        """Skip through a request that is too long to be held, from its first byte on, in any split.

        For a request that `scan` left incomplete. Its bytes are given once more from the beginning.

        Returns:
            (stop, done): data[start:stop] belong to it; done when it ends at `stop`.

        Raises:
            ProtocolError: it cannot be followed.
        """
        ...


class Replies(Protocol):
    """Follows the replies on one pipe."""

    tunnel: bool
    """The reply fed last has turned the connection into a tunnel."""
    last: bool
    """The reply fed last is the last on this connection: the server will close it, and the client
    is closed as well, because it was told so or finds the end of the reply by it."""
    failed: bool
    """The reply fed last was the protocol's error."""

    @property
    def begun(self) -> bool:
        """Whether bytes of a reply that has not ended have been fed."""
        ...

    def feed(self, data: bytearray, start: int, end: int, limit: int, note: int) -> tuple[int, int]:
        """Pass over at most `limit` replies in data[start:end], in any split.

        Returns:
            (stop, replies): `replies` have ended; data[start:stop] belong to them and to the one
            that has begun. stop is `end` unless `limit` was reached.

        Raises:
            ProtocolError: not a reply, or one that nobody asked for.
        """
        ...

    def end(self) -> bool:
        """Tell whether the server's end of stream completes the reply that has begun."""
        ...


def never(data: bytearray, start: int, end: int) -> None:
    """Match nothing: for framers without a quick look."""


class Framer(Protocol):
    """A protocol, once per listener and worker."""

    name: str
    poolings: tuple[str, ...]
    """Which of warm, session and multiplex it supports; off always works."""
    in_flight: int
    """How many requests may be outstanding on one pipe."""
    error_closes: bool
    """Whether `error` tells the client that it is closed now, and so it must be."""
    ping: bytes
    """A request that is owed one reply and changes nothing; for health checks. May be empty."""
    reset: Setup
    """Makes a pipe that a client used alone as clean as a fresh one; empty: it must be closed."""
    quick_request: QuickLook
    """Matches data[start:end] if it is one whole request that is shared, owed one reply and sent as
    it stands, whoever says it: nothing of the client's state matters, none is changed. What does
    not match is scanned. To be fast, so it may miss most of what it could match; `never` always."""
    quick_reply: QuickLook
    """Matches from `start` on one whole reply, to its end, that means nothing for the connection
    (not `last`, no tunnel). What does not match is fed. `never` for a framer that uses notes."""

    def requests(self) -> Requests:
        """Make the parser for a new client."""
        ...

    def replies(self) -> Replies:
        """Make the parser for a new pipe."""
        ...

    def error(self, why: str) -> bytes:
        """Return the protocol's error for a request the proxy cannot serve; empty: just close."""
        ...

r"""The line protocol, sans-I/O: input to commands.

    PING | SET key value… | GET key | DEL key | COMPACT

A line ends with ``\n``; one ``\r`` before it is not part of the line. A key is a word without
spaces; a value is every byte after the one space behind the key, and may be empty. Verbs are
upper case. An empty line is no command and gets no reply.
"""

from enum import Enum, auto
from typing import NamedTuple

from ops.chronos.inbox import Inbox
from ops.chronos.limits import MAX_LINE_BYTES


class Verb(Enum):
    """What a command asks for."""

    PING = auto()
    SET = auto()
    GET = auto()
    DEL = auto()
    COMPACT = auto()
    REFUSED = auto()  # the command's value is the reply, without its line end
    OVERLONG = auto()  # the same, and nothing after it can be understood


class Command(NamedTuple):
    """One line, understood."""

    verb: Verb
    key: bytes = b""
    value: bytes = b""


PING = Command(Verb.PING)
COMPACT = Command(Verb.COMPACT)
UNKNOWN = Command(Verb.REFUSED, value=b"UNKNOWN")
OVERLONG = Command(Verb.OVERLONG, value=b"ERR line longer than %d bytes" % MAX_LINE_BYTES)
SET_USAGE = Command(Verb.REFUSED, value=b"ERR usage: SET key value")
KEY_VERBS = {b"GET": Verb.GET, b"DEL": Verb.DEL}
KEY_USAGE = {verb: Command(Verb.REFUSED, value=b"ERR usage: %s key" % verb) for verb in KEY_VERBS}
BARE = {b"PING": PING, b"COMPACT": COMPACT}


def parse(line: bytes) -> Command:
    """Understand a line that is not empty, given without its line end."""
    verb, space, rest = line.partition(b" ")
    if verb == b"SET":
        key, space, value = rest.partition(b" ")
        return Command(Verb.SET, key, value) if key and space else SET_USAGE
    if (asked := KEY_VERBS.get(verb)) is not None:
        return Command(asked, rest) if rest and b" " not in rest else KEY_USAGE[verb]
    return UNKNOWN if space else BARE.get(verb, UNKNOWN)


class LineReader:
    """Takes commands out of an inbox, in order."""

    __slots__ = ("inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    def next(self) -> Command | None:
        """Take the next command; None when more input is needed.

        After `OVERLONG` the reader must not be used again.
        """
        inbox = self.inbox
        while True:
            data, at = inbox.data, inbox.at
            end = data.find(b"\n", inbox.searched)
            if end < 0:
                inbox.searched = len(data)
                # One more byte may be waiting than a line may hold: the \r of its end.
                return OVERLONG if len(data) - at > MAX_LINE_BYTES + 1 else None
            stop = end - 1 if data.endswith(b"\r", at, end) else end
            if stop - at > MAX_LINE_BYTES:
                return OVERLONG
            line = bytes(data[at:stop])
            inbox.use(end + 1)
            if line:
                return parse(line)

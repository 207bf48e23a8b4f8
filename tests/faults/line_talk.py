"""The line protocol for the checker, as Chronos speaks it."""

import re
from collections.abc import Callable
from typing import Any

from tests.faults.asks import TOKEN, Ask, Talk, exactly


class LineTalk(Talk):
    """What one connection to Chronos says."""

    writes = re.compile(rb"SET \S+ " + TOKEN)

    def kinds(self) -> list[tuple[Callable[[], list[Ask]], float]]:
        """See `Talk`."""
        return [
            (self._set, 10), (self._get, 30), (self._missing, 5), (self._delete, 5),
            (self._ping, 5), (self._unknown, 3), (self._usage, 3), (self._big, 2),
            (self._empty, 2),
        ]  # fmt: skip

    @staticmethod
    def parse(buf: bytearray, at: int, ask: Ask) -> tuple[Any, int] | None:
        """See `Talk`."""
        stop = buf.find(b"\n", at) + 1
        return (bytes(buf[at : stop - 1]), stop) if stop else None

    @staticmethod
    def gave_up(reply: Any) -> str:
        """See `Talk`."""
        given_up = reply.startswith(b"ERR ") and not reply.startswith(b"ERR usage")
        return str(reply.decode()) if given_up else ""

    def _key(self) -> bytes:
        return b"%s:%d" % (self.who, self.rng.randrange(3))

    def _set(self) -> list[Ask]:
        key, value = self._key(), self.token() + b" x" * self.rng.choice((0, 0, 1, 50))
        self.values[key] = value
        return [Ask(b"SET %s %s\n" % (key, value), exactly(b"OK"))]

    def _get(self) -> list[Ask]:
        key = self._key()
        if key not in self.values:
            return self._set()
        ending = self.rng.choice((b"\n", b"\r\n"))
        return [Ask(b"GET %s%s" % (key, ending), exactly(self.values[key]))]

    def _missing(self) -> list[Ask]:
        return [Ask(b"GET %s:no\n" % self.who, exactly(b"NULL"))]

    def _delete(self) -> list[Ask]:
        key = b"%s:d" % self.who
        return [
            Ask(b"SET %s x\n" % key, exactly(b"OK")),
            Ask(b"DEL %s\n" % key, exactly(b"OK")),
            Ask(b"GET %s\n" % key, exactly(b"NULL")),
        ]

    def _ping(self) -> list[Ask]:
        return [Ask(b"PING\n", exactly(b"PONG"))]

    def _unknown(self) -> list[Ask]:
        return [Ask(b"NOTHING %s\n" % self.token(), exactly(b"UNKNOWN"))]

    def _usage(self) -> list[Ask]:
        return [Ask(b"GET a b\n", exactly(b"ERR usage: GET key"))]

    def _empty(self) -> list[Ask]:
        """Lines that get no reply, and one that does."""
        return [Ask(b"\n\r\n\nPING\n", exactly(b"PONG"))]

    def _big(self) -> list[Ask]:
        key, value = b"%s:big" % self.who, self.big()
        return [
            Ask(b"SET %s %s\n" % (key, value), exactly(b"OK")),
            Ask(b"GET %s\n" % key, exactly(value)),
            Ask(b"DEL %s\n" % key, exactly(b"OK")),
        ]

"""The memcached text protocol for the checker; a reply is its bytes, all lines of it."""

import re
from collections.abc import Callable
from typing import Any

from tests.faults.asks import TOKEN, Ask, Talk, exactly

VALUE = re.compile(rb"VALUE \S+ \d+ (\d+)(?: \d+)?\r\n")
VA = re.compile(rb"VA (\d+)[^\r]*\r\n")


class MemcachedTalk(Talk):
    """What one connection to memcached says."""

    writes = re.compile(rb"set \S+ 0 0 \d+(?: noreply)?\r\n" + TOKEN)

    def kinds(self) -> list[tuple[Callable[[], list[Ask]], float]]:
        """See `Talk`."""
        return [
            (self._set, 10), (self._get, 30), (self._missing, 5), (self._incr, 15),
            (self._several, 5), (self._gets, 3), (self._meta, 5), (self._big, 2), (self._noop, 2),
            (self._delete, 3), (self._long_key, 1), (self._unknown, 1), (self._stats, 0.5),
            (self._touch, 2), (self._noreply, 5), (self._quiet, 3 if self.tunnelled else 0.3),
        ]  # fmt: skip

    @staticmethod
    def parse(buf: bytearray, at: int, ask: Ask) -> tuple[Any, int] | None:
        """See `Talk`."""
        start = at
        while (stop := buf.find(b"\r\n", at) + 2) > 1:
            line = bytes(buf[at:stop])
            at = stop
            if found := VALUE.fullmatch(line):
                at += int(found[1]) + 2
            elif found := VA.fullmatch(line):
                at += int(found[1]) + 2
                return (bytes(buf[start:at]), at) if len(buf) >= at else None
            elif not line.startswith(b"STAT "):
                return bytes(buf[start:at]), at
        return None

    @staticmethod
    def gave_up(reply: Any) -> str:
        """See `Talk`."""
        return str(reply.decode()) if reply.startswith(b"SERVER_ERROR aegis: ") else ""

    def _key(self) -> bytes:
        return b"%s:%d" % (self.who, self.rng.randrange(3))

    def _store(self, key: bytes, value: bytes, more: bytes = b"") -> bytes:
        return b"set %s 0 0 %d%s\r\n%s\r\n" % (key, len(value), more, value)

    def _set(self) -> list[Ask]:
        key, value = self._key(), self.token() + b"\r\nEND\r\n" * self.rng.choice((0, 0, 1, 20))
        self.values[key] = value
        return [Ask(self._store(key, value), exactly(b"STORED\r\n"))]

    def _values(self, keys: list[bytes]) -> bytes:
        known = [key for key in keys if key in self.values]
        blocks = [
            b"VALUE %s 0 %d\r\n%s\r\n" % (k, len(self.values[k]), self.values[k]) for k in known
        ]
        return b"".join(blocks) + b"END\r\n"

    def _get(self) -> list[Ask]:
        key = self._key()
        return [Ask(b"get %s\r\n" % key, exactly(self._values([key])))]

    def _several(self) -> list[Ask]:
        keys = [self._key() for _ in range(self.rng.randrange(2, 20))]
        return [Ask(b"get %s\r\n" % b" ".join(keys), exactly(self._values(keys)))]

    def _gets(self) -> list[Ask]:
        key = self._key()
        begin = b"VALUE %s 0 " % key if key in self.values else b"END"
        value = self.values.get(key, b"")

        def fits(reply: bytes) -> bool:
            return reply.startswith(begin) and value in reply

        return [Ask(b"gets %s\r\n" % key, fits)]

    def _missing(self) -> list[Ask]:
        return [Ask(b"get %s\r\n" % self.token(), exactly(b"END\r\n"))]

    def _incr(self) -> list[Ask]:
        key = b"n:%s" % self.who
        begin = (
            []
            if key in self.counts
            else [Ask(b"add %s 0 0 1\r\n0\r\n" % key, exactly(b"STORED\r\n"))]
        )
        return [*begin, Ask(b"incr %s 1\r\n" % key, exactly(b"%d\r\n" % self.count(key)), key)]

    def _meta(self) -> list[Ask]:
        key, value, opaque = b"m:%s" % self.who, self.token(), b"%x" % self.rng.getrandbits(32)
        return [
            Ask(b"ms %s %d O%s\r\n%s\r\n" % (key, len(value), opaque, value),
                exactly(b"HD O%s\r\n" % opaque)),
            Ask(b"mg %s v O%s k\r\n" % (key, opaque),
                exactly(b"VA %d O%s k%s\r\n%s\r\n" % (len(value), opaque, key, value))),
            Ask(b"md %s O%s\r\n" % (key, opaque), exactly(b"HD O%s\r\n" % opaque)),
            Ask(b"mg %s v O%s\r\n" % (key, opaque), exactly(b"EN O%s\r\n" % opaque)),
        ]  # fmt: skip

    def _noop(self) -> list[Ask]:
        return [
            Ask(b"mn\r\n", exactly(b"MN\r\n")),
            Ask(b"version\r\n", lambda reply: reply.startswith(b"VERSION ")),
        ]

    def _delete(self) -> list[Ask]:
        key = b"d:%s" % self.who
        return [
            Ask(self._store(key, b"x"), exactly(b"STORED\r\n")),
            Ask(b"delete %s\r\n" % key, exactly(b"DELETED\r\n")),
            Ask(b"delete %s\r\n" % key, exactly(b"NOT_FOUND\r\n")),
        ]

    def _touch(self) -> list[Ask]:
        key = self._key()
        want = b"TOUCHED\r\n" if key in self.values else b"NOT_FOUND\r\n"
        return [Ask(b"touch %s 0\r\n" % key, exactly(want))]

    def _long_key(self) -> list[Ask]:
        if self.tunnelled:  # there the server throws away earlier replies (docs/protocols)
            return self._get()
        return [Ask(b"get %s\r\n" % (b"k" * 251), lambda r: r.startswith(b"CLIENT_ERROR"))]

    def _unknown(self) -> list[Ask]:
        return [Ask(b"nothing at all\r\n", exactly(b"ERROR\r\n"))]

    def _stats(self) -> list[Ask]:
        return [Ask(b"stats\r\n", lambda r: r.startswith(b"STAT ") and r.endswith(b"\r\nEND\r\n"))]

    def _quiet(self) -> list[Ask]:
        self.tunnel()
        return [Ask(b"mg none:%s v q\r\nmn\r\n" % self.who, exactly(b"MN\r\n"))]

    def _noreply(self) -> list[Ask]:
        key, value = self._key(), self.token()
        self.values[key] = value
        return [Ask(self._store(key, value, b" noreply") + b"get %s\r\n" % key,
                    exactly(self._values([key])))]  # fmt: skip

    def _big(self) -> list[Ask]:
        key, value = b"big:%s" % self.who, self.big()
        return [
            Ask(self._store(key, value), exactly(b"STORED\r\n")),
            Ask(b"get %s\r\n" % key,
                exactly(b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value))),
            Ask(b"delete %s\r\n" % key, exactly(b"DELETED\r\n")),
        ]  # fmt: skip

"""RESP for the checker: requests that carry who sent them, and what their replies must be."""

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.faults.asks import TOKEN, Ask, Talk, exactly
from tests.faults.scripted import words

DATABASES = 4


class Failure(NamedTuple):
    """An error reply."""

    text: bytes


class Pairs(NamedTuple):
    """A map of RESP3."""

    items: list[Any]


def parse(buf: bytearray, at: int) -> tuple[Any, int] | None:
    """Return the reply at `at` and the index behind it; None if it is not whole."""
    stop = buf.find(b"\r\n", at)
    if stop < 0:
        return None
    kind, line, at = buf[at : at + 1], bytes(buf[at + 1 : stop]), stop + 2
    if kind == b"+":
        return line, at
    if kind == b"-":
        return Failure(line), at
    if kind == b":":
        return int(line), at
    if kind == b"_" or line == b"-1":
        return None, at
    if kind == b"$":
        size = int(line)
        if len(buf) < at + size + 2:
            return None
        assert buf[at + size : at + size + 2] == b"\r\n", "a string's end"
        return bytes(buf[at : at + size]), at + size + 2
    assert bytes(kind) in {b"*", b"%", b">", b"~"}, f"no reply: {bytes(buf[at - 20 : at + 60])!r}"
    items = []
    for _ in range(int(line) * (2 if kind == b"%" else 1)):
        if (found := parse(buf, at)) is None:
            return None
        items.append(found[0])
        at = found[1]
    return (Pairs(items) if kind == b"%" else items), at


class RespTalk(Talk):
    """What one connection to Redis says."""

    writes = re.compile(rb"SET\r\n\$\d+\r\n\S+\r\n\$\d+\r\n" + TOKEN)

    def __init__(
        self, who: bytes, rng: random.Random, big_bytes: int, only: frozenset[str]
    ) -> None:
        super().__init__(who, rng, big_bytes, only)
        self.database = 0
        self.version = 2

    def kinds(self) -> list[tuple[Callable[[], list[Ask]], float]]:
        """See `Talk`."""
        if self.tunnelled:
            return [(self._subscribed, 1)]
        return [
            (self._echo, 30), (self._set, 10), (self._get, 20), (self._incr, 20), (self._big, 2),
            (self._transaction, 4), (self._watch, 2), (self._block, 2), (self._select, 2),
            (self._hello, 1), (self._where, 6), (self._hash, 4), (self._wrong, 2),
            (self._name, 1), (self._inline, 2), (self._subscribe, 0.3), (self._many, 2),
        ]  # fmt: skip

    @staticmethod
    def parse(buf: bytearray, at: int, ask: Ask) -> tuple[Any, int] | None:
        """See `Talk`."""
        return parse(buf, at)

    @staticmethod
    def gave_up(reply: Any) -> str:
        """See `Talk`."""
        given_up = _failed(reply, b"ERR aegis: ") or _failed(reply, b"LOADING")
        return str(reply.text.decode()) if given_up else ""

    def _key(self, name: bytes) -> bytes:
        return b"%s:%s:%d" % (name, self.who, self.database)

    def _echo(self) -> list[Ask]:
        token = self.token() + b"x" * self.rng.choice((0, 0, 0, 10, 100))
        return [Ask(words("ECHO", token), exactly(token))]

    def _inline(self) -> list[Ask]:
        token = self.token()
        return [Ask(b"ECHO %s\r\n" % token, exactly(token))]

    def _set(self) -> list[Ask]:
        key, value = self._key(b"v%d" % self.rng.randrange(3)), self.token()
        self.values[key] = value
        return [Ask(words("SET", key, value), exactly(b"OK"))]

    def _get(self) -> list[Ask]:
        key = self._key(b"v%d" % self.rng.randrange(3))
        return [Ask(words("GET", key), exactly(self.values.get(key)))]

    def _big(self) -> list[Ask]:
        key = self._key(b"big")
        value = self.big()
        return [
            Ask(words("SET", key, value), exactly(b"OK")),
            Ask(words("GET", key), exactly(value)),
            Ask(words("DEL", key), exactly(1)),
        ]

    def _many(self) -> list[Ask]:
        tokens = [self.token() for _ in range(self.rng.randrange(1, 30))]
        script = "return ARGV"
        return [Ask(words("EVAL", script, "0", *tokens), exactly(tokens))]

    def _incr(self) -> list[Ask]:
        key = self._key(b"n")
        return [Ask(words("INCR", key), exactly(self.count(key)), key)]

    def _transaction(self) -> list[Ask]:
        key, token = self._key(b"t"), self.token()
        count = self.count(key)
        begin = [
            Ask(words("MULTI"), exactly(b"OK")),
            Ask(words("INCR", key), exactly(b"QUEUED")),
            Ask(words("ECHO", token), exactly(b"QUEUED")),
        ]
        if self.rng.random() < 0.2:
            self.counts[key] -= 1
            return [*begin, Ask(words("DISCARD"), exactly(b"OK"))]
        return [*begin, Ask(words("EXEC"), exactly([count, token]), key)]

    def _watch(self) -> list[Ask]:
        key, token = self._key(b"w"), self.token()
        return [
            Ask(words("WATCH", key), exactly(b"OK")),
            Ask(words("ECHO", token), exactly(token)),
            Ask(words("UNWATCH"), exactly(b"OK")),
        ]

    def _block(self) -> list[Ask]:
        key, token = self._key(b"l"), self.token()
        if self.rng.random() < 0.3:
            return [Ask(words("BLPOP", self._key(b"empty"), "0.02"), exactly(None))]
        return [
            Ask(words("RPUSH", key, token), exactly(1)),
            Ask(words("BLPOP", key, "1"), exactly([key, token])),
        ]

    def _select(self) -> list[Ask]:
        self.database = self.rng.randrange(DATABASES)
        return [Ask(words("SELECT", str(self.database)), exactly(b"OK"))]

    def _where(self) -> list[Ask]:
        return [Ask(words("GET", "where"), exactly(b"%d" % self.database))]

    def _hello(self) -> list[Ask]:
        self.version = version = self.rng.choice((2, 3))

        def fits(reply: Any) -> bool:
            items = reply.items if isinstance(reply, Pairs) else reply
            return isinstance(reply, Pairs) == (version == 3) and version in items

        return [Ask(words("HELLO", str(version)), fits)]

    def _hash(self) -> list[Ask]:
        want = [b"is", b"%d" % self.database]
        return [Ask(words("HGETALL", "hash"), exactly(Pairs(want) if self.version == 3 else want))]

    def _wrong(self) -> list[Ask]:
        return [Ask(words("INCR", "where2"), lambda r: _failed(r, b"ERR value is not an integer"))]

    def _name(self) -> list[Ask]:
        token = self.token()
        return [
            Ask(words("CLIENT", "SETNAME", token), exactly(b"OK")),
            Ask(words("CLIENT", "GETNAME"), exactly(token)),
        ]

    def _subscribe(self) -> list[Ask]:
        self.tunnel()
        channel = self.token()
        return [Ask(words("SUBSCRIBE", channel), exactly([b"subscribe", channel, 1]))]

    def _subscribed(self) -> list[Ask]:
        token = self.token()
        reply = token if self.version == 3 else [b"pong", token]
        return [Ask(words("PING", token), exactly(reply))]


def _failed(reply: Any, text: bytes) -> bool:
    return isinstance(reply, Failure) and reply.text.startswith(text)


def prepare() -> tuple[bytes, int]:
    """Return what is sent to a fresh server, and how many replies that brings."""
    asks = []
    for database in range(DATABASES):
        asks += [
            words("SELECT", str(database)),
            words("SET", "where", str(database)),
            words("SET", "where2", "no number"),
            words("DEL", "hash"),
            words("HSET", "hash", "is", str(database)),
        ]
    return b"".join(asks), len(asks)

"""HTTP/1.1 for the checker, as Chronos speaks it; a reply is its status and its body."""

import re
from collections.abc import Callable
from typing import Any

from tests.faults.asks import TOKEN, Ask, Talk, exactly
from tests.faults.scripted import get

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
PROXYS = (502, 503, 504)


class Http1Talk(Talk):
    """What one connection to Chronos says."""

    writes = re.compile(rb"\r\n\r\n" + TOKEN)

    def kinds(self) -> list[tuple[Callable[[], list[Ask]], float]]:
        """See `Talk`."""
        return [
            (self._put, 10), (self._get, 30), (self._head, 5), (self._missing, 5),
            (self._delete, 3), (self._chunked, 3), (self._expect, 2), (self._big, 2),
            (self._page, 2), (self._not_allowed, 2), (self._upgrade, 1), (self._content, 1),
            (self._close, 0.7), (self._old, 0.5), (self._old_alive, 2), (self._absolute, 2),
        ]  # fmt: skip

    @staticmethod
    def parse(buf: bytearray, at: int, ask: Ask) -> tuple[Any, int] | None:
        """See `Talk`; interim replies are passed over."""
        while (stop := buf.find(b"\r\n\r\n", at) + 4) > 3:
            status = STATUS.match(buf, at, stop)
            assert status is not None, f"no status line: {bytes(buf[at : at + 60])!r}"
            code = int(status[1])
            if code == 100:
                at = stop
                continue
            length = LENGTH.search(buf, at, stop)
            assert length is not None, f"no length: {bytes(buf[at:stop])!r}"
            end = stop if ask.bodiless and code not in PROXYS else stop + int(length[1])
            return ((code, bytes(buf[stop:end])), end) if len(buf) >= end else None
        return None

    @staticmethod
    def gave_up(reply: Any) -> str:
        """See `Talk`."""
        return f"{reply[0]} {reply[1].decode()}" if reply[0] in PROXYS else ""

    def _path(self) -> str:
        return f"/kv/{self.who.decode()}:{self.rng.randrange(3)}"

    def _fields(self) -> list[str]:
        """Return fields that mean nothing; few sets of them, so that memos are met too."""
        return self.rng.choice(([], ["Accept: */*"], ["User-Agent: checker", "X-Empty:"]))

    def _stored(self, path: str, data: bytes, head: bytes) -> Ask:
        self.values[path.encode()] = data
        return Ask(head, exactly((200, b"OK\n")))

    def _put(self) -> list[Ask]:
        path, value = self._path(), self.token() + b"\r\n\r\n" * self.rng.choice((0, 0, 1, 9))
        head = get(path, f"Content-Length: {len(value)}", *self._fields(), method="PUT")
        return [self._stored(path, value, head + value)]

    def _chunked(self) -> list[Ask]:
        path, parts = self._path(), [self.token() for _ in range(self.rng.randrange(5))]
        head = get(path, "Transfer-Encoding: chunked", *self._fields(), method="PUT")
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        return [self._stored(path, b"".join(parts), head + body)]

    def _expect(self) -> list[Ask]:
        path, value = self._path(), self.token()
        fields = (f"Content-Length: {len(value)}", "Expect: 100-continue")
        return [self._stored(path, value, get(path, *fields, method="PUT") + value)]

    def _big(self) -> list[Ask]:
        path, value = f"/kv/{self.who.decode()}:big", self.big()
        head = get(path, f"Content-Length: {len(value)}", method="PUT")
        return [
            self._stored(path, value, head + value),
            Ask(get(path), exactly((200, value))),
            Ask(get(path, method="DELETE"), exactly((200, b"OK\n"))),
        ]

    def _known(self, *fields: str, **how: str) -> Ask:
        path = self._path()
        value = self.values.get(path.encode())
        want = (404, b"no such key\n") if value is None else (200, value)
        if how.get("method") == "HEAD":
            return Ask(get(path, *fields, **how), exactly((want[0], b"")), bodiless=True)
        return Ask(get(path, *fields, **how), exactly(want))

    def _get(self) -> list[Ask]:
        return [self._known(*self._fields())]

    def _head(self) -> list[Ask]:
        return [self._known(*self._fields(), method="HEAD")]

    def _old_alive(self) -> list[Ask]:
        return [self._known("Connection: keep-alive", version="1.0")]

    def _upgrade(self) -> list[Ask]:
        """One that Chronos passes over: the connection stays what it is."""
        return [self._known("Connection: upgrade", "Upgrade: nothing")]

    def _absolute(self) -> list[Ask]:
        path = self._path()
        value = self.values.get(path.encode())
        want = (404, b"no such key\n") if value is None else (200, value)
        return [Ask(get(f"http://test{path}"), exactly(want))]

    def _content(self) -> list[Ask]:
        """A GET with a body, which pins."""
        ask = self._known("Content-Length: 5")
        return [ask._replace(data=ask.data + b"hello")]

    def _close(self) -> list[Ask]:
        self.finished = True
        return [self._known("Connection: close")]

    def _old(self) -> list[Ask]:
        self.finished = True
        return [self._known(version="1.0")]

    def _missing(self) -> list[Ask]:
        return [Ask(get("/kv/no-such-key"), exactly((404, b"no such key\n")))]

    def _delete(self) -> list[Ask]:
        path = self._path()
        self.values.pop(path.encode(), None)
        return [Ask(get(path, method="DELETE"), exactly((200, b"OK\n")))]

    def _page(self) -> list[Ask]:
        return [Ask(get("/"), lambda reply: reply[0] == 200 and b"Chronos" in reply[1])]

    def _not_allowed(self) -> list[Ask]:
        return [Ask(get("/", "Content-Length: 0", method="POST"), lambda reply: reply[0] == 405)]

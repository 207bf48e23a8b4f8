"""Which server a TLS client asks for, read from its ClientHello without ending TLS.

    record(s): type 22, version, length │ handshake: type 1, length │ … │ extension 0: server_name

Sans-I/O: whoever peeks feeds what has come behind what was fed before, in any split. The hello may
lie in several records. It is kept until it is whole, MAX_HELLO_BYTES of it at most; bytes that are
no ClientHello, or that ask for nobody, end in no name: where such a client goes is not decided
here, and what is wrong with its hello its server will tell it.

Source: RFC 8446, 4.1.2 and 5.1; RFC 6066, 3. nginx's ssl_preread reads as much.
"""

from typing import Final

MAX_HELLO_BYTES: Final = 16_384
"""Of a ClientHello; one with a post-quantum key share and a ticket has 2,000 or 3,000. It is what
nginx (`preread_buffer_size`) and HAProxy (`tune.bufsize`) look at, too."""

_RECORD_HEAD, _HANDSHAKE_HEAD = 5, 4
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_MAX_RECORD = 16_384
_MAX_HOST_CHARS = 255  # RFC 1035, 2.3.4


class ClientHello:
    """Reads one hello."""

    __slots__ = ("_body", "_head", "_left", "_missing", "done", "name")

    def __init__(self) -> None:
        self.done = False
        """Nothing more will be learnt."""
        self.name = ""
        """The host name that the client asks for, in lower case; empty if it asks for none."""
        self._head = b""  # of a record that has begun
        self._left = 0  # bytes of the record that have to come
        self._body = bytearray()  # what has come of the handshake message
        self._missing = _HANDSHAKE_HEAD  # how many more bytes of it have to come, as far as known

    @property
    def need(self) -> int:
        """How many bytes more it takes, at least, to learn anything."""
        if self._left:
            return min(self._left, self._missing)
        return _RECORD_HEAD - len(self._head)

    def feed(self, data: bytes) -> None:
        """Take what has come behind what was fed before."""
        at = 0
        while at < len(data) and not self.done:
            at += self._take(data[at : at + self.need])

    def _take(self, part: bytes) -> int:
        if self._left:
            self._left -= len(part)
            self._missing -= len(part)
            self._body += part
            if not self._missing:
                self._go_on()
            return len(part)
        self._head += part
        if self._head[0] != _HANDSHAKE or self._head[1:2] not in {b"", b"\3"}:
            self.done = True
        elif len(self._head) == _RECORD_HEAD:
            self._left = int.from_bytes(self._head[3:], "big")
            self._head = b""
            # A handshake record may not be empty (RFC 8446, 5.1): such would never end.
            self.done = not 0 < self._left <= _MAX_RECORD
        return len(part)

    def _go_on(self) -> None:
        """Learn how long the message is, or what it says."""
        if len(self._body) > _HANDSHAKE_HEAD:
            self.name = _server_name(memoryview(self._body)[_HANDSHAKE_HEAD:])
            self.done = True
            return
        self._missing = int.from_bytes(self._body[1:], "big")
        self.done = self._body[0] != _CLIENT_HELLO or not 0 < self._missing <= MAX_HELLO_BYTES


def _server_name(hello: memoryview) -> str:
    """Return the host name in a whole ClientHello; empty when there is none, or no sense in it."""
    at = 2 + 32  # version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        at += width + int.from_bytes(hello[at : at + width], "big")
    at += 2  # length of the extensions, which end with the hello
    while at + 4 <= len(hello):
        kind = int.from_bytes(hello[at : at + 2], "big")
        stop = at + 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _SERVER_NAME:
            return _first_host(hello[at + 4 : stop]) if stop <= len(hello) else ""
        at = stop
    return ""


def _first_host(names: memoryview) -> str:
    at = 2  # length of the list, which ends with the extension
    while at + 3 <= len(names):
        stop = at + 3 + int.from_bytes(names[at + 1 : at + 3], "big")
        if names[at] == _HOST_NAME:
            host = bytes(names[at + 3 : stop])
            sensible = stop <= len(names) and host.isascii() and len(host) <= _MAX_HOST_CHARS
            return host.decode().lower() if sensible else ""
        at = stop
    return ""

"""The PROXY protocol: who a connection is really from, said by a proxy before its first byte.

    proxy ─▶ v1: a line of text, at most 107 bytes │ v2: 16 bytes and as many as they say ─▶ payload

Sans-I/O: the parser takes any split, and never a byte behind the header, so that whoever reads from
a socket peeks, feeds, and consumes what was taken. It keeps at most a line or the addresses, and
passes over the rest of a v2 header (type-length-values) without looking. Whether a header is there
is never guessed: bytes that are none are an error as soon as they cannot become one.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

import re
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

MAX_V1_BYTES: Final = 107
"""Both addresses of IPv6 behind `UNKNOWN`, and CR LF."""

_V1_START = b"PROXY "
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP[46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_LAYOUTS = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_MIN_LENGTHS = {1: 12, 2: 36, 3: 216}  # by family: IPv4, IPv6, unix
_MAX_KEPT = _V2_HEAD.size + 36


class ProxyProtocolError(ValueError):
    """Bytes that are no PROXY header; the text says why, for a log."""


class Endpoints(NamedTuple):
    """The ends of a connection as its first proxy saw them: host, without zone, and port."""

    source: tuple[str, int]
    destination: tuple[str, int]


class HeaderParser:
    """Parses one header of either version."""

    __slots__ = ("_held", "_skip", "done", "endpoints")

    def __init__(self) -> None:
        self.done = False
        """The header is complete; what follows is payload."""
        self.endpoints: Endpoints | None = None
        """What it says; None: nothing, so the connection's own ends are the true ones."""
        self._held = b""
        self._skip = 0  # bytes of the header that have to come and say nothing

    def feed(self, data: bytes) -> int:
        """Take from the beginning of `data` what belongs to the header; returns how many bytes.

        Raises:
            ProxyProtocolError: this is no header.
        """
        at = 0
        while at < len(data) and not self.done:
            at += self._pass_over(data, at) if self._skip else self._hold(data, at)
        return at

    def _pass_over(self, data: bytes, at: int) -> int:
        size = min(self._skip, len(data) - at)
        self._skip -= size
        self.done = not self._skip
        return size

    def _hold(self, data: bytes, at: int) -> int:
        """Keep what has to be understood, up to where it can be."""
        held = self._held
        first = held[:1] or data[at : at + 1]
        if first == _V1_START[:1]:
            limit = at + MAX_V1_BYTES - len(held)
            stop = data.find(b"\n", at, limit) + 1 or limit
        elif len(held) < _V2_HEAD.size:
            stop = at + _V2_HEAD.size - len(held)
        else:
            stop = at + self._kept_of_v2() - len(held)
        part = data[at:stop]
        self._held = held = held + part
        start = _V1_START if first == _V1_START[:1] else _V2_START
        if held[: len(start)] != start[: len(held)]:
            raise ProxyProtocolError("neither a PROXY line nor the signature of version 2")
        if start is _V1_START:
            self._understand_v1()
        elif len(held) >= _V2_HEAD.size and len(held) == self._kept_of_v2():
            self._understand_v2()
        return len(part)

    def _understand_v1(self) -> None:
        line = self._held
        if not line.endswith(b"\n"):
            if len(line) >= MAX_V1_BYTES:
                raise ProxyProtocolError(f"a PROXY line of more than {MAX_V1_BYTES} bytes")
            return
        match = _V1.fullmatch(line)
        if match is None:
            raise ProxyProtocolError("a malformed PROXY line")
        if match[1] is not None:
            family, *words = (word.decode() for word in match.groups())
            self.endpoints = _endpoints_of_v1(family, words)
        self.done = True

    def _kept_of_v2(self) -> int:
        """Return how long head and addresses are, as far as they are understood."""
        return min(_V2_HEAD.size + int.from_bytes(self._held[14:16], "big"), _MAX_KEPT)

    def _understand_v2(self) -> None:
        _, command, kind, length = _V2_HEAD.unpack_from(self._held)
        if command not in {_LOCAL, _PROXY}:
            raise ProxyProtocolError(f"version and command 0x{command:02x}")
        if command == _PROXY:  # a LOCAL one's family is to be ignored
            family, transport = kind >> 4, kind & 15
            if family > 3 or transport > 2 or length < _MIN_LENGTHS.get(family, 0):
                raise ProxyProtocolError(f"family and transport 0x{kind:02x} in {length} bytes")
            if (layout := _LAYOUTS.get(kind)) is not None:
                source, destination, *ports = layout.unpack_from(self._held, _V2_HEAD.size)
                self.endpoints = _endpoints(_host(source), _host(destination), *ports)
        self._skip = _V2_HEAD.size + length - len(self._held)
        self.done = not self._skip
        self._held = b""


def build_v1(ends: Endpoints | None) -> bytes:
    """Return a line that says these ends, or that they are not known."""
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    (source, port), (destination, to_port) = _same_family(ends)
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {port} {to_port}\r\n".encode()


def build_v2(ends: Endpoints | None) -> bytes:
    """Return a binary header that says these ends, or that they are not known."""
    if ends is None:
        return _V2_HEAD.pack(_V2_START, _PROXY, 0, 0)
    (source, port), (destination, to_port) = _same_family(ends)
    kind = _TCP6 if ":" in source else _TCP4
    addresses = _LAYOUTS[kind].pack(_packed(source), _packed(destination), port, to_port)
    return _V2_HEAD.pack(_V2_START, _PROXY, kind, len(addresses)) + addresses


def _endpoints_of_v1(family: str, words: list[str]) -> Endpoints:
    kind = IPv4Address if family == "TCP4" else IPv6Address
    try:
        source, destination = (kind(word).packed for word in words[:2])
    except ValueError:
        raise ProxyProtocolError(f"an address that is not one of {family}") from None
    ports = [int(word) for word in words[2:]]
    if max(ports) > 65_535:
        raise ProxyProtocolError("a port above 65535")
    return _endpoints(_host(source), _host(destination), *ports)


def _endpoints(source: str, destination: str, port: int, to_port: int) -> Endpoints:
    return Endpoints((source, port), (destination, to_port))


def _host(packed: bytes) -> str:
    """Write an address, an IPv4 one that was mapped into IPv6 as what it is (RFC 4291, 2.5.5.2)."""
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _same_family(ends: Endpoints) -> Endpoints:
    """Map an IPv4 end into IPv6 where the other one is of that."""
    if len({":" in host for host, _ in ends}) == 1:
        return ends
    mapped = [(host if ":" in host else f"::ffff:{host}", port) for host, port in ends]
    return Endpoints(*mapped)

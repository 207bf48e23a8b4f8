"""Every vector whole, byte by byte and with payload behind it; any split, any bytes."""

import codecs
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aegis.proxy_protocol import (
    MAX_V1_BYTES,
    Endpoints,
    HeaderParser,
    ProxyProtocolError,
    build_v1,
    build_v2,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PAYLOADS = (
    b"",
    b"SET a b\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    SIGNATURE,
    b"\n",
    b"\0" * 70,
)
MORE, NOTHING = "more", "nothing"


class Vector(NamedTuple):
    name: str
    says: str
    stream: bytes


def unescape(text: str) -> bytes:
    return codecs.decode(text, "unicode_escape").encode("latin-1").replace(b"{S}", SIGNATURE)


def vectors() -> Iterator[Vector]:
    file = Path(__file__).parent / "vectors" / "proxy_protocol.txt"
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            name, says, stream = line.split(" |", 2)
            yield Vector(name, says.strip(), unescape(stream.removeprefix(" ")))


VECTORS = list(vectors())


def said(parser: HeaderParser) -> str:
    if not parser.done:
        return MORE
    if parser.endpoints is None:
        return NOTHING
    return " ".join(f"{host} {port}" for host, port in parser.endpoints)


def parse(parts: Iterable[bytes]) -> tuple[str, int]:
    """Return what a header in these parts says, and how many bytes it took."""
    parser, used = HeaderParser(), 0
    for part in parts:
        if parser.done:
            break
        try:
            took = parser.feed(part)
        except ProxyProtocolError:
            return "error", used
        assert took == len(part) or parser.done, "what is left belongs to nobody"
        used += took
    return said(parser), used


def bytewise(stream: bytes) -> Iterator[bytes]:
    return (stream[i : i + 1] for i in range(len(stream)))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_header_says_the_same_in_any_two_parts_and_takes_no_byte_of_the_payload(
    vector: Vector,
) -> None:
    payloads = PAYLOADS if vector.says not in {MORE, "error"} else PAYLOADS[:1]
    for payload in payloads:
        stream = vector.stream + payload
        for cut in range(len(stream) + 1):
            says, used = parse([stream[:cut], stream[cut:]])
            assert says == vector.says
            assert says == "error" or used == len(vector.stream)
        assert parse(bytewise(stream))[0] == vector.says


def test_the_longest_rest_is_passed_over_and_not_kept() -> None:
    head = SIGNATURE + b"\x21\x11\xff\xff" + bytes((10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2))
    parser = HeaderParser()
    stream = head + b"\xee" * (65_535 - 12)
    assert parser.feed(stream[:40_000]) == 40_000
    assert not parser.done
    assert parser.feed(stream[40_000:] + b"payload") == len(stream) - 40_000
    assert parser.endpoints == (("10.0.0.1", 1), ("10.0.0.2", 2))


def test_bytes_that_cannot_become_a_header_are_an_error_at_once() -> None:
    for stream in (b"G", b"PROXX", b"\r\n\r\n\r", SIGNATURE[:-1] + b"x"):
        parser = HeaderParser()
        assert parser.feed(stream[:-1]) == len(stream) - 1
        with pytest.raises(ProxyProtocolError):
            parser.feed(stream[-1:])


def test_a_line_without_end_is_refused_at_its_longest() -> None:
    parser = HeaderParser()
    assert parser.feed(b"PROXY UNKNOWN ".ljust(MAX_V1_BYTES - 1, b"x")) == MAX_V1_BYTES - 1
    with pytest.raises(ProxyProtocolError, match="more than 107"):
        parser.feed(b"x")


HOSTS = st.ip_addresses().map(str)
ENDS = st.builds(
    Endpoints,
    st.tuples(HOSTS, st.integers(0, 65_535)),
    st.tuples(HOSTS, st.integers(0, 65_535)),
)


@given(ends=ENDS, binary=st.booleans(), payload=st.binary(max_size=50), data=st.data())
def test_what_is_built_is_understood_in_any_split(
    ends: Endpoints, binary: bool, payload: bytes, data: st.DataObject
) -> None:
    header = (build_v2 if binary else build_v1)(ends)
    assert binary or len(header) <= MAX_V1_BYTES
    stream = header + payload
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    says, used = parse(parts)
    assert used == len(header)
    assert says == " ".join(f"{unmapped(host)} {port}" for host, port in ends)


def unmapped(host: str) -> str:
    parser = HeaderParser()
    parser.feed(f"PROXY TCP{6 if ':' in host else 4} {host} {host} 1 2\r\n".encode())
    assert parser.endpoints is not None
    return parser.endpoints.source[0]


def test_two_families_are_said_as_one() -> None:
    ends = Endpoints(("10.0.0.1", 1), ("2001:db8::1", 2))
    assert build_v1(ends) == b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n"
    assert parse([build_v2(ends)])[0] == "10.0.0.1 1 2001:db8::1 2"


def test_ends_that_are_not_known_are_said_to_be_so() -> None:
    assert build_v1(None) == b"PROXY UNKNOWN\r\n"
    assert parse([build_v2(None)]) == (NOTHING, 16)


@given(prefix=st.sampled_from([b"", b"PROXY ", SIGNATURE]), data=st.binary(max_size=300))
@example(prefix=SIGNATURE, data=b"\x21\x31\x00\xd8" + b"/run/a".ljust(108, b"\0") * 2)
def test_any_bytes_are_a_header_or_an_error_and_little_is_kept(prefix: bytes, data: bytes) -> None:
    parser = HeaderParser()
    with contextlib.suppress(ProxyProtocolError):
        for part in bytewise(prefix + data):
            parser.feed(part)
            assert len(parser._held) <= MAX_V1_BYTES

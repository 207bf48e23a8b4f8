"""ClientHellos of OpenSSL itself, and made by hand, in any split over records and reads."""

import contextlib
import ssl
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.client_hello import MAX_HELLO_BYTES, ClientHello


def openssl_hello(name: str | None, *, alpn: int = 0) -> bytes:
    """Return what a stock client sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols([f"protocol-{i}" for i in range(alpn)])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(data, 2)


def server_name(*names: tuple[int, bytes]) -> bytes:
    return extension(0, vector(b"".join(bytes([kind]) + vector(n, 2) for kind, n in names), 2))


def message(extensions: bytes | None, *, kind: int = 1, session: bytes = b"") -> bytes:
    """Return a handshake message that is a ClientHello with these extensions."""
    hello = b"\3\3" + bytes(32) + vector(session, 1) + vector(b"\x13\x01", 2) + b"\1\0"
    if extensions is not None:
        hello += vector(extensions, 2)
    return bytes([kind]) + vector(hello, 3)


def records(handshake: bytes, size: int = 16_384, *, kind: int = 22, version: int = 3) -> bytes:
    """Return the message in records of so many bytes each."""
    parts = (handshake[i : i + size] for i in range(0, len(handshake), size))
    return b"".join(bytes([kind, version, 1]) + vector(part, 2) for part in parts)


def read(*parts: bytes) -> ClientHello:
    hello = ClientHello()
    for part in parts:
        hello.feed(part)
    return hello


DB1 = server_name((0, b"db1.example.org"))
NAMED = message(extension(10, b"\0\2\0\x1d") + DB1 + extension(43, b"\2\3\4"))


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        pytest.param(records(NAMED), "db1.example.org", id="plain"),
        pytest.param(records(NAMED) + b"more" * 9, "db1.example.org", id="with more behind it"),
        pytest.param(records(message(DB1, session=b"s" * 32)), "db1.example.org", id="session"),
        pytest.param(records(NAMED, 1), "db1.example.org", id="a byte in each record"),
        pytest.param(
            records(message(server_name((0, b"DB.Example")))), "db.example", id="capitals"
        ),
        pytest.param(
            records(message(server_name((7, b"x"), (0, b"a.b")))), "a.b", id="another type first"
        ),
        pytest.param(
            records(message(extension(1, b"") + DB1)), "db1.example.org", id="an empty one"
        ),
        pytest.param(records(message(extension(16, b"x" * 9))), "", id="no server_name"),
        pytest.param(records(message(b"")), "", id="no extension"),
        pytest.param(records(message(None)), "", id="not even extensions"),
        pytest.param(records(message(server_name())), "", id="no name in the list"),
        pytest.param(records(message(extension(0, b""))), "", id="no list"),
        pytest.param(records(message(server_name((0, b"")))), "", id="an empty name"),
        pytest.param(records(message(server_name((0, b"d\xfc.org")))), "", id="no ASCII"),
        pytest.param(records(message(server_name((0, b"a" * 256)))), "", id="a name too long"),
        pytest.param(records(message(b"\0\0\0\x09\0\x07\0\0\xffa.b")), "", id="a length too large"),
        pytest.param(records(message(b"\0\0\xff\xff" + b"x" * 5)), "", id="an extension too long"),
        pytest.param(records(message(DB1, kind=2)), "", id="a ServerHello"),
        pytest.param(records(NAMED, kind=23), "", id="application data"),
        pytest.param(records(NAMED, version=2), "", id="another version"),
        pytest.param(b"\x16\3\1\0\0" * 3, "", id="an empty record"),
        pytest.param(b"\x16\3\1\x40\x01", "", id="a record too long"),
        pytest.param(records(b"\1\0\0\0rest"), "", id="a message of no length"),
        pytest.param(b"\x80\x2e\1\0\2", "", id="SSL 2"),
        pytest.param(b"GET / HTTP/1.1\r\n", "", id="HTTP"),
        pytest.param(b"\0\0\0\x08\x04\xd2\x16\x2f", "", id="PostgreSQL's SSLRequest"),
    ],
)
def test_a_hello_says_the_same_in_any_two_parts(stream: bytes, name: str) -> None:
    for cut in range(len(stream) + 1):
        hello = read(stream[:cut], stream[cut:])
        assert (hello.name, hello.done) == (name, True)
    assert read(*(stream[i : i + 1] for i in range(len(stream)))).name == name


@pytest.mark.parametrize("name", ["db1.example.org", "xn--bcher-kva.example", None])
def test_openssl_s_own_hello_is_understood(name: str | None) -> None:
    for alpn in (0, 40):
        stream = openssl_hello(name, alpn=alpn)
        assert read(stream).name == (name or "")
        assert read(records(stream[5:], 100)).name == (name or "")


def test_what_is_needed_is_never_more_than_what_is_missing() -> None:
    stream = records(NAMED, 40)
    hello, at = ClientHello(), 0
    rounds = 0
    while not hello.done:
        need = hello.need
        assert 0 < need <= len(stream) - at, "who waits for more would wait for ever"
        hello.feed(stream[at : at + need])
        at += need
        rounds += 1
    assert hello.name == "db1.example.org"
    assert rounds <= 2 * -(-len(NAMED) // 40) + 1, "one look for each head, one for each body"


def test_a_hello_that_is_not_whole_is_not_done() -> None:
    stream = records(NAMED)
    assert not any(read(stream[:cut]).done for cut in range(len(stream)))


@pytest.mark.parametrize(("size", "named"), [(MAX_HELLO_BYTES, True), (MAX_HELLO_BYTES + 1, False)])
def test_the_largest_hello_is_read_and_a_larger_one_at_once_not(size: int, named: bool) -> None:
    padding = size - len(message(DB1 + extension(21, b""))) + 4
    stream = records(message(DB1 + extension(21, bytes(padding))), 1000)
    assert read(stream).name == ("db1.example.org" if named else "")
    assert read(stream[:9]).done is not named


def splits(stream: bytes, data: st.DataObject) -> Iterator[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    yield from (stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))


@given(
    start=st.sampled_from([b"", records(NAMED)[:9], records(NAMED)[:60]]),
    rest=st.binary(max_size=400),
    data=st.data(),
)
def test_any_bytes_in_any_split_end_the_same(
    start: bytes, rest: bytes, data: st.DataObject
) -> None:
    one, other = read(start + rest), read(*splits(start + rest, data))
    assert (one.name, one.done) == (other.name, other.done)


@given(name=st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True), size=st.integers(1, 99))
def test_any_name_in_records_of_any_size_is_found(name: str, size: int) -> None:
    assert read(records(message(server_name((0, name.encode()))), size)).name == name


def test_memory_is_bounded_whatever_comes() -> None:
    endless = records(b"\1" + (MAX_HELLO_BYTES).to_bytes(3, "big") + bytes(MAX_HELLO_BYTES - 1), 1)
    tracemalloc.start()
    try:
        hello = read(endless)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert not hello.done
    assert size < 2 * MAX_HELLO_BYTES

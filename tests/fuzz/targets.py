"""What the fuzzer runs: each target takes any bytes, and raises if Aegis does not bear them.

    framer-requests   scan: any split gives the same frames; follow: the same
    framer-replies    any split gives the same ends
    proxy-protocol    any split says the same and takes the same bytes, and none behind the header
    client-hello      any split asks for the same name
    config            a file of any text is a configuration or a list of problems
    messages          a message of any bytes is one of the bus's or unreadable
    curve-keys        a key file of any bytes is a key, or refused with its path

The first bytes of a stream's input decide the splits, the reply's note and how often it repeats.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from aegis.bus import UNREADABLE
from aegis.client_hello import MAX_HELLO_BYTES, ClientHello
from aegis.config import config_digest
from aegis.config_file import load_config
from aegis.curve import own_pair, public_key
from aegis.errors import AegisError, ConfigError
from aegis.framers.contract import Framer
from aegis.framers.registry import make_framer
from aegis.messages import (
    Boot,
    Desired,
    Reply,
    Report,
    Request,
    Telemetry,
)
from aegis.proxy_protocol import MAX_V1_BYTES, HeaderParser, ProxyProtocolError
from aegis.session_records import SessionBatch
from aegis.status_messages import (
    Status,
)
from control.exporter.session_lines import LINES, NO_INSTANT
from tests.fuzz.splits import OVER, followed, kept, pieces, replies_of, requests_of

Target = Callable[[bytes], None]
PROTOCOLS = ("line", "resp", "memcached", "http1")
SPLIT_BYTES = 6
LONG_STREAM_BYTES = 96 << 10
LONG_SCALE = 512
"""Pieces of a long stream are so much longer."""
KEPT_BESIDE = 1000
"""What a parser takes itself, without what it keeps of a stream."""


def stream_of(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return two lists of sizes to split by, and the stream."""
    return data[:3], data[3:SPLIT_BYTES], data[SPLIT_BYTES + 1 :]


def long_stream(data: bytes) -> bytes:
    """Return the stream repeated until a parser that keeps it is found out, for few inputs."""
    stream = data[SPLIT_BYTES + 1 :]
    often = data[SPLIT_BYTES : SPLIT_BYTES + 1] == b"\xff"
    return stream * (LONG_STREAM_BYTES // max(1, len(stream))) if often else b""


def check_requests(framer: Framer, data: bytes) -> None:
    """Hold what follows a client to the contract."""
    one, other, stream = stream_of(data)
    if long := long_stream(data):
        requests_of(framer, pieces(long, one, LONG_SCALE), most_scans=100)
        followed(framer, long, one, LONG_SCALE)
        return
    whole = requests_of(framer, [stream] if stream else [])
    assert requests_of(framer, pieces(stream, one)) == whole
    assert requests_of(framer, pieces(stream, other)) == whole
    at_once = followed(framer, stream, one)
    assert followed(framer, stream, other) == at_once


def check_replies(framer: Framer, data: bytes) -> None:
    """Hold what follows a pipe to the contract."""
    one, other, stream = stream_of(data)
    note = (data[SPLIT_BYTES] & 31 if len(data) > SPLIT_BYTES else 0) * (framer.in_flight == 1)
    if long := long_stream(data):
        replies_of(framer, pieces(long, one, LONG_SCALE), 1000, note)
        return
    whole = replies_of(framer, [stream] if stream else [], 1, note)
    assert replies_of(framer, pieces(stream, one), 1, note) == whole
    assert replies_of(framer, pieces(stream, other), 1, note) == whole
    many = replies_of(framer, pieces(stream, one), 3, note)
    if OVER not in whole:
        assert sum(_count(event) for event in many) == sum(_count(event) for event in whole)


def _count(event: tuple[Any, ...]) -> int:
    return 0 if event[0] == "BEGUN" else int(event[0])


def check_proxy_protocol(data: bytes) -> None:
    """Read a PROXY header in two splits."""
    one, other, stream = stream_of(data)
    assert _header(stream, one) == _header(stream, other)


def _header(stream: bytes, sizes: bytes) -> tuple[Any, ...]:
    parser, used = HeaderParser(), 0
    for part in pieces(stream, sizes):
        try:
            took = parser.feed(part)
        except ProxyProtocolError:
            return OVER
        used += took
        assert kept(parser) < KEPT_BESIDE + MAX_V1_BYTES
        if parser.done:
            break
        assert took == len(part)
    return parser.done, parser.endpoints, used


def check_client_hello(data: bytes) -> None:
    """Read a ClientHello in two splits."""
    one, other, stream = stream_of(data)
    stream = long_stream(data) or stream
    assert _hello(stream, one) == _hello(stream, other)


def _hello(stream: bytes, sizes: bytes) -> tuple[bool, str]:
    hello = ClientHello()
    for part in pieces(stream, sizes):
        hello.feed(part)
        assert hello.done or hello.need > 0
        assert kept(hello) < KEPT_BESIDE + 2 * MAX_HELLO_BYTES
    return hello.done, hello.name


def check_config(data: bytes) -> None:
    """Read a configuration: whatever is in the file, it is one or has a list of problems."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".toml") as file:
        path = Path(file.name)
        path.write_bytes(data)
        try:
            config = load_config(path)
        except ConfigError as error:
            problems = error.problems
        else:
            problems = []
    if problems:
        assert all(line.isprintable() for line in problems), problems
        return
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=type(config))
    assert again == config
    assert config_digest(again) == config_digest(config)


def check_message(data: bytes) -> None:
    """Decode a message as each process does."""
    for kind in (Request, Reply, Telemetry, Desired, Report, Boot, Status):
        try:
            message = msgspec.msgpack.decode(data, type=kind)
        except UNREADABLE:
            continue
        msgspec.msgpack.encode(message)
    try:
        batch = msgspec.msgpack.decode(data, type=SessionBatch)
        lines = [line(batch, record) for line in LINES.values() for record in batch.records]
    except (*UNREADABLE, *NO_INSTANT):
        return
    "".join(lines).encode()


def check_curve_keys(data: bytes) -> None:
    """Read a key file: whatever is in it, it is a key or refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        path = Path(name, "proxy.key_secret")
        path.touch(0o600)
        path.write_bytes(data)
        for read in (partial(own_pair, path.parent, "proxy"), partial(public_key, path)):
            refusal = f"{path}: "
            try:
                read()
            except AegisError as error:
                refusal = str(error)
            assert refusal.startswith(f"{path}: ")


def _framer_target(protocol: str, check: Callable[[Framer, bytes], None]) -> Target:
    def target(data: bytes) -> None:
        check(make_framer(protocol), data)

    return target


TARGETS: dict[str, Target] = {
    **{f"{each}-requests": _framer_target(each, check_requests) for each in PROTOCOLS},
    **{f"{each}-replies": _framer_target(each, check_replies) for each in PROTOCOLS},
    "proxy-protocol": check_proxy_protocol,
    "client-hello": check_client_hello,
    "config": check_config,
    "messages": check_message,
    "curve-keys": check_curve_keys,
}

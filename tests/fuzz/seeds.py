"""Where the fuzzer begins: well-formed bytes of every kind, for each target."""

from pathlib import Path

import msgspec
import zmq

from aegis.config_file import load_config
from aegis.figures import Figures
from aegis.framers.resp_state import encode
from aegis.messages import (
    Accepted,
    Boot,
    Desired,
    Drain,
    Refused,
    Report,
    ServerWish,
    SetServer,
    StatusRequest,
    Stop,
    Supervision,
)
from aegis.session_records import SessionBatch, SessionRecord
from tests.aegis.test_client_hello import NAMED, openssl_hello, records
from tests.aegis.test_proxy_protocol import VECTORS as HEADERS
from tests.framers.test_http1_vectors import REPLIES, REQUESTS
from tests.framers.test_memcached_requests import ANSWERED, REFUSED, SHARED, TUNNELLED, UNHEARD
from tests.fuzz.targets import SPLIT_BYTES

SAMPLE = Path(__file__).parents[2] / "ops" / "aegis.toml"
CONTROL = bytes(range(0, 11 * SPLIT_BYTES, 11)) + b"\0"

LINE = [
    b"SET key value\n",
    b"\r\n",
    b"GET k\nPING\n",
    b"GET / HTTP/1.1\r\n",
    b"OK\nERR why\nNULL\n",
]
RESP = [
    encode(b"SET", b"key", b"value", b"EX", b"60"),
    encode(b"HELLO", b"3", b"AUTH", b"u", b"p"),
    encode(b"MULTI") + encode(b"INCR", b"a") + encode(b"EXEC"),
    encode(b"SUBSCRIBE", b"c"),
    encode(b"XREAD", b"BLOCK", b"0", b"STREAMS", b"s", b"0"),
    encode(b"CLIENT", b"SETNAME", b"me") + encode(b"SELECT", b"1"),
    b"set key value\r\n*0\r\n*-1\r\n" + encode(b"GET", b"v" * 200),
]
RESP_REPLIES = [
    b"+OK\r\n-ERR no\r\n:7\r\n$3\r\nabc\r\n$-1\r\n*-1\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n",
    b"%1\r\n+k\r\n,1.5\r\n~1\r\n#t\r\n_\r\n(12345678901\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n",
    b"|1\r\n+ttl\r\n:3\r\n+OK\r\n>1\r\n+x\r\n",
]
KEY_FILE = b'metadata\n    made = "now"\ncurve\n    public-key = "%s"\n    secret-key = "%s"\n'
MEMCACHED_REPLIES = [
    b"VALUE a 0 1\r\n7\r\nVALUE b 0 0 9\r\n\r\nEND\r\nSTORED\r\n",
    b"VA 2 f0\r\nhi\r\nHD t9\r\nEN\r\nMN\r\nSTAT pid 1\r\nEND\r\nSERVER_ERROR no\r\n",
]


def seeds(target: str) -> list[bytes]:
    """Return well-formed inputs of a target."""
    memcached = [*SHARED, *(each for each, _ in (*TUNNELLED, *ANSWERED, *REFUSED))]
    streams = {
        "line-requests": LINE,
        "line-replies": LINE,
        "resp-requests": RESP,
        "resp-replies": RESP_REPLIES,
        "memcached-requests": [*memcached, *(form % b" noreply" for form in UNHEARD)],
        "memcached-replies": MEMCACHED_REPLIES,
        "http1-requests": [vector.stream for vector in REQUESTS],
        "http1-replies": [vector.stream for vector in REPLIES],
        "proxy-protocol": [vector.stream + b"payload" for vector in HEADERS],
        "client-hello": [records(NAMED), records(NAMED, 7), openssl_hello("a.example")],
    }
    if target == "config":
        return [SAMPLE.read_bytes()]
    if target == "messages":
        return [msgspec.msgpack.encode(message) for message in _messages()]
    if target == "curve-keys":
        return [KEY_FILE % (b"a" * 40, b"b" * 40), KEY_FILE % zmq.curve_keypair()]
    return [CONTROL + stream[:2000] for stream in streams[target]]


def _messages() -> list[msgspec.Struct]:
    config = load_config(SAMPLE)
    figures = Figures(0, 7, "serving", [], [], 256)
    return [
        Boot(0, 0, "/run/aegis", config, "serving", {"http": 3}),
        Desired(
            1,
            2,
            "drained",
            3.5,
            0.5,
            servers={"chronos": [ServerWish("127.0.0.1:8080", 50, cut_at=4.5)]},
            shares={7: {"chronos": 8}},
            retired={9: 1.5},
        ),
        Report(1, 2, "0123456789abcdef", {"http": 3}, figures),
        figures,
        Supervision("serving", 2, []),
        StatusRequest(),
        Drain(1.5),
        SetServer("chronos/127.0.0.1:8080", admin="maint", weight=3),
        Stop(now=True),
        Accepted(3),
        Refused("why"),
        SessionBatch(0, 1.7e9, [SessionRecord("127.0.0.1:4000", "http", 5.5)]),
    ]

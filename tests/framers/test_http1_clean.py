"""Which requests of http1 leave a pipe as they found it, scanned and followed."""

import pytest

from aegis.framers.contract import Verdict
from aegis.framers.http1 import Http1

HOST = b"Host: x\r\n"
CLEAN = [
    (b"PURGE / HTTP/1.1\r\n%b\r\n", "method"),
    (b"CONNECT x:1 HTTP/1.1\r\n%b\r\n", "connect"),
    (b"GET / HTTP/1.1\r\n%bUpgrade: h2c\r\n\r\n", "upgrade"),
    (b"PUT / HTTP/1.1\r\n%bUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx", "upgrade"),
]
UNCLEAN = [
    (b"GET / HTTP/1.1\r\n%bContent-Length: 1\r\n\r\nx", "content"),
    (b"DELETE / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "content"),
    (b"PURGE / HTTP/1.1\r\n%bContent-Length: 1\r\n\r\nx", "method"),
    (b"GET / HTTP/1.1\r\n%bUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx", "upgrade"),
    (b"PUT / HTTP/1.1\r\n%bAuthorization: Negotiate x\r\n\r\n", "authentication"),
]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("form", "why", "clean"),
    [(*each, True) for each in CLEAN] + [(*each, False) for each in UNCLEAN],
)
def test_a_lone_request_tells_whether_its_pipe_is_as_before(
    form: bytes, why: str, clean: bool, size: int
) -> None:
    data = bytearray(form % HOST)
    special = Http1().requests().scan(data, 0, len(data))[2]
    assert special is not None
    assert special.verdict in {Verdict.PIN, Verdict.TUNNEL_IF_ACCEPTED}
    assert (special.why, special.clean) == (why, clean)
    requests = Http1().requests()
    for start in range(0, len(data), size):
        _, done = requests.follow(data, start, min(len(data), start + size))
    assert done
    assert requests.clean is clean


def test_a_shared_request_that_streams_leaves_nothing_after_one_that_did() -> None:
    requests = Http1().requests()
    for form, clean in ((UNCLEAN[0][0], False), (b"PUT / HTTP/1.1\r\n%b\r\n", True)):
        data = bytearray(form % HOST)
        assert requests.follow(data, 0, len(data)) == (len(data), True)
        assert requests.clean is clean

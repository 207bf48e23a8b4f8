"""What is said to have been sent is what the peer can decrypt, to the byte."""

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificates import Authority
from workers.tls_records import Records

NAME = "db.example.org"


class Pair:
    """Both ends of TLS in memory."""

    def __init__(self, contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]) -> None:
        server, client = contexts()
        self._wires = [ssl.MemoryBIO() for _ in range(4)]
        one, two, three, four = self._wires
        self.sender = server.wrap_bio(one, two, server_side=True)
        self.receiver = client.wrap_bio(three, four, server_hostname=NAME)
        left = {self.sender, self.receiver}
        while left:
            for end in list(left):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                    left.remove(end)
                one.write(four.read())
                three.write(two.read())

    def encrypt(self, data: bytes) -> bytes:
        self.sender.write(data)
        return self._wires[1].read()

    def deliver(self, records: bytes) -> int:
        """Give the receiver these bytes; returns how many it can read of them."""
        self._wires[2].write(records)
        count = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                count += len(self.receiver.read(1 << 16))
        return count


@pytest.fixture(scope="module", params=["1.2", "1.3"])
def contexts(request: pytest.FixtureRequest) -> Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]:
    with TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        server = authority.server_context(authority.issue(NAME))
        client = authority.client_context()
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    client.maximum_version = versions[request.param]
    return lambda: (server, client)


@settings(max_examples=60)
@given(
    sizes=st.lists(
        st.sampled_from([1, 100, 16_383, 16_384, 16_385, 40_000]), min_size=1, max_size=4
    ),
    steps=st.lists(st.integers(1, 20_000), min_size=1, max_size=20),
)
def test_bytes_have_been_sent_when_the_peer_can_read_them(
    contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]],
    sizes: list[int],
    steps: list[int],
) -> None:
    pair, records = Pair(contexts), Records()
    for size in sizes:
        records.add(pair.encrypt(bytes(size)), size)
    for step in [*steps, 1 << 20]:
        part = records.data[:step]
        assert records.sent(len(part)) == pair.deliver(part)
    assert records.data == b""


def test_records_that_are_not_the_caller_s_hold_none_of_its_bytes(
    contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]],
) -> None:
    pair, records = Pair(contexts), Records()
    ours = pair.encrypt(b"x" * 10)  # as if OpenSSL had something to say before what we say
    records.add(ours + pair.encrypt(b"y" * 20_000), 20_000)
    assert records.sent(len(ours)) == 0
    assert records.sent(len(records.data)) == 20_000
    records.add(ours, 0)
    assert records.sent(len(ours)) == 0

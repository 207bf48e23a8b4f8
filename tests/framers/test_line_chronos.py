"""line against a running Chronos: as many replies come as are counted."""

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aegis.framers.line import Line
from tests.framers.test_line_frames import HTTP_REQUESTS
from tests.framers.test_resp_vectors import frames_of, replies_of
from tests.ops.test_chronos_process import Chronos, running

LINE = Line()


@pytest.fixture(scope="module")
def chronos() -> Iterator[Chronos]:
    with (
        TemporaryDirectory(prefix="aegis-") as directory,
        running(Path(directory) / "db") as server,
    ):
        yield server


def random_line(rng: random.Random) -> bytes:
    words = [
        b"PING", b"SET k v", b"SET k ", b"SET k  HTTP/1.1", b"GET k", b"GET none", b"DEL k", b"",
        b"COMPACTED", b"get k", b"\r", b" ", b"\0", rng.randbytes(rng.randrange(30)),
    ]  # fmt: skip
    return rng.choice(words).replace(b"\n", b"") + rng.choice([b"\n", b"\r\n"])


def test_chronos_sends_as_many_replies_as_the_framer_counts(
    chronos: Chronos, rng: random.Random
) -> None:
    stream = b"".join(random_line(rng) for _ in range(3000))
    frames = frames_of(LINE, stream, [rng.randrange(1, 3000) for _ in range(50)])
    [(kind, taken, count)] = frames
    assert (kind, taken) == ("SHARE", stream)
    replies = chronos.ask(stream)
    found = replies_of(LINE, replies, [rng.randrange(1, 3000) for _ in range(50)])
    assert len(found) == count == replies.count(b"\n")
    assert found[-1][0] == len(replies)


def test_what_is_refused_as_http_would_have_changed_the_protocol(chronos: Chronos) -> None:
    for request in HTTP_REQUESTS[:4]:
        assert frames_of(LINE, request)[0][0] == "REFUSE"
        assert chronos.ask(request + b"Host: x\r\n\r\n").startswith(b"HTTP/1.1 ")


def test_the_ping_is_answered_by_one_line(chronos: Chronos) -> None:
    assert chronos.ask(LINE.ping) == b"PONG\n"
    assert replies_of(LINE, chronos.ask(LINE.reset.requests)) == [(5, False)]

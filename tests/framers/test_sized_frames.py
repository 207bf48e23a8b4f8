"""The base for frames with their size in the head: any split, any bytes, and what breaks it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.framers.contract import ProtocolError, Special, Verdict
from aegis.framers.sized import SizedFramer
from tests.framers.test_resp_vectors import follow, frames_of, replies_of
from tests.fuzz.targets import check_replies, check_requests


class Short(SizedFramer):
    """One byte of kind, one of size; kind 0 is none."""

    name = "short"
    head_bytes = 2

    def frame_bytes(self, head: bytes) -> int:
        if not head[0]:
            raise ProtocolError("a frame of kind 0")
        return 2 + head[1]

    def error(self, why: str) -> bytes:
        return b"!" + bytes([len(why)]) + why.encode()


bodies = st.lists(st.binary(max_size=255), max_size=6)
cuts_ = st.lists(st.integers(1, 300), max_size=30)


def stream_of(bodies: list[bytes]) -> bytes:
    return b"".join(b"k" + bytes([len(body)]) + body for body in bodies)


@given(bodies, cuts_)
@settings(deadline=None)
def test_frames_are_found_in_any_split(bodies: list[bytes], cuts: list[int]) -> None:
    stream = stream_of(bodies)
    shared = [("SHARE", stream, len(bodies))] if bodies else []
    assert frames_of(Short(), stream, cuts) == shared
    assert frames_of(Short(), stream + b"k\x03ab", cuts) == shared
    ends = [len(stream_of(bodies[: n + 1])) for n in range(len(bodies))]
    assert [end for end, _ in replies_of(Short(), stream, cuts)] == ends
    if bodies:
        assert follow(Short(), stream, cuts) == ends[0]


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    check_requests(Short(), data)
    check_replies(Short(), data)


def test_how_much_is_missing_is_told() -> None:
    requests = Short().requests()
    assert requests.scan(bytearray(b"k"), 0, 1) == (0, 0, None)
    assert requests.need == 2
    assert requests.scan(bytearray(b"k\x05ab"), 0, 4) == (0, 0, None)
    assert requests.need == 7


def test_a_wrong_frame_is_refused_behind_those_that_are_right_and_else_an_error() -> None:
    data = bytearray(b"k\x01a\x00\x01b")
    requests = Short().requests()
    refusal = Special(Verdict.REFUSE, 6, "malformed", Short().error("protocol_error"))
    assert requests.scan(data, 0, 6) == (3, 1, refusal)
    with pytest.raises(ProtocolError):
        requests.scan(data, 3, 6)
    with pytest.raises(ProtocolError):
        Short().replies().feed(data, 0, 6, 9, 0)


def test_a_reply_that_has_begun_is_known_from_its_first_byte() -> None:
    replies = Short().replies()
    assert not replies.begun
    for end, begun in ((1, True), (2, True), (3, False), (4, True)):
        replies.feed(bytearray(b"k\x01ak"), end - 1, end, 1, 0)
        assert replies.begun is begun
    assert not replies.end()

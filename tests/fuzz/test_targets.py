"""The fuzz targets themselves, over their seeds and a little chance: `make fuzz` runs them long."""

import random

import pytest

from aegis.framers.contract import Replies, Requests
from aegis.framers.line import Line, LineReplies, LineRequests
from tests.fuzz.seeds import CONTROL, seeds
from tests.fuzz.splits import kept
from tests.fuzz.targets import TARGETS, check_replies, check_requests

ROUNDS = 150


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_bears_its_seeds_and_what_chance_makes_of_them(
    target: str, rng: random.Random
) -> None:
    inputs = seeds(target)
    for each in inputs:
        TARGETS[target](each)
    for _ in range(ROUNDS):
        data = bytearray(rng.choice(inputs) + rng.choice(inputs)[len(CONTROL) :])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        TARGETS[target](bytes(data))


class Forgetful(LineRequests):
    """Takes the end of what has come for a line's end."""

    def scan(self, data: bytearray, start: int, end: int) -> tuple[int, int, None]:
        return end, data.count(b"\n", start, end) or 1, None


class Hoarder(LineReplies):
    """Keeps all it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = b""

    def feed(self, data: bytearray, start: int, end: int, limit: int, note: int) -> tuple[int, int]:
        self.seen += bytes(data[start:end])
        return super().feed(data, start, end, limit, note)


class Faulty(Line):
    """The framer of both."""

    def requests(self) -> Requests:
        return Forgetful()

    def replies(self) -> Replies:
        return Hoarder()


def test_a_split_that_changes_the_frames_is_found() -> None:
    with pytest.raises(AssertionError):
        check_requests(Faulty(), CONTROL + b"GET a\nGET b\n")


def test_a_parser_that_keeps_what_goes_by_is_found() -> None:
    often = CONTROL[:-1] + b"\xff"
    with pytest.raises(AssertionError):
        check_replies(Faulty(), often + b"x" * 2000 + b"\n")


def test_what_is_kept_is_counted_in_slots_and_out_of_them() -> None:
    hoarder = Hoarder()
    before = kept(hoarder)
    hoarder.seen = bytes(1000)
    assert kept(hoarder) - before == 1000

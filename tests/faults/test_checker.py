"""The checker, for a few seconds each; `python -m tests.faults.checker --help` for hours."""

import random

import pytest

from tests.faults.checker import check, options_of
from tests.faults.crowd import TALKS

SHAPES = {
    "default slabs": ["--max-connections", "8", "--clients", "24", "--big-bytes", "200000"],
    "tiny slabs": [
        "--slab-bytes", "64", "--slabs", "3", "--max-connections", "3", "--clients", "16",
        "--big-bytes", "3000",
    ],
    "one pipe": ["--max-connections", "1", "--clients", "8", "--slab-bytes", "512", "--slabs", "4"],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("protocol", TALKS)
def test_every_reply_reaches_who_asked_in_order_and_whole(
    protocol: str, shape: str, rng: random.Random
) -> None:
    arguments = ["--protocol", protocol, "--requests", "1200", "--minutes", "0.5"]
    seed = ["--seed", str(rng.getrandbits(32)), "--cut", "0.7", "--kill", "0.1"]
    run = check(options_of(*arguments, *SHAPES[shape], *seed))
    assert run.found == []
    assert run.answered >= 1200, "the run says little: most of it failed"


@pytest.mark.parametrize("protocol", ["resp", "line"])
def test_it_holds_with_a_pipe_for_each_session_too(protocol: str, rng: random.Random) -> None:
    arguments = ["--protocol", protocol, "--requests", "1200", "--minutes", "0.5"]
    shape = ["--pooling", "session", "--max-connections", "8", "--clients", "8"]
    run = check(options_of(*arguments, *shape, "--seed", str(rng.getrandbits(32))))
    assert run.found == []

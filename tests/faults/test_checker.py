"""The checker, for a second each; `make soak` for hours."""

import random

import pytest

from tests.faults.checker import check, options_of
from tests.faults.crowd import TALKS

REQUESTS = 800
SHAPES = {
    "default slabs": ["--max-connections", "8", "--clients", "24", "--big-bytes", "200000"],
    "tiny slabs": [
        "--slab-bytes", "64", "--slabs", "3", "--max-connections", "4", "--clients", "12",
        "--big-bytes", "3000",
    ],
    "one pipe": ["--max-connections", "1", "--clients", "8", "--slab-bytes", "512", "--slabs", "4"],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("protocol", TALKS)
def test_every_reply_reaches_who_asked_in_order_and_whole(
    protocol: str, shape: str, rng: random.Random
) -> None:
    arguments = ["--protocol", protocol, "--requests", str(REQUESTS), "--minutes", "0.5"]
    seed = ["--seed", str(rng.getrandbits(32)), "--cut", "0.7", "--kill", "0.1"]
    run = check(options_of(*arguments, *SHAPES[shape], *seed))
    assert run.found == []
    assert run.answered >= REQUESTS, "the run says little: most of it failed"


@pytest.mark.parametrize("protocol", ["resp", "line"])
def test_it_holds_with_a_pipe_for_each_session_too(protocol: str, rng: random.Random) -> None:
    arguments = ["--protocol", protocol, "--requests", str(REQUESTS), "--minutes", "0.5"]
    shape = ["--pooling", "session", "--max-connections", "8", "--clients", "8"]
    run = check(options_of(*arguments, *shape, "--seed", str(rng.getrandbits(32))))
    assert run.found == []


def test_clients_in_processes_of_their_own_are_held_to_account_too(rng: random.Random) -> None:
    shape = ["--protocol", "resp", "--requests", str(REQUESTS), "--minutes", "0.5"]
    seed = str(rng.getrandbits(32))
    run = check(options_of(*shape, "--clients", "20", "--processes", "2", "--seed", seed))
    assert run.found == []
    assert run.answered >= REQUESTS
    assert run.acked, "no increment was counted"

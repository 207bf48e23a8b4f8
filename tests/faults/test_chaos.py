"""The chaos harness for some seconds; `make chaos MINUTES=60` for longer."""

import random

from tests.faults.chaos import chaos, options_of


def test_no_promise_is_broken_whatever_is_injected(rng: random.Random) -> None:
    size = ["--minutes", "0.1", "--clients", "8", "--loris", "100"]
    accounts = chaos(options_of(*size, "--seed", str(rng.getrandbits(32))))
    assert accounts.found == []
    assert accounts.answered, "nothing was answered"

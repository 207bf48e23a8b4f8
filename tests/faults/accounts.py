"""What the clients of a run have met; the accounts of several processes are added up."""

import json
import sys
from collections import Counter
from typing import Any

MAX_FOUND = 20
"""So many faults are enough to look at."""


class Accounts:
    """What all clients of a run, or of one process of it, have met."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.found: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.acked: Counter[bytes] = Counter()
        """Counter's key → increments that were answered."""
        self.unsure: Counter[bytes] = Counter()
        """Counter's key → increments that may have been done."""
        self.longest_wait_s = 0.0
        """Between a client's saying something and hearing something."""

    def wrong(self, what: str) -> None:
        """Note what must never happen."""
        print("FOUND", what, file=sys.stderr, flush=True)
        self.found.append(what)

    def dump(self) -> str:
        """Write everything on one line."""
        keys = {"acked": self.acked, "unsure": self.unsure}
        texts = {k: {b.decode(): n for b, n in counter.items()} for k, counter in keys.items()}
        return json.dumps(vars(self) | texts)

    def add(self, dumped: dict[str, Any]) -> None:
        """Add what another process has dumped."""
        self.asked += dumped["asked"]
        self.answered += dumped["answered"]
        self.found += dumped["found"]
        self.outcomes.update(dumped["outcomes"])
        self.acked.update({key.encode(): n for key, n in dumped["acked"].items()})
        self.unsure.update({key.encode(): n for key, n in dumped["unsure"].items()})
        self.longest_wait_s = max(self.longest_wait_s, dumped["longest_wait_s"])

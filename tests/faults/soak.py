"""The checker for as long as asked: each protocol in turn, in each shape, under faults.

    make soak SECONDS=600 SEED=1          500 clients, whatever the seed says

Ends with how many requests were checked for each protocol, and 1 if anything was found.
"""

import argparse
import secrets
import sys
from collections import Counter
from itertools import count
from time import monotonic

from tests.faults.checker import check, options_of
from tests.faults.crowd import TALKS

SHAPES: dict[str, list[str]] = {
    "default slabs": ["--max-connections", "64"],
    "tiny slabs": [
        "--slab-bytes", "64", "--slabs", "3", "--max-connections", "32", "--big-bytes", "3000",
    ],
    "small slabs, few pipes": ["--slab-bytes", "4096", "--slabs", "16", "--max-connections", "8"],
}  # fmt: skip
FAULTS = ["--kill", "0.02", "--cut", "0.3"]
ROUND_S = 120.0
EVER = str(1 << 40)


def main(*arguments: str) -> int:
    """Soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--protocols", default=",".join(TALKS), help="with commas")
    options = parser.parse_args(arguments)
    print(f"soak --seed {options.seed} --seconds {options.seconds:g}", flush=True)
    protocols = options.protocols.split(",")
    rounds = [(protocol, shape) for shape in SHAPES for protocol in protocols]
    a_round_s = min(ROUND_S, options.seconds / len(rounds))
    checked: Counter[str] = Counter()
    found: list[str] = []
    ends = monotonic() + options.seconds
    for number in count():
        protocol, shape = rounds[number % len(rounds)]
        left_s = ends - monotonic()
        if left_s < a_round_s / 2:
            break
        print(f"--- round {number}: {protocol}, {shape}", flush=True)
        run = check(
            options_of(
                *["--protocol", protocol, "--requests", EVER, *SHAPES[shape], *FAULTS],
                *["--clients", str(options.clients), "--processes", str(options.processes)],
                *["--minutes", str(min(a_round_s, left_s) / 60)],
                *["--seed", str(options.seed + number)],
            )
        )
        checked[protocol] += run.answered
        found += run.found
        print(f"=== {checked.total()} checked so far {dict(checked)}, {len(found)} found",
              flush=True)  # fmt: skip
    print(f"{checked.total()} requests checked, {len(found)} faults found:", dict(checked))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Run other projects' suites straight to the server and through Aegis, and compare.

    python -m ops.conformance [--suite NAME]... [--part PATTERN] [--workers 1 --workers 2]

Prints results each way, every test whose result differs with its reason, and what pinned. Exits
with 1 if a difference has no reason in explained.toml.
"""

import argparse
import fnmatch
import signal
import sys
from collections import Counter

from ops.conformance import sides
from ops.conformance.outcomes import (
    Difference,
    Outcomes,
    differences,
    explain,
    explanations,
)
from ops.conformance.suites import SUITES, Suite

COLUMNS = "{:16} {:22} {:>7} {:>7} {:>8} {:>8}"


def run(suite: Suite, part: str, workers: int) -> tuple[Outcomes, Counter[str]]:
    """Run one part on a fresh server; `workers` 0 is direct. Returns results and pins by reason."""
    with suite.server() as server_port:
        if not workers:
            return suite.run(server_port, part), Counter()
        with sides.aegis(suite.protocol, server_port, workers) as front:
            outcomes = suite.run(front.port, part)
            return outcomes, Counter(front.pins())


def run_all(suite: Suite, pattern: str, workers: int) -> tuple[Outcomes, Counter[str]]:
    """Run every part of a suite one way."""
    outcomes: Outcomes = {}
    pins: Counter[str] = Counter()
    for part in suite.parts():
        if fnmatch.fnmatchcase(part, pattern):
            print(f"  {suite.name}, {way(workers)}: {part}", file=sys.stderr)
            of_part, pins_of_part = run(suite, part, workers)
            outcomes |= of_part
            pins += pins_of_part
    return outcomes, pins


def way(workers: int) -> str:
    """Name a way to the server."""
    return f"aegis, {workers} worker{'s' * (workers > 1)}" if workers else "direct"


def row(suite: str, workers: int, outcomes: Outcomes, differing: int) -> str:
    """Write a line of the table."""
    count = Counter(outcomes.values())
    figures = count["passed"], count["failed"], count["skipped"]
    return COLUMNS.format(suite, way(workers), *figures, differing if workers else "")


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ops.conformance")
    names = [suite.name for suite in SUITES]
    parser.add_argument("--suite", action="append", choices=names, help="default: all")
    parser.add_argument("--part", default="*", help="of Redis' own suite: a pattern for its units")
    parser.add_argument("--workers", action="append", type=int, help="default: 1 and 2")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers and proxies end with us
    listed = explanations()
    table = [COLUMNS.format("suite", "way", "passed", "failed", "skipped", "differ")]
    found: list[tuple[str, Difference]] = []
    pinned: list[str] = []
    for suite in SUITES:
        if args.suite and suite.name not in args.suite:
            continue
        direct, _ = run_all(suite, args.part, 0)
        table.append(row(suite.name, 0, direct, 0))
        for workers in args.workers or (1, 2):
            through, pins = run_all(suite, args.part, workers)
            differ = differences(suite.name, direct, through)
            table.append(row(suite.name, workers, through, len(differ)))
            found += [(way(workers), difference) for difference in differ]
            reasons = ", ".join(f"{why} {count}" for why, count in sorted(pins.items()))
            pinned.append(f"{suite.name}, {way(workers)}: pins {reasons or 'none'}")
    print("\n".join([*table, "", *pinned, ""]))
    unexplained = 0
    for through_what, difference in found:
        reason = explain(difference, listed)
        unexplained += reason is None
        print(f"{difference.suite}, {through_what}: {difference.test}")
        print(f"    direct {difference.direct}, through Aegis {difference.through}: "
              f"{reason.why if reason else 'UNEXPLAINED'}")  # fmt: skip
    print(f"{len(found)} differences, {unexplained} of them unexplained")
    return 1 if unexplained or len(table) == 1 else 0


if __name__ == "__main__":
    sys.exit(main())

"""Results of a suite by test, and what differs between two ways that is not explained."""

import fnmatch
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

Outcome = Literal["passed", "failed", "skipped"]
Outcomes = dict[str, Outcome]

EXPLAINED = Path(__file__).with_name("explained.toml")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TCL_LINE = re.compile(r"^\[(ok|err|skip|ignore|exception)\]: (.*?)(?: \(\d+ ms\))?$")
TCL_OUTCOMES: dict[str, Outcome] = {
    "ok": "passed", "err": "failed", "exception": "failed", "skip": "skipped", "ignore": "skipped",
}  # fmt: skip


class Difference(NamedTuple):
    """A test that does not end the same way."""

    suite: str
    test: str
    direct: str
    through: str


class Explanation(NamedTuple):
    """Differences that are meant."""

    suite: str
    """A pattern, as `tests`' are: * stands for anything."""
    tests: tuple[str, ...]
    why: str


def explanations(path: Path = EXPLAINED) -> list[Explanation]:
    """Read the list."""
    listed = tomllib.loads(path.read_text())["difference"]
    return [Explanation(each["suite"], tuple(each["tests"]), each["why"]) for each in listed]


def explain(difference: Difference, listed: Iterable[Explanation]) -> Explanation | None:
    """Return what explains a difference, None if nothing does."""
    for each in listed:
        if fnmatch.fnmatchcase(difference.suite, each.suite) and any(
            fnmatch.fnmatchcase(difference.test, pattern) for pattern in each.tests
        ):
            return each
    return None


def differences(suite: str, direct: Outcomes, through: Outcomes) -> list[Difference]:
    """Compare; a test that only one way has run differs too."""
    return [
        Difference(suite, test, direct.get(test, "not run"), through.get(test, "not run"))
        for test in sorted(direct | through)
        if direct.get(test) != through.get(test)
    ]


def from_junit(path: Path) -> Outcomes:
    """Read what pytest wrote; a file that is not there holds no results."""
    outcomes: Outcomes = {}
    if not path.exists():
        return outcomes
    for case in ElementTree.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome: Outcome = "passed"
        if kinds & {"failure", "error"}:
            outcome = "failed"
        elif "skipped" in kinds:
            outcome = "skipped"
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return outcomes


def from_tcl(unit: str, text: str) -> Outcomes:
    """Read what Redis' runner printed for one unit; names that come again are numbered."""
    outcomes: Outcomes = {}
    ended = False
    for line in COLOURS.sub("", text).splitlines():
        ended = ended or "The End" in line
        found = TCL_LINE.match(line)
        if found is None:
            continue
        # a failed test's line goes on with its file
        name = f"{unit}: {found[2].split(' in tests/')[0].strip()}"
        outcomes[_numbered(outcomes, name)] = TCL_OUTCOMES[found[1]]
    outcomes[f"{unit}: (the unit runs to its end)"] = "passed" if ended else "failed"
    return outcomes


def _numbered(taken: Outcomes, name: str) -> str:
    """Return the name, with a number behind it if it is taken."""
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{name} #{number}"
    return fresh

"""Run the rows: every peer once in each round, so that noise meets all alike.

The order of the peers turns from round to round, so that nobody always follows the same neighbour.
A measurement that fails is an outcome with its reason; the run goes on.
"""

import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil

from ops.bench.data import Outcome
from ops.bench.failure import MeasurementError
from ops.bench.peers import Peer
from ops.bench.rows import Row
from ops.bench.scene import staged

START_S = 0.4
"""What starting and ending a server and a proxy takes, about, and the generator's own start."""
LEAST_DEADLINE_S = 60.0
DEADLINE_FACTOR = 10.0

ERRORS = (MeasurementError, OSError, psutil.Error, subprocess.SubprocessError, ValueError)


class Step(NamedTuple):
    """One measurement to come."""

    row: Row
    peer: Peer
    round: int


def plan(rows: list[Row], peers: list[Peer], rounds: int) -> list[Step]:
    """Return the measurements in the order they are made."""

    def of_row(row: Row) -> Iterator[Step]:
        taking_part = [p for p in peers if row.family in p.families and p.name not in row.without]
        for number in range(rounds):
            turn = number % max(1, len(taking_part))
            for peer in taking_part[turn:] + taking_part[:turn]:
                yield Step(row, peer, number)

    return [step for row in rows for step in of_row(row)]


def estimate_s(steps: list[Step], quick: bool) -> float:
    """Return about how long the measurements take."""
    return sum(START_S + (step.row.quick_s if quick else step.row.full_s) for step in steps)


def measure(step: Step, quick: bool) -> Outcome:
    """Make one measurement with a server and a proxy of its own."""
    usual_s = step.row.quick_s if quick else step.row.full_s
    deadline_s = max(LEAST_DEADLINE_S, DEADLINE_FACTOR * usual_s)
    name = (step.row.name, step.peer.name, step.round)
    try:
        with staged(step.peer, step.row.family, step.row.server_cpu) as scene:
            figures = step.row.run(scene, quick, deadline_s)
    except ERRORS as error:
        return Outcome(*name, failure=str(error) or type(error).__name__)
    return Outcome(*name, figures=figures)


def run_all(steps: list[Step], quick: bool, done: Callable[[Step, Outcome], None]) -> None:
    """Make all measurements, telling of each."""
    for step in steps:
        done(step, measure(step, quick))

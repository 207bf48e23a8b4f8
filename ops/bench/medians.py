"""Medians and ratios of interleaved rounds.

A ratio is taken within each round, where both sides met the same noise, and its median is told with
its range. Ratios across rounds would compare one minute of the machine with another.
"""

import statistics
from typing import NamedTuple

from ops.bench.data import Run
from ops.bench.rows import Figures


class Ratio(NamedTuple):
    """Of one peer's figure to another's, over the rounds both have finished."""

    median: float
    least: float
    most: float
    rounds: int


def derived(figures: Figures) -> Figures:
    """Return the figures with those that follow from them."""
    if "user" in figures:
        return {**figures, "cpu": figures["user"] + figures["system"]}
    return figures


def median(run: Run, row: str, peer: str, figure: str) -> float | None:
    """Return the median over the rounds; None if no round has the figure."""
    rounds = map(derived, run.figures_of(row, peer).values())
    values = [figures[figure] for figures in rounds if figure in figures]
    return statistics.median(values) if values else None


def ratio(run: Run, figure: str, ours: tuple[str, str], theirs: tuple[str, str]) -> Ratio | None:
    """Compare (row, peer) with (row, peer); None if no round has both, or theirs is nothing."""
    our_rounds, their_rounds = run.figures_of(*ours), run.figures_of(*theirs)
    ratios = []
    for number in our_rounds.keys() & their_rounds.keys():
        our, their = derived(our_rounds[number]), derived(their_rounds[number])
        if figure in our and their.get(figure, 0.0) > 0.0:
            ratios.append(our[figure] / their[figure])
    if not ratios:
        return None
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios))

"""What deadlines have cut in workers that have left, until Aegis serves again.

    Report ─▶ heard ─▶ the last of each worker ─▶ cut, cuts ─▶ Status

A worker that was retired exits with its last session, and its figures with it: whoever waits for a
drain would not learn what that had cut there.
"""

from collections.abc import Collection

from aegis.lifecycle import Goal
from aegis.messages import Report
from aegis.status_messages import Cut


class Departed:
    """The last report of each worker, of those that have left only while a drain lasts."""

    def __init__(self) -> None:
        self._last: dict[int, Report] = {}

    def heard(self, report: Report, alive: Collection[int], goal: Goal) -> None:
        """Note a report that counts; it may be the last words of a worker that is gone."""
        self._last[report.figures.pid] = report
        self._last = {
            pid: each
            for pid, each in self._last.items()
            if pid in alive or (each.figures.cut and goal != "serving")
        }

    def cut(self, alive: Collection[int]) -> int:
        """Return how many sessions they had cut."""
        return sum(report.figures.cut for report in self._left(alive))

    def cuts(self, alive: Collection[int]) -> list[Cut]:
        """Return which, as far as they had told."""
        return [cut for report in self._left(alive) for cut in report.cuts]

    def _left(self, alive: Collection[int]) -> list[Report]:
        return [report for pid, report in self._last.items() if pid not in alive]

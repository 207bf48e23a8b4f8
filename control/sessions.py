"""What operators ask of sessions: lists are gathered from the workers, kills are told to them.

    ListSessions ─▶ look ─▶ Desired, a new epoch ─▶ heard(report.found) ─▶ FetchSessions
    KillSession ─▶ kills ─▶ Desired, a new epoch ─▶ heard(report.epoch): done

Level-triggered as all that workers are told: a kill stays in Desired until its worker has applied
the epoch or is gone. One list is gathered at a time; who asks anew begins it anew.
"""

import os
from collections.abc import Callable, Iterable
from time import monotonic

from aegis.messages import Accepted, Refused, Report
from aegis.session_messages import (
    FetchSessions,
    Found,
    KillSession,
    ListSessions,
    Look,
    SessionList,
    SessionRequest,
)
from control.process import Process


class Sessions:
    """The questions that are open."""

    def __init__(
        self, processes: Callable[[], Iterable[Process]], changed: Callable[[], int]
    ) -> None:
        self.look: Look | None = None
        """For Desired."""
        self._processes = processes
        self._changed = changed
        self._found: dict[int, Found] = {}
        self._kills: dict[int, dict[str, int]] = {}  # pid -> id -> epoch

    @property
    def kills(self) -> dict[int, list[str]]:
        """Pid -> ids, for Desired."""
        return {pid: list(ids) for pid, ids in self._kills.items()}

    def handle(self, request: SessionRequest) -> SessionList | Accepted | Refused:
        """Answer."""
        if isinstance(request, ListSessions):
            if why := self._unknown(request.listener):
                return Refused(why)
            number = self._changed()
            self.look = Look(
                number, request.most, request.listener, request.session, at=monotonic()
            )
            self._found.clear()
            return Accepted(number)
        if isinstance(request, FetchSessions):
            return self._fetch(request.number)
        return self._kill(request)

    def _unknown(self, listener: str) -> str:
        """Say that no worker, not even one that is retired, has such a listener; empty: one has."""
        reports = [each.report for each in self._processes() if each.report is not None]
        names = {row.name: None for report in reports for row in report.figures.listeners}
        if not listener or not names or listener in names:
            return ""
        return f'no listener "{listener}"; known listeners: {", ".join(names)}'

    def _fetch(self, number: int) -> SessionList | Refused:
        if self.look is None or self.look.number != number:
            return Refused("somebody else has asked meanwhile")
        silent = [each.pid for each in self._processes() if each.pid not in self._found]
        rows = [row for found in self._found.values() for row in found.rows]
        rows.sort(key=lambda row: (-row.age_s, row.id))
        total = sum(found.total for found in self._found.values())
        return SessionList(total, rows[: self.look.most], silent)

    def _kill(self, request: KillSession) -> Accepted | Refused:
        pid = request.session.partition("-")[0]
        if pid not in {str(each.pid) for each in self._processes()}:
            return Refused(f"no session {request.session}")
        epoch = self._changed()
        self._kills.setdefault(int(pid), {})[request.session] = epoch
        return Accepted(epoch)

    def heard(self, report: Report) -> None:
        """Take in what a worker tells, and what it has done."""
        pid = report.figures.pid
        if report.controller != os.getpid():
            return
        if report.found is not None and self.look and report.found.number == self.look.number:
            self._found[pid] = report.found
        kills = self._kills.get(pid, {})
        for session in [each for each, epoch in kills.items() if epoch <= report.epoch]:
            del kills[session]
        alive = {each.pid for each in self._processes()}
        for gone in [each for each, left in self._kills.items() if not left or each not in alive]:
            del self._kills[gone]

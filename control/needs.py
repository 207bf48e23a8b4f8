"""What each worker has and wants of each limit of connections, as it has last reported."""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aegis.figures import Figures
from control.process import Process
from control.shares import Need, Shares


class _Use(NamedTuple):
    """Of what one limit is about, in one worker."""

    open: int = 0
    busy: int = 0
    waiting: int = 0


def needs_of(
    processes: Iterable[Process], shares: Shares, is_leaving: Callable[[Process], bool]
) -> dict[str, dict[int, Need]]:
    """Return name -> pid -> need, for all limits and all living workers."""
    needs: dict[str, dict[int, Need]] = {name: {} for name in shares.limits}
    for process in processes:
        report = process.report
        ours = report is not None and report.controller == os.getpid()
        applied = report.epoch if report is not None and ours else 0
        uses = _uses(report.figures) if report is not None else {}
        for name, of_name in needs.items():
            granted, believed = shares.need(name, process.pid, applied)
            use = uses.get(name, _Use())
            of_name[process.pid] = Need(granted, believed, *use, leaving=is_leaving(process))
    return needs


def holders_of(workers: Iterable[Figures]) -> dict[str, list[int]]:
    """Return BACKEND/ADDRESS -> pids of the workers that know the server."""
    holders: dict[str, list[int]] = {}
    for worker in workers:
        for server in worker.servers:
            holders.setdefault(f"{server.backend}/{server.address}", []).append(worker.pid)
    return holders


def opened_by(figures: Figures) -> dict[str, int]:
    """Return name -> connections that a worker has of what might be limited."""
    return {name: use.open for name, use in _uses(figures).items()}


def _uses(figures: Figures) -> dict[str, _Use]:
    """Return name -> use; whoever waits for a backend waits for each of its servers."""
    uses = {each.backend: _Use(each.open, each.busy, each.waiting) for each in figures.backends}
    for server in figures.servers:
        waiting = uses.get(server.backend, _Use()).waiting
        use = _Use(server.connections, server.busy, waiting)
        uses[f"{server.backend}/{server.address}"] = use
    return uses

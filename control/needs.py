"""What each worker has and wants of each limit, as it has last reported."""

import os
from collections.abc import Container, Iterable
from time import monotonic
from typing import NamedTuple

from aegis.config import Config
from aegis.figures import Figures
from aegis.messages import listener_limit
from control.process import Process
from control.shares import Need, Shares


class _Use(NamedTuple):
    """Of what one limit is about, in one worker."""

    open: int = 0
    busy: int = 0
    waiting: int = 0
    least: int = 1
    waited_s: float = 0.0


def session_limits(config: Config) -> dict[str, int]:
    """Return name -> how many sessions there may be, where there is a limit."""
    limits = {listener_limit(each.name): each.max_sessions for each in config.listeners}
    limits[listener_limit()] = config.max_sessions
    return {name: limit for name, limit in limits.items() if limit}


def needs_of(
    processes: Iterable[Process], shares: Shares, retired: Container[int]
) -> dict[str, dict[int, Need]]:
    """Return name -> pid -> need, for all limits and all living workers."""
    needs: dict[str, dict[int, Need]] = {name: {} for name in shares.limits}
    now = monotonic()
    for process in processes:
        report = process.report
        ours = report is not None and report.controller == os.getpid()
        applied = report.epoch if report is not None and ours else 0
        uses = _uses(report.figures) if report is not None else {}
        for name, of_name in needs.items():
            granted, believed = shares.need(name, process.pid, applied)
            use = uses.get(name, _Use())
            of_name[process.pid] = Need(
                granted,
                believed,
                use.open,
                use.busy,
                use.waiting,
                leaving=process.hung or process.pid in retired,
                least=use.least,
                waited_s=use.waited_s + now - process.heard_at,
            )
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
    """Return name -> use; whoever waits for a backend waits for each of its servers.

    Of sessions nothing is kept back for the next client: who finds none waits until a share comes.
    """
    uses = {
        each.backend: _Use(each.open, each.busy, each.waiting, waited_s=each.longest_wait_s)
        for each in figures.backends
    }
    for server in figures.servers:
        of_backend = uses.get(server.backend, _Use())
        use = of_backend._replace(open=server.connections, busy=server.busy)
        uses[f"{server.backend}/{server.address}"] = use
    for limit in figures.limits:
        uses[limit.name] = _Use(limit.open, limit.open, limit.waiting, least=0)
    return uses

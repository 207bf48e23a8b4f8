"""What has lasted too long on a pipe: looked at every tick, not at every event.

    opening ── connect_timeout_s ─▶ connect failed, or its setup lost
    idle ───── max_idle_s (beyond pool_min), max_lifetime_s ─▶ closed
    busy ───── reply_timeout_s without a byte ─▶ lost, its clients get the protocol's error
               server_fin_timeout_s, all who are owed a reply having left ─▶ lost
               max_lifetime_s ─▶ no more requests, closed when it owes nothing

A pipe that one client has alone is bounded by that client's own timeouts. One that a slow reader
holds up is not the server's fault.
"""

import errno
from typing import TYPE_CHECKING

from workers.server import CONNECTING, READY

if TYPE_CHECKING:
    from workers.pipe import Pipe
    from workers.pool import Pool


def end_overdue(pool: "Pool", pipe: "Pipe", now: float) -> None:
    """End one pipe of the pool if its time is over."""
    if pipe.state < READY:
        _end_opening(pool, pipe, now)
    elif pipe.owner is not None:
        return
    elif not (pipe.owed or pipe.retiring):
        _end_idle(pool, pipe, now)
    elif not pipe.stuck:
        _end_busy(pool, pipe, now)


def _end_opening(pool: "Pool", pipe: "Pipe", now: float) -> None:
    if now - pipe.dialled_at <= pool.backend.config.connect_timeout_s:
        return
    if pipe.state == CONNECTING:
        pool.connect_failed(pipe, errno.ETIMEDOUT)
    else:
        pipe.lose("setup_timeout")


def _end_idle(pool: "Pool", pipe: "Pipe", now: float) -> None:
    spare = len(pool.pipes) > pool.backend.pool_min
    idle_max_s = pool.backend.config.max_idle_s if spare else 0
    if now > pipe.expires_at or 0 < idle_max_s < now - pipe.idle_since:
        pool.retire(pipe)
        pool.idle(pipe)


def _end_busy(pool: "Pool", pipe: "Pipe", now: float) -> None:
    conf = pool.backend.config
    silent_s = now - max(pipe.heard_at, pipe.busy_since)
    if 0 < conf.reply_timeout_s < silent_s:
        pipe.lose("reply_timeout")
    elif 0 < conf.server_fin_timeout_s < silent_s and pipe.abandoned:
        pipe.lose("abandoned")
    elif now > pipe.expires_at and not pipe.retiring:
        pool.retire(pipe)

"""Which pipe is next, where the clients of a pool share pipes to several servers.

    next_shared ─▶ balance: whose turn is it ─▶ its idle pipe, or the one that owes least
                                             └▶ it has none: one is opened for the next time,
    next_alone  ─▶ the same, idle pipes only                 and any other serves now

So requests, and not only connections, go by the balance and the weights, and a server that comes
back gets pipes although the others have enough. With one server there is nothing to choose.
"""

from collections import Counter
from typing import TYPE_CHECKING

from aegis.framers.contract import Setup
from aegis.limits import GROW_AFTER_S
from workers.target import Server

if TYPE_CHECKING:
    from workers.pipe import Pipe
    from workers.pool import Pool


def next_shared(pool: "Pool", setup: Setup) -> "Pipe | None":
    """Return a ready pipe for a request; None if a new one is to be waited for."""
    if pool.backend.has_choice:
        server = _turn(pool, setup)
        if server is not None:
            pipe = pool.shelves.take_idle(setup, server) or _least_busy(pool, setup, server)
            if pipe is not None:
                return pipe
            _open_to(pool, setup, server)
    pipe = pool.shelves.take_idle(setup) or _least_busy(pool, setup)
    if pipe is not None and pipe.owed and pool.loop.now - pipe.busy_since > GROW_AFTER_S:
        pool.grow(setup)  # every pipe has something slow before us
        if pool.shelves.opens(setup):
            return None
    return pipe


def next_alone(pool: "Pool", setup: Setup) -> "Pipe | None":
    """Return a ready pipe that owes nothing, for one client alone."""
    if pool.backend.has_choice:
        server = _turn(pool, setup)
        if server is not None:
            pipe = pool.shelves.take_idle(setup, server)
            if pipe is not None:
                return pipe
            _open_to(pool, setup, server)
    return pool.shelves.take_idle(setup)


def another(pool: "Pool", lost: "Pipe", count: int) -> "Pipe | None":
    """Return a pipe for so many requests of one that is being lost, best one to another server."""
    most = pool.framer.in_flight - count
    fits = [
        pipe
        for pipe in pool.shelves.ready(lost.setup)
        if pipe is not lost and len(pipe.owed) <= most and not (pipe.full or pipe.stuck)
    ]
    best = min(fits, key=lambda each: (each.target is lost.target, len(each.owed)), default=None)
    if best is not None and not best.owed:
        pool.shelves.take_up(best)
    return best


def _turn(pool: "Pool", setup: Setup) -> Server | None:
    """Ask the balance, which may want to know what each server's pipes owe."""
    backend = pool.backend
    if not backend.balance.by_load:
        return backend.turn(pool.loop.now)
    owed: Counter[Server] = Counter()
    for pipe in pool.shelves.ready(setup):
        owed[pipe.target] += len(pipe.owed)
    return backend.turn(pool.loop.now, owed.__getitem__)


def _least_busy(pool: "Pool", setup: Setup, server: Server | None = None) -> "Pipe | None":
    """Choose among pipes, of one server or all, that owe something already."""
    best, least = None, pool.framer.in_flight
    if least == 1:
        return None
    for pipe in pool.shelves.ready(setup):
        fits = len(pipe.owed) < least and not (pipe.full or pipe.stuck)
        if fits and (server is None or pipe.target is server):
            best, least = pipe, len(pipe.owed)
    return best


def _open_to(pool: "Pool", setup: Setup, server: Server) -> None:
    """Have a pipe to a server that has none which could take more, if there is room.

    Where there is no room, one that has no pipe at all takes the place of another's.
    """
    if any(pipe.target is server and pipe.setup == setup for pipe in pool.shelves.opening):
        return
    if pool.backend.has_room() and server.has_room:
        pool.open_to(server, setup)
    elif not any(pipe.target is server or pipe.retiring for pipe in pool.pipes):
        pool.shrink() or pool.retire_one()

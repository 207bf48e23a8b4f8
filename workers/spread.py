"""Which pipe is next, where the clients of a pool share pipes to one server or several.

    next_shared ─▶ balance: whose turn is it ─▶ its idle pipe ─▶ any idle pipe ─▶ the liveliest one,
                                             │                                    best of its own
    next_alone  ─▶ the same, idle pipes only └▶ it has no pipe at all: one is opened for next time

So requests, and not only connections, go by the balance and the weights, and a server that comes
back gets pipes although the others have enough. A server that has fallen silent keeps what it owes
and is given no more while others answer. With one server there is nothing to choose.
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
    server = _turn(pool, setup) if pool.backend.has_choice else None
    pipe = _idle_of(pool, setup, server) if server is not None else None
    pipe = pipe or pool.shelves.take_idle(setup)
    if pipe is not None:
        return pipe
    pipe = _least_busy(pool, setup) if server is None else _liveliest(pool, setup, server)
    if pipe is not None and pool.loop.now - pipe.busy_since > GROW_AFTER_S:
        pool.grow(setup)  # every pipe has something slow before us
        if pool.shelves.opens(setup):
            return None
    return pipe


def next_alone(pool: "Pool", setup: Setup) -> "Pipe | None":
    """Return a ready pipe that owes nothing, for one client alone."""
    server = _turn(pool, setup) if pool.backend.has_choice else None
    pipe = _idle_of(pool, setup, server) if server is not None else None
    return pipe or pool.shelves.take_idle(setup)


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


def _idle_of(pool: "Pool", setup: Setup, server: Server) -> "Pipe | None":
    """Return a server's pipe that owes nothing; see to it that the server has pipes at all."""
    pipe = pool.shelves.take_idle(setup, server)
    if pipe is None and not any(p.target is server and p.setup == setup for p in pool.pipes):
        _open_to(pool, setup, server)
    return pipe


def _least_busy(pool: "Pool", setup: Setup) -> "Pipe | None":
    """Choose among pipes to one server that all owe something."""
    best, least = None, pool.framer.in_flight
    if least == 1:
        return None
    for pipe in pool.shelves.ready(setup):
        if len(pipe.owed) < least and not (pipe.full or pipe.stuck):
            best, least = pipe, len(pipe.owed)
    return best


def _liveliest(pool: "Pool", setup: Setup, server: Server) -> "Pipe | None":
    """The same among pipes to several servers, best to this one; silent ones come last."""
    best, first, most = None, (True, True, 0), pool.framer.in_flight
    silent_since = pool.loop.now - GROW_AFTER_S
    for pipe in pool.shelves.ready(setup):
        owed = len(pipe.owed)
        if owed < most and not (pipe.full or pipe.stuck):
            rank = (pipe.busy_since < silent_since, pipe.target is not server, owed)
            if best is None or rank < first:
                best, first = pipe, rank
    return best


def _open_to(pool: "Pool", setup: Setup, server: Server) -> None:
    """Have a pipe to a server that has none, in the place of another's if there is no room."""
    if pool.backend.has_room() and server.has_room:
        pool.open_to(server, setup)
    elif not any(pipe.retiring for pipe in pool.pipes):
        pool.shrink() or pool.retire_one()

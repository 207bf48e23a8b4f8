"""Where each pipe of a pool is: every state is a shelf, and only here pipes move between them.

    add ─▶ opening ─▶ offer ─▶ ready[setup] ─▶ hand_over ─▶ alone ─▶ take_back ─▶ (offer, reopen)
                                 │      ▲
                       take_idle ▼      │ set_down
                              in use ───┘          any ─▶ unlist (retiring: on none) ─▶ forget

A pipe that is ready and owes nothing is in `idle[setup]` too, the one that was used last at the
end: it is the first to be used again, so that those too many fall idle for long and are closed.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aegis.framers.contract import Setup
from workers.server import READY

if TYPE_CHECKING:
    from workers.pipe import Pipe
    from workers.target import Server


class Shelves:
    """All pipes of one pool."""

    def __init__(self) -> None:
        self.pipes: set[Pipe] = set()
        """All there are."""
        self.opening: set[Pipe] = set()
        """Connecting, being set up, or being reset."""
        self.alone: set[Pipe] = set()
        self._ready: dict[Setup, dict[Pipe, None]] = {}  # sets that keep their order, as idle
        self._idle: dict[Setup, dict[Pipe, None]] = {}

    def ready(self, setup: Setup) -> Iterable["Pipe"]:
        """Return the pipes that may be shared by clients with that setup."""
        return self._ready.get(setup, ())

    @property
    def every_ready(self) -> list["Pipe"]:
        """All that may be shared."""
        return [pipe for pipes in self._ready.values() for pipe in pipes]

    def longest_idle(self, server: "Server | None" = None) -> "Pipe | None":
        """Return one to that server, or any, that owes nothing, unused for longest of its setup."""
        every = (pipe for idle in self._idle.values() for pipe in idle)
        return next((pipe for pipe in every if server in {None, pipe.target}), None)

    def idle_on(self, server: "Server") -> int:
        """Count those to a server that owe nothing."""
        return sum(pipe.target is server for idle in self._idle.values() for pipe in idle)

    def opens(self, setup: Setup) -> int:
        """Count the pipes that are being opened for that setup."""
        return sum([pipe.setup == setup for pipe in self.opening])

    def add(self, pipe: "Pipe") -> None:
        """Take in a new one."""
        self.pipes.add(pipe)
        self.opening.add(pipe)

    def offer(self, pipe: "Pipe") -> None:
        """Let it be shared."""
        self.opening.discard(pipe)
        self._ready.setdefault(pipe.setup, {})[pipe] = None

    def set_down(self, pipe: "Pipe") -> None:
        """Note that a ready one owes nothing."""
        self._idle.setdefault(pipe.setup, {})[pipe] = None

    def take_up(self, pipe: "Pipe") -> None:
        """Note that one that owes nothing is about to owe something."""
        self._idle.get(pipe.setup, {}).pop(pipe, None)
        pipe.begin()

    def take_idle(self, setup: Setup, server: "Server | None" = None) -> "Pipe | None":
        """Return one that is about to owe something, the one that was used last; None: none is.

        Args:
            setup: what its clients need.
            server: where to; None: anywhere.
        """
        idle = self._idle.get(setup)
        if not idle:
            return None
        if server is None:
            pipe = idle.popitem()[0]
        else:
            found = next((each for each in reversed(idle) if each.target is server), None)
            if found is None:
                return None
            pipe = found
            del idle[pipe]
        pipe.begin()
        return pipe

    def oldest(self, now: float) -> dict[str, float]:
        """Return by server for how long the oldest reply has been due, on pipes that are shared.

        Who has a pipe alone may well wait on purpose (BLPOP).
        """
        oldest: dict[str, float] = {}
        for pipe in self.pipes - self.alone:
            address = pipe.target.figures.address
            oldest[address] = max(oldest.get(address, 0.0), pipe.due_for(now))
        return oldest

    def hand_over(self, pipe: "Pipe") -> None:
        """Let one client have it alone."""
        self.unlist(pipe)
        self.alone.add(pipe)

    def take_back(self, pipe: "Pipe") -> bool:
        """Take it from its client; returns whether one had it alone."""
        pipe.owner = None
        if pipe not in self.alone:
            return False
        self.alone.remove(pipe)
        return True

    def reopen(self, pipe: "Pipe") -> None:
        """Have one that a client had alone made like new."""
        self.opening.add(pipe)

    def unlist(self, pipe: "Pipe") -> None:
        """Let it not be shared any more."""
        self._idle.get(pipe.setup, {}).pop(pipe, None)
        ready = self._ready.get(pipe.setup)
        if ready is not None and pipe in ready:
            del ready[pipe]
            if not ready:  # else every password that was tried once would stay
                del self._ready[pipe.setup]
                self._idle.pop(pipe.setup, None)

    def forget(self, pipe: "Pipe") -> bool:
        """Take it out for good; False if it was not in any more."""
        if pipe not in self.pipes:
            return False
        self.pipes.remove(pipe)
        self.opening.discard(pipe)
        self.unlist(pipe)
        return True

    def sample(self) -> dict[str, int]:
        """Count the pipes by what they do."""
        states = dict.fromkeys(("connecting", "idle", "active", "alone"), 0)
        for pipe in self.pipes:
            if pipe.state < READY:
                states["connecting"] += 1
            elif pipe.owner is not None:
                states["alone"] += 1
            else:
                states["active" if pipe.owed else "idle"] += 1
        return states

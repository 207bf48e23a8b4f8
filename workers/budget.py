"""How many connections one worker may have to the servers of one backend, and who waits for one.

    claim ─▶ there is room ─▶ opened … freed ─▶ (turn's end: the socket is closed) ─▶ _invite
       └─ none: claimant.room() is called when there is

The limits are shares of what is stated for the whole proxy (control/shares.py): the backend's and
each server's. Where nothing is limited nobody waits, and opening and ending only count.
"""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from workers.target import UNLIMITED, Server

if TYPE_CHECKING:
    from workers.loop import Loop


class Claimant(Protocol):
    """Somebody who wants to open a connection and waits for room."""

    def room(self) -> None:
        """There is room for a connection, unless somebody else is quicker."""
        ...

    def queue(self) -> tuple[int, float]:
        """Return how many clients wait here, and since when the first of them does."""
        ...


class Shrinkable(Claimant, Protocol):
    """A claimant who may have connections that nobody uses."""

    def shrink(self, server: Server | None = None) -> bool:
        """Close one of them, to that server or any; False when there is none."""
        ...

    def retire_one(self, server: Server | None = None) -> bool:
        """Let one that is used end with its use; False when there is none."""
        ...

    def servers_changed(self) -> None:
        """Forget which servers have failed: they are others now."""
        ...


class Budget:
    """Whoever opens a connection asks `claim` first and tells `opened`, and `freed` at its end."""

    __slots__ = ("_claimants", "_ended", "_strict", "limit", "live", "open", "pools")

    def __init__(self) -> None:
        self._claimants: deque[Claimant] = deque()
        self._ended: list[Server] = []  # closed in this turn
        self._strict = True  # the backend's limit is not all that counts
        self.limit: float = float("inf")
        """This worker's share of the backend's max_connections."""
        self.open = 0
        self.live: tuple[Server, ...] | None = None
        """The servers that get sessions now; None: it is not known yet which there are."""
        self.pools: list[Shrinkable] = []
        """Who may have connections to spare for others of the backend."""

    # --- limits --------------------------------------------------------------------------------

    def set_limit(self, limit: float) -> None:
        """Move the backend's share; connections above it are closed as they fall idle."""
        self.limit = limit
        self._shrink(self.open - limit, None)
        self._invite()

    def set_server_limit(self, server: Server, limit: int) -> None:
        """Move a server's share in the same way."""
        server.limit = limit
        self._shrink(server.figures.connections - limit, server)
        self._live_changed()

    @property
    def is_limited(self) -> bool:
        """Whether somebody may have to wait for a connection."""
        return self._strict or self.limit != float("inf")

    def _live_changed(self) -> None:
        live = self.live
        self._strict = live is None or any(server.limit != UNLIMITED for server in live)
        self._invite()

    def _shrink(self, over: float, server: Server | None) -> None:
        while over > 0 and any(p.shrink(server) or p.retire_one(server) for p in self.pools):
            over -= 1

    def has_room(self) -> bool:
        """Whether a connection may be opened."""
        if self.open >= self.limit:
            return False
        # Without any server there is nothing to wait for: who dials finds that out.
        live = self.live
        return live is not None and (not live or any(server.has_room for server in live))

    # --- connections ---------------------------------------------------------------------------

    def claim(self, claimant: Claimant) -> bool:
        """Whether a connection may be opened now; if not, its `room` is called when one may."""
        if self.open < self.limit and (not self._strict or self.has_room()):
            return True
        self.wait(claimant)
        ending, waiting = len(self._ended), len(self._claimants)
        if self.open - ending + waiting > self.limit or (self._strict and waiting > ending):
            any(pool.shrink() for pool in self.pools)
        return False

    def wait(self, claimant: Claimant) -> None:
        """Have the claimant's `room` called when there is some."""
        if claimant not in self._claimants:
            self._claimants.append(claimant)

    def give_up(self, claimant: Claimant) -> None:
        """Forget a claim."""
        if claimant in self._claimants:
            self._claimants.remove(claimant)

    def opened(self, server: Server) -> None:
        """Count a connection that is being opened."""
        self.open += 1
        server.figures.connections += 1

    def freed(self, server: Server, loop: "Loop") -> None:
        """Count a connection that ends with this turn, and let who waits have its place then.

        Not before the socket is closed: the server would see one connection too many.
        """
        if self.limit == float("inf") and not self._strict:  # nobody waits
            self.open -= 1
            server.figures.connections -= 1
            return
        if not self._ended:
            loop.after_closing(self)
        self._ended.append(server)

    def flush(self) -> None:
        """Note that what was freed in this turn is closed now."""
        for server in self._ended:
            self.open -= 1
            server.figures.connections -= 1
        self._ended.clear()
        self._invite()

    def fail(self, error: Exception) -> None:
        """Let the worker die: a budget that is wrong must be made anew."""
        raise error

    def _invite(self) -> None:
        for _ in range(len(self._claimants)):
            if not self.has_room():
                return
            self._claimants.popleft().room()

    @property
    def claims(self) -> int:
        """How many wait for room, pools included."""
        return len(self._claimants)

    def queue(self, now: float) -> tuple[int, float]:
        """Return how many clients wait for a connection, and since when the first of them does."""
        sessions = [each for each in self._claimants if each not in self.pools]
        queues = [each.queue() for each in [*sessions, *self.pools]]
        return sum(count for count, _ in queues), min((since for _, since in queues), default=now)

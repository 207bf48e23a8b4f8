"""A named group of servers as one worker sees it, and the choice of the next one.

Nothing here does I/O. Counts are this worker's own: least_conn compares what this worker has open.
"""

import errno
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from aegis import config
from aegis.addresses import Address, parse_address
from aegis.figures import CONNECT_BOUNDS_S, BackendFigures, ServerFigures
from workers.tcp import tune

if TYPE_CHECKING:
    from workers.loop import Loop


class Server:
    """One address of a backend; `figures.connections` is kept by the sessions that use it."""

    __slots__ = ("address", "bit", "figures")

    def __init__(self, backend: str, text: str, index: int) -> None:
        self.address: Final[Address] = parse_address(text)
        self.bit: Final = 1 << index
        self.figures: Final = ServerFigures(backend, text)

    def count_connect(self, seconds: float) -> None:
        """Count an established connection, and how long it took by the loop's clock.

        That clock is as good as a turn is long; the histogram's first bound is above that.
        """
        self.figures.connects += 1
        self.figures.connect_seconds.observe(seconds, CONNECT_BOUNDS_S)

    def count_error(self, code: int) -> None:
        """Count a failed connect by the name of its errno."""
        errors, name = self.figures.connect_errors, errno.errorcode.get(code, str(code))
        errors[name] = errors.get(name, 0) + 1


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

    def shrink(self) -> bool:
        """Close one of them; False when there is none."""
        ...

    def retire_one(self) -> bool:
        """Let one that is used end with its use; False when there is none."""
        ...


class Backend:
    """The servers of one backend, and the budget of connections to them.

    `pick` never returns a server whose bit is in `tried`. Whoever opens a connection asks `claim`
    first and tells `opened`, and `freed` when it has ended; at most `limit` are open.
    """

    __slots__ = (
        "_claimants", "_ended", "_least_conn", "_turn", "config", "drained", "figures", "limit",
        "open", "pool_min", "pools", "servers",
    )  # fmt: skip

    def __init__(self, conf: config.Backend, slot: int, workers: int = 1) -> None:
        """Start the rotation at the worker's slot, so that workers do not move in step."""
        self.config = conf
        self.figures = BackendFigures(conf.name)
        self.servers = [Server(conf.name, text, i) for i, text in enumerate(conf.servers)]
        self._turn = slot % len(self.servers)
        self._least_conn = conf.balance == "least_conn"
        self._claimants: deque[Claimant] = deque()
        self._ended: list[Server] = []  # closed in this turn
        self.limit: float = float("inf")
        """This worker's share of max_connections."""
        self.open = 0
        self.drained = 0
        """Bits of the servers that get nobody new."""
        self.pool_min = 0
        """This worker's share of pool_min."""
        self.divide_minimum(slot, workers)
        self.pools: list[Shrinkable] = []
        """Who may have connections to spare for others of the backend."""

    def divide_minimum(self, slot: int, workers: int) -> None:
        """Take this worker's part of the pipes to be kept open."""
        whole, rest = divmod(self.config.pool_min, workers)
        self.pool_min = whole + (slot < rest)

    def claim(self, claimant: Claimant) -> bool:
        """Whether a connection may be opened now; if not, its `room` is called when one may."""
        if self.open < self.limit:
            return True
        if claimant not in self._claimants:
            self._claimants.append(claimant)
        if self.open - len(self._ended) + len(self._claimants) > self.limit:
            any(pool.shrink() for pool in self.pools)
        return False

    def give_up(self, claimant: Claimant) -> None:
        """Forget a claim."""
        if claimant in self._claimants:
            self._claimants.remove(claimant)

    def set_limit(self, limit: float) -> None:
        """Move the share; connections above it are closed as they fall idle."""
        self.limit = limit
        over = self.open - limit
        while over > 0 and any(pool.shrink() or pool.retire_one() for pool in self.pools):
            over -= 1
        self._invite()

    def opened(self, server: Server) -> None:
        """Count a connection that is being opened."""
        self.open += 1
        server.figures.connections += 1

    def freed(self, server: Server, loop: "Loop") -> None:
        """Count a connection that ends with this turn, and let who waits have its place then.

        Not before the socket is closed: the server would see one connection too many.
        """
        if self.limit == float("inf"):  # nobody waits
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
            if self.open >= self.limit:
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

    def pick(self, tried: int) -> Server | None:
        """Choose a server for a session that has tried those in the bit set; None: all tried."""
        servers, turn = self.servers, self._turn
        tried |= self.drained
        best: Server | None = None
        for server in servers[turn:] + servers[:turn] if len(servers) > 1 else servers:
            if server.bit & tried:
                continue
            if not self._least_conn:
                best = server
                break
            if best is None or server.figures.connections < best.figures.connections:
                best = server
        if best is not None:
            self._turn = best.bit.bit_length() % len(servers)  # the one after it, ties rotate
        return best

    def dial(self, server: Server) -> tuple[socket.socket, int]:
        """Start a non-blocking connect; returns the socket and connect(2)'s errno (0: done).

        Raises:
            OSError: no socket could be made (EMFILE and its like).
        """
        address = server.address
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if address.family != socket.AF_UNIX:
            tune(sock, self.config.keepalive_s)
        return sock, sock.connect_ex(address.sockaddr)

"""A named group of servers as one worker sees it, and the choice of the next one.

    ServerWish, ServerWish, … ─▶ apply ─▶ servers: live ─┬─ balance ─▶ pick ─▶ dial
                                                         └─ nobody new: what they have ends

Live are the servers whose weight is above 0 and which are no backups, or the backups if there is no
other. A server that is not wanted any more keeps what it has and is forgotten once that has ended.
"""

import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aegis import config_backend
from aegis.figures import BackendFigures, TlsFigures
from aegis.messages import ServerWish
from workers.balance import Load, Source, connections_of, make_balance
from workers.budget import Budget
from workers.leaving import Leaving
from workers.target import UNLIMITED, Server
from workers.tcp import RawSocket, resets_on_close, unsent

if TYPE_CHECKING:
    from workers.loop import Loop

Tried = tuple[Server, ...]
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Backend(Budget):
    """The servers of one backend. `pick` never returns one that is in `tried`."""

    __slots__ = (
        "_only", "_others", "balance", "by_source", "config", "ending", "figures", "greets",
        "has_choice", "pool_min", "servers", "tls", "tls_context",
    )  # fmt: skip

    def __init__(self, conf: config_backend.Backend, slot: int, workers: int = 1) -> None:
        """Know no server yet: they come with `apply`."""
        super().__init__()
        self.config = conf
        self.figures = BackendFigures(conf.name)
        self.servers: dict[str, Server] = {}
        """By address; those that are let go included."""
        self.greets = conf.tls is not None or conf.send_proxy != "off"
        """Whether a connection begins with more than its handshake (workers/greeting.py)."""
        self.balance = make_balance(conf.balance, slot)
        self.by_source = isinstance(self.balance, Source)
        """Whether `pick` has to know the client."""
        self._only: Server | None = None  # where there is no choice
        self.has_choice = False
        """Whether several servers are live."""
        self._others: tuple[Server, ...] = ()  # backups that are not live
        self.ending: set[Leaving] = set()
        """Connections that are closed, and that a server is still to hear of."""
        self.pool_min = 0
        """This worker's share of pool_min."""
        self.tls_context: ssl.SSLContext | None = None
        """Of new handshakes, where servers speak TLS; Certificates gives it and may exchange it."""
        self.tls = TlsFigures(conf.name)
        self.divide_minimum(slot, workers)

    def divide_minimum(self, slot: int, workers: int) -> None:
        """Take this worker's part of the pipes to be kept open."""
        whole, rest = divmod(self.config.pool_min, workers)
        self.pool_min = whole + (slot < rest)

    # --- what is wanted ------------------------------------------------------------------------

    def apply(self, wishes: Iterable[ServerWish], shares: dict[str, int]) -> None:
        """Want these servers, each with its weight, and let the others go.

        Args:
            wishes: all servers that are wanted.
            shares: where a new server has a limit, this worker's share of it.
        """
        wanted = {wish.address: wish for wish in wishes}
        for address, server in self.servers.items():
            server.wanted = address in wanted
            server.weight = server.weight if server.wanted else 0
        for address, wish in wanted.items():
            known = self.servers.get(address)
            if known is None:
                known = self.servers[address] = Server(self.config.name, wish)
                known.limit = self._share_of(known, shares)
            known.wish, known.weight = wish, wish.weight
        usable = [self.servers[address] for address in wanted if wanted[address].weight]
        ordinary = tuple(server for server in usable if not server.wish.backup)
        before, self.live = self.live, ordinary or tuple(usable)
        self._others = tuple(server for server in usable if server not in self.live)
        for server in self.servers.values():
            server.live = server in self.live
        self.balance.changed(self.live, members=before != self.live)
        if before != self.live:
            for pool in self.pools:
                pool.servers_changed()
        self._live_changed()

    def share(self, shares: dict[str, int]) -> None:
        """Take this worker's shares of what is limited."""
        if self.config.max_connections:
            limit = shares.get(self.config.name, self.limit)
            if limit != self.limit:
                self.set_limit(limit)
        for server in self.servers.values():
            share = self._share_of(server, shares)
            if share != server.limit:
                self.set_server_limit(server, share)

    def _share_of(self, server: Server, shares: dict[str, int]) -> int:
        return shares.get(f"{self.config.name}/{server.wish.address}", UNLIMITED)

    def _live_changed(self) -> None:
        live = self.live
        alone = live is not None and len(live) == 1 and live[0].limit == UNLIMITED
        self._only = live[0] if live and alone else None
        self.has_choice = live is not None and len(live) > 1
        super()._live_changed()

    def leaving(self) -> list[Server]:
        """Return those that get nobody new and have somebody still, or are to be forgotten."""
        return [
            server
            for server in self.servers.values()
            if not server.live and (server.figures.connections or not server.wanted)
        ]

    def forget(self, server: Server) -> None:
        """Forget a server that has nothing left here."""
        del self.servers[server.wish.address]

    # --- the next server -----------------------------------------------------------------------

    def pick(self, tried: Tried = (), key: int = 0) -> Server | None:
        """Choose a server for a session that has tried those; None: no other has room.

        Backups are chosen once every live server was tried.
        """
        if self._only is not None and not tried:
            return self._only
        left = [server for server in self.live or () if server not in tried]
        left = left or [server for server in self._others if server not in tried]
        left = [server for server in left if server.has_room]
        return self.balance.next(left, key, connections_of) if left else None

    def turn(self, now: float, load: Load = connections_of) -> Server | None:
        """Choose a live server for what is shared, full or not; None: all are shunned."""
        left = [server for server in self.live or () if now >= server.shunned_until]
        return self.balance.next(left, 0, load) if left else None

    def has_untried(self, tried: Tried) -> bool:
        """Whether there is a server that was not tried, though it may have no room now."""
        return any(server not in tried for server in (*(self.live or ()), *self._others))

    def close(self, server: Server, sock: socket.socket, loop: "Loop") -> None:
        """Close a connection to a server; it counts until the server can see that."""
        if self.is_limited and unsent(sock) and not resets_on_close(sock):
            Leaving(self, server, sock, loop)
        else:
            loop.close(sock)
            self.freed(server, loop)

    def let_go(self) -> None:
        """Wait for no server any more."""
        for each in list(self.ending):
            each.end()

    def dial(self, server: Server) -> tuple[socket.socket, int]:
        """Start a non-blocking connect; returns the socket and connect(2)'s errno (0: done).

        Raises:
            OSError: no socket could be made (EMFILE and its like).
        """
        address = server.address
        sock = RawSocket(address.family, _STREAM)
        if address.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, sock.connect_ex(address.sockaddr)

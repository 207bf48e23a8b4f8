"""The servers of a worker's backends, as the controller wants them.

    Desired.servers ─▶ apply ─▶ Backend.live: these get new sessions
                          └─▶ let go: pipes take no more requests, spares close, sessions go on
                                step, every tick ─▶ cut at `cut_at` ─▶ nothing left: forgotten

Shares of connections come the same way, by the name of a backend or of a server.
"""

from time import monotonic

from aegis.figures import Figures
from aegis.messages import ServerWishes
from workers.backend import Backend
from workers.drain import Cuts
from workers.listener import Listener
from workers.pool import Pool
from workers.session import Session
from workers.shared import SharedSession
from workers.target import UNLIMITED, Server
from workers.warm import Warm


class Roster:
    """Adds servers to the backends, changes them and takes them away."""

    def __init__(
        self,
        backends: list[Backend],
        listeners: list[Listener],
        pools: list[Pool | Warm],
        figures: Figures,
        cuts: Cuts,
    ) -> None:
        self._backends = backends
        self._listeners = listeners
        self._pools = pools
        self._figures = figures
        self._cuts = cuts
        self._applied: ServerWishes = {}
        self._shares: dict[str, int] = {}

    def apply(self, wishes: ServerWishes, shares: dict[str, int] | None) -> None:
        """Want these servers and take these shares of what is limited.

        A backend that is not among the wishes is left as it is; so are all shares if they are None.
        """
        self._shares = shares if shares is not None else self._shares
        for backend in self._backends:
            name = backend.config.name
            wanted = wishes.get(name)
            if wanted is not None and wanted != self._applied.get(name):
                backend.apply(wanted, self._shares)
                for pool in self._pools_of(backend):
                    if isinstance(pool, Warm):
                        pool.let_go()
            backend.share(self._shares)
        self._applied = self._applied | wishes
        self._list_servers()
        self.step(monotonic())

    def step(self, now: float) -> None:
        """Go on with letting servers go."""
        for backend in self._backends:
            for server in backend.leaving():
                self._let_go(backend, server, now)

    def _let_go(self, backend: Backend, server: Server, now: float) -> None:
        overdue = not server.weight and 0.0 < server.wish.cut_at <= now
        for pool in self._pools_of(backend):
            if isinstance(pool, Pool):
                self._empty(pool, server, cut=overdue)
        if overdue:
            for listener in self._listeners:
                self._cut(listener, server)
        if not (server.wanted or server.figures.connections):
            backend.forget(server)
            for pool in self._pools_of(backend):
                pool.forget(server)
            self._list_servers()

    def _empty(self, pool: Pool, server: Server, *, cut: bool) -> None:
        """Take a pool's pipes away from a server; backups keep theirs until others can serve."""
        if server.weight and not pool.serves_live:
            return
        for pipe in [pipe for pipe in pool.pipes if pipe.target is server]:
            owner = pipe.owner
            if cut and isinstance(owner, SharedSession) and not server.wish.reset:
                self._cuts.end(owner.listener, [owner])
            elif cut:
                pipe.lose("server_down" if server.wish.reset else "drain_deadline")
            elif not pipe.retiring:
                pool.retire(pipe)
                if not pipe.owed:
                    pool.idle(pipe)

    def _cut(self, listener: Listener, server: Server) -> None:
        on_it = [s for s in listener.sessions if isinstance(s, Session) and s.target is server]
        if not server.wish.reset:
            self._cuts.end(listener, on_it)
            return
        for session in on_it:
            session.abort("server_down")

    def _list_servers(self) -> None:
        self._figures.servers = [
            server.figures for backend in self._backends for server in backend.servers.values()
        ]

    # --- telling others ------------------------------------------------------------------------

    def news(self, now: float) -> list[object]:
        """Return what the controller has to know at once, whenever it is another than before."""
        news: list[object] = []
        for backend in self._backends:
            if backend.is_limited:
                news += [backend.open > backend.limit, bool(backend.queue(now)[0])]
            for server in backend.servers.values():
                news += [server.is_over_limit, server.figures.failures_in_a_row]
        return news

    def sample(self, now: float) -> None:
        """Bring those figures of backends, pools and servers up to date that are states."""
        for backend in self._backends:
            figures, pools = backend.figures, self._pools_of(backend)
            idle = sum([pool.sample() for pool in pools])
            figures.open, figures.busy = backend.open, backend.open - idle
            figures.waiting, since = backend.queue(now)
            figures.longest_wait_s = now - since
            for server in backend.servers.values():
                server.forget_old_failures()
                if server.limit != UNLIMITED:
                    unused = sum(pool.idle_on(server) for pool in pools)
                    server.figures.busy = server.figures.connections - unused

    def _pools_of(self, backend: Backend) -> list[Pool | Warm]:
        return [pool for pool in self._pools if pool.backend is backend]

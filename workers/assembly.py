"""What a worker is made of, put together from its Boot: once, when it starts.

Boot.config ─▶ loop, backends ─▶ pools, quotas ─▶ doors ─▶ listeners
"""

from functools import partial

from aegis.config_listener import Listener as ListenerConfig
from aegis.figures import Figures
from aegis.framers.registry import make_framer
from aegis.lifecycle import CloseReason
from aegis.limits import BULK_BYTES
from aegis.messages import Boot, listener_limit
from workers.backend import Backend
from workers.certificates import Certificates
from workers.door import Door, Route, has_door
from workers.frame_limit import LimitedSession
from workers.guarded import GuardedListener
from workers.kernel_pipes import KernelPipes
from workers.listener import Listener, MakeSession
from workers.loop import Loop
from workers.pool import Pool
from workers.prepared import PreparedSession
from workers.quota import Quota
from workers.rates import RatedSession
from workers.session import Session
from workers.session_log import SessionLog
from workers.shared import SharedSession
from workers.slab import Slabs
from workers.sni import Routes
from workers.tls_loop import TlsLoop
from workers.warm import Warm


def make_loop(boot: Boot, figures: Figures) -> Loop:
    """Make the loop: one for TLS only where there is some."""
    conf = boot.config
    slabs = Slabs(conf.slabs, conf.slab_bytes, figures)
    has_tls = any(one.tls for one in conf.listeners) or any(one.tls for one in conf.backends)
    pipes = KernelPipes(conf.kernel_pipes if conf.slab_bytes >= BULK_BYTES else 0, figures)
    return (TlsLoop if has_tls else Loop)(slabs, pipes, figures)


class Assembly:
    """The parts; their figures are those of the worker."""

    def __init__(
        self, boot: Boot, loop: Loop, figures: Figures, session_log: SessionLog | None
    ) -> None:
        """Make everything.

        Raises:
            AegisError: a certificate or a framer cannot be loaded.
        """
        conf = boot.config
        self._boot = boot
        self._loop = loop
        self._session_log = session_log
        self._by_name = {b.name: Backend(b, boot.slot, boot.workers) for b in conf.backends}
        self.backends = list(self._by_name.values())
        self._pools: dict[tuple[str, str], Pool | Warm] = {}
        for each in conf.listeners:
            self._make_pools(each)
        self.pools = list(self._pools.values())
        self.quotas: list[Quota] = []
        whole = self._quota(listener_limit(), conf.max_sessions, "total_limit")
        self.doors: list[Door] = []
        self.listeners = [self._listener(each, whole, figures) for each in conf.listeners]
        self.certificates = Certificates(self.doors, self.backends, boot.tls)
        figures.listeners = [listener.figures for listener in self.listeners]
        figures.backends = [backend.figures for backend in self.backends]
        figures.pools = [pool.figures for pool in self.pools]
        figures.limits = [quota.figures for quota in self.quotas]
        figures.client_tls = [door.tls for door in self.doors if door.ends_tls]
        figures.server_tls = [b.tls for b in self.backends if b.config.tls is not None]

    def _make_pools(self, conf: ListenerConfig) -> None:
        """Make what clients of a listener share, unless others of the same kind do so already."""
        if conf.pooling == "off":
            return
        for name in [conf.backend, *(route.backend for route in conf.sni)]:
            key = _pool_key(conf, name)
            if key in self._pools:
                continue
            backend = self._by_name[name]
            if conf.pooling == "warm":
                self._pools[key] = Warm(backend, self._loop)
            else:
                self._pools[key] = Pool(backend, make_framer(conf.protocol), self._loop)

    def _quota(self, name: str, most: int, reason: CloseReason) -> list[Quota]:
        """Make what counts sessions against a limit, if there is one."""
        if not most:
            return []
        quota = Quota(name, most, reason, self._loop)
        self.quotas.append(quota)
        return [quota]

    def _listener(self, conf: ListenerConfig, whole: list[Quota], figures: Figures) -> Listener:
        own = self._quota(listener_limit(conf.name), conf.max_sessions, "listener_limit")
        door = None
        if has_door(conf) or whole:
            door = Door(conf, self._loop, [*whole, *own], self._routes(conf))
            self.doors.append(door)
        pool = self._pools.get(_pool_key(conf, conf.backend))
        warm = pool if isinstance(pool, Warm) else None
        make, session_log = self._session_maker(conf, pool), self._session_log
        fd, backend = self._boot.listeners[conf.name], self._by_name[conf.backend]
        parts = (conf, fd, backend, self._loop, figures)
        if door is None:
            return Listener(*parts, make=make, warm=warm, session_log=session_log)
        return GuardedListener(
            *parts,
            make=make,
            warm=warm,
            session_log=session_log,
            door=door,
            elsewhere=conf.name in self._boot.elsewhere,
        )

    def _session_maker(self, conf: ListenerConfig, pool: Pool | Warm | None) -> MakeSession:
        """Choose what a client becomes: nobody pays for what its listener does not have."""
        if isinstance(pool, Pool):
            return partial(LimitedSession if conf.max_frame_bytes else SharedSession, pool=pool)
        if conf.upload_bytes_per_s or conf.download_bytes_per_s:
            return RatedSession
        backends = (conf.backend, *(route.backend for route in conf.sni))
        greets = any(self._by_name[name].greets for name in backends)
        return PreparedSession if greets else Session

    def _routes(self, conf: ListenerConfig) -> Routes[Route] | None:
        if not conf.sni:
            return None
        by_name = [(route.name, self._route(conf, route.backend)) for route in conf.sni]
        return Routes(by_name, self._route(conf, conf.backend))

    def _route(self, conf: ListenerConfig, backend: str) -> Route:
        pool = self._pools.get(_pool_key(conf, backend))
        return Route(self._by_name[backend], pool if isinstance(pool, Warm) else None)


def _pool_key(conf: ListenerConfig, backend: str) -> tuple[str, str]:
    """Tell which listeners share a pool: those of one backend that speak alike, or warm ones."""
    ways = {"off": "off", "warm": ""}
    return backend, ways.get(conf.pooling, conf.protocol)

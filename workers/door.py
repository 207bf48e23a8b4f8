"""What a listener asks of a client before it gets a session, in this order, and for whom it asks.

    PROXY header? ─▶ access rules ─▶ limits of its address ─▶ places: of all, of the listener
                                                        ─▶ handshake, or the name in its hello ─▶ in

A listener whose configuration asks for none of this has no door, and accepts as if this were not
there. What a client has been given on the way (its address's count, places) it holds as a Guest
until its session has closed, whichever session that is by then.
"""

import ssl
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING, NamedTuple

from aegis.access import UNIX, AccessList, access_list, only, site_of
from aegis.config_listener import Listener as ListenerConfig
from aegis.figures import TlsFigures
from aegis.framers.registry import make_framer
from aegis.lifecycle import CloseReason
from aegis.limits import PRELUDE_S
from aegis.proxy_protocol import Endpoints, ProxyProtocolError
from workers.backend import Backend
from workers.clients import Clients, Key
from workers.first_bytes import FirstBytes
from workers.handshake import reason_of, shake_hands
from workers.loop import READ, Loop
from workers.prelude import Prelude
from workers.proxy_header import read_header
from workers.quota import Quota
from workers.session import Session
from workers.shared import SharedSession
from workers.sni import Routes, read_name
from workers.steps import PARKED, Steps
from workers.tcp import ends_of
from workers.tls import TlsSocket
from workers.tls_loop import TlsLoop
from workers.warm import Warm

if TYPE_CHECKING:
    from workers.guarded import GuardedListener


class Route(NamedTuple):
    """Which servers a client is for."""

    backend: Backend
    warm: Warm | None
    """Connections to them that were opened ahead."""


class Guest:
    """What a client has been given; and who it is, if a PROXY header said so."""

    __slots__ = ("ends", "key", "places")

    def __init__(self) -> None:
        self.ends: Endpoints | None = None
        self.key: Key | None = None
        self.places: list[Quota] = []


def has_door(conf: ListenerConfig) -> bool:
    """Whether a listener asks for anything itself."""
    return bool(
        conf.access
        or conf.proxy_protocol == "required"
        or conf.sni
        or conf.tls
        or conf.max_sessions
        or conf.max_sessions_per_client
        or conf.accept_rate_per_client
        or conf.first_byte_timeout_s
    )


class Door:
    """The door of one listener."""

    def __init__(
        self,
        conf: ListenerConfig,
        loop: Loop,
        quotas: list[Quota],
        routes: Routes[Route] | None,
    ) -> None:
        """`quotas` are taken in their order; `routes` are by name, None if nobody reads names."""
        self.conf = conf
        self.context: ssl.SSLContext | None = None
        """Of new handshakes, where TLS ends here; Certificates gives it and may exchange it."""
        self.tls = TlsFigures(conf.name)
        self._guests: dict[object, Guest] = {}  # by session, or by Prelude
        self.farewells = 0
        """Clients that are being told why they are refused."""
        self.patience_s = conf.first_byte_timeout_s or PRELUDE_S
        self._loop = loop
        self._first_bytes = None
        if conf.first_byte_timeout_s:
            self._first_bytes = FirstBytes(loop, conf.first_byte_timeout_s)
        self._quotas = quotas
        self._routes = routes
        self._access: AccessList = access_list(conf.access)
        self._trusted = only(conf.trusted) if conf.proxy_protocol == "required" else None
        self._framer = None if conf.protocol == "raw" else make_framer(conf.protocol)
        self._clients: Clients | None = None
        if conf.max_sessions_per_client or conf.accept_rate_per_client:
            self._clients = Clients(
                conf.max_sessions_per_client,
                conf.accept_rate_per_client,
                conf.accept_burst_per_client,
                loop,
            )

    @property
    def ends_tls(self) -> bool:
        """Whether clients speak TLS with us."""
        return self.conf.tls is not None

    def meet(self, listener: "GuardedListener", client: socket) -> Prelude:
        """Take in a client that was accepted; its `begin` asks it everything."""
        prelude = Prelude(listener, client, self)
        self._guests[prelude] = Guest()
        return prelude

    def steps(self, prelude: Prelude) -> Steps[CloseReason | None]:
        """Ask a client everything; returns why it is refused, None if it is let in.

        Raises:
            OSError: the connection has broken.
        """
        guest = self._guests[prelude]
        ends = ends_of(prelude.client)
        if ends is None and prelude.client.family != AF_UNIX:
            return "client_reset"
        host = ends.source[0] if ends is not None else UNIX
        if self._trusted is not None:
            if not self._trusted.allows(host):
                return "untrusted_proxy"
            try:
                guest.ends = yield from read_header(prelude.client)
            except ProxyProtocolError:
                return "bad_proxy_header"
            if guest.ends is not None:
                host = guest.ends.source[0]
                prelude.is_from(guest.ends.source)
        if not self._access.allows(host):
            return "access_denied"
        if self._clients is not None and host != UNIX:
            key = site_of(host)
            if (reason := self._clients.admit(key)) is not None:
                return reason
            guest.key = key
        for quota in self._quotas:
            if not (yield from self._place(prelude, quota)):
                return quota.reason
            guest.places.append(quota)
        if self.context is not None:
            return (yield from self._end_tls(prelude, self.context))
        if self._routes is not None:
            prelude.route = self._routes.target((yield from read_name(prelude.client)))
        return None

    def _place(self, prelude: Prelude, quota: Quota) -> Steps[bool]:
        """Take a place, waiting for one where it may yet come."""
        if quota.take():
            return True
        if not quota.wait(prelude):
            return False
        prelude.queued(quota)
        yield PARKED
        return prelude.dequeued()

    def _end_tls(self, prelude: Prelude, context: ssl.SSLContext) -> Steps[CloseReason | None]:
        assert isinstance(self._loop, TlsLoop)
        began = self._loop.now
        client = TlsSocket(prelude.client, context, self._loop, server_side=True)
        prelude.client = client
        try:
            yield from shake_hands(client, READ)
        except ssl.SSLError as error:
            self.tls.failed(reason_of(error))
            return "tls_failed"
        self.tls.completed(self._loop.now - began)
        return None

    def words(self, reason: CloseReason) -> bytes:
        """Return what a client is told that is refused, in its protocol; it may be nothing."""
        if self._framer is None or self.ends_tls:
            return b""
        return self._framer.error(reason)

    def watch(self, session: Session | SharedSession) -> None:
        """See to it that a client says something."""
        if self._first_bytes is not None:
            self._first_bytes.watch(session)

    # --- guests --------------------------------------------------------------------------------

    def moved(self, before: object, after: object) -> None:
        """Note that another session has a client."""
        if (guest := self._guests.pop(before, None)) is not None:
            self._guests[after] = guest

    def ends_of(self, session: object) -> Endpoints | None:
        """Return what a client's PROXY header has said; None if nothing has."""
        guest = self._guests.get(session)
        return guest.ends if guest is not None else None

    def left(self, session: object) -> None:
        """Take back what a client was given."""
        guest = self._guests.pop(session, None)
        if guest is None:
            return
        for quota in guest.places:
            quota.release()
        if guest.key is not None:
            assert self._clients is not None
            self._clients.left(guest.key)

"""A listener with a door: its clients are asked first, and what they were given comes back.

    accept ─▶ door.meet ─▶ Prelude ─ let_in ─▶ session … closed ─▶ door.left

Listeners without a door are plain ones, so that these calls cost them nothing.
"""

from typing import TYPE_CHECKING, Any, cast

from aegis.lifecycle import CloseReason
from aegis.proxy_protocol import Endpoints
from workers.door import Door
from workers.listener import AnySession, HasClient, Listener, MakeSession
from workers.prelude import Prelude
from workers.session import Session

if TYPE_CHECKING:
    from workers.shared import SharedSession


class GuardedListener(Listener):
    """One such listener."""

    __slots__ = ("_door", "_elsewhere", "_make_session")

    def __init__(self, *args: Any, door: Door, elsewhere: bool, **kwargs: Any) -> None:
        """As a Listener.

        Args:
            args: a Listener's.
            door: what is asked of its clients before they get a session.
            elsewhere: another worker accepts, and this one never does.
            kwargs: a Listener's.
        """
        super().__init__(*args, **kwargs)
        self._door = door
        self._elsewhere = elsewhere
        self._make_session = self._make
        self._make = cast(MakeSession, door.meet)  # nobody else calls it, so this is its listener

    def serve(self) -> None:
        """Listen and accept, unless another worker does."""
        if not self._elsewhere:
            super().serve()

    def refuse(self) -> None:
        """Let clients be refused, which is done where they are accepted."""
        if not self._elsewhere:
            super().refuse()

    def let_in(self, prelude: Prelude) -> None:
        """Begin the session of a client of which nothing more is asked."""
        session = self._make_session(self, prelude.client)
        assert not isinstance(session, Prelude)
        self.replace(prelude, session)
        self._door.watch(session)
        if isinstance(session, Session) and prelude.route is not None:
            session.begin_on(*prelude.route)
        else:
            session.begin()

    def replace(
        self, session: "Prelude | SharedSession", successor: "Session | SharedSession"
    ) -> None:
        """Note that another session has taken a client over."""
        super().replace(session, successor)
        self._door.moved(session, successor)

    def ends_of(self, session: HasClient) -> Endpoints | None:
        """Return who a client is, and where it came; None if it has no address, or has left."""
        return self._door.ends_of(session) or super().ends_of(session)

    def closed(self, session: AnySession, reason: CloseReason) -> None:
        """Forget a session that has closed."""
        self._door.left(session)
        super().closed(session, reason)

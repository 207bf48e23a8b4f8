"""Tells of a worker's sessions when an operator asks, and ends those that one wants ended.

A session has no name of its own: its worker, its client's fd and the instant of its accept are one.
No two sessions have the same, for a fd is closed at the end of a turn and the clock is read at the
beginning of the next (workers/loop.py). So nobody pays for this before it is asked for.
"""

import heapq
import os
from collections.abc import Iterable, Iterator

from aegis.session_messages import Found, Look, SessionRow, SessionState
from workers.client import ENDING, LINGERING
from workers.drain import client_of, server_of
from workers.listener import AnySession, Listener
from workers.prelude import Prelude
from workers.session import Session
from workers.tally import Tally


def id_of(session: AnySession) -> str:
    """Return what an operator calls a session."""
    return f"{os.getpid()}-{session.client.fileno()}-{round(session.accepted_at * 1e6):x}"


def find(listeners: Iterable[Listener], look: Look, slot: int) -> Found:
    """Return the sessions that are asked for, the oldest first."""
    found = list(_asked_for(listeners, look))
    # Of one turn's sessions all are as old: by their names, which the controller sorts by as well.
    rows = heapq.nsmallest(look.most, found, key=lambda each: (each.accepted_at, id_of(each)))
    return Found(look.number, len(found), [_row(session, slot, look.at) for session in rows])


def _asked_for(listeners: Iterable[Listener], look: Look) -> Iterator[AnySession]:
    for listener in listeners:
        if look.listener in {"", listener.config.name}:
            for session in listener.sessions:
                if look.session in {"", id_of(session)}:
                    yield session


def _row(session: AnySession, slot: int, at: float) -> SessionRow:
    counts = session.bytes
    return SessionRow(
        id=id_of(session),
        worker=slot,
        listener=session.listener.config.name,
        client=client_of(session),
        server=server_of(session),
        age_s=max(0.0, at - session.accepted_at),
        state=_state_of(session),
        bytes=(counts[0], counts[1]) if isinstance(counts, Tally) else None,
    )


def _state_of(session: AnySession) -> SessionState:
    if isinstance(session, Prelude):
        return "asked"
    if isinstance(session, Session):
        if not session.relays:
            return "dialling"
        return "closing" if session.has_ended_half else "relaying"
    if session.state & (ENDING | LINGERING):
        return "closing"
    return "busy" if session.outstanding or session.state else "idle"


def kill(listeners: Iterable[Listener], ids: Iterable[str]) -> None:
    """End sessions at once; of those that have ended already nothing is left to do."""
    wanted = set(ids)
    for listener in listeners:
        for session in [each for each in listener.sessions if id_of(each) in wanted]:
            if isinstance(session, Session):
                session.abort("killed")
            else:
                session.close("killed")

"""A worker's half of the session log: what is noted while a session lives, and sent when it ends.

    accept ─▶ opened ─▶ Note (server, times, bytes) ─▶ closed ─▶ batch ──PUSH──▶ exporter

Nothing is noted of a session that is not sampled, and without a session log there is no SessionLog:
a session then costs the test of an attribute when it begins and one when it ends. Batches are
bounded, sends never wait, and what finds no room is counted and lost.

Bytes are noted where the data path counts them anyway: a session whose bytes are wanted counts into
a Tally, which adds to its listener's count as well, instead of counting there itself.
"""

from socket import AF_UNIX, socket
from time import time
from typing import TYPE_CHECKING, Any

from aegis import config
from aegis.config_backend import servers_of
from aegis.figures import Figures
from aegis.lifecycle import CloseReason
from aegis.limits import SESSION_LOG_DELAY_S, SESSIONS_PER_BATCH
from aegis.session_records import SessionBatch, SessionRecord
from workers.loop import Loop
from workers.tally import Tally
from workers.timers import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.backend import Backend
    from workers.listener import AnySession
    from workers.target import Server


class Note:
    """What is known so far of one session that will be logged."""

    __slots__ = ("_dialled_at", "_queued_at", "bytes", "record", "server")

    def __init__(self, record: SessionRecord, tally: Tally) -> None:
        self.record = record
        self.bytes = tally
        self.server: Server | None = None
        self._dialled_at = self._queued_at = -1.0

    def is_from(self, source: tuple[str, int]) -> None:
        """Note the address that a PROXY header says the client has."""
        self.record.client = text_of(source)

    def queued(self, behind: int, now: float) -> None:
        """Note that a wait for a connection has begun, behind so many others."""
        self._queued_at = now
        self.record.queued_behind = behind

    def dequeued(self, now: float) -> None:
        """Note that there is no wait, or that it is over."""
        waited_s = now - self._queued_at if self._queued_at >= 0 else 0.0
        self._queued_at = -1.0
        self.record.queue_ms = max(self.record.queue_ms, 0) + round(waited_s * 1000)

    def dialling(self, server: "Server", now: float) -> None:
        """Note an attempt to connect: the first one ends the wait in the queue."""
        self.server = server
        if self._dialled_at < 0:
            self._dialled_at = now
            self.dequeued(now)
        else:
            self.record.retries += 1

    def connected(self, now: float) -> None:
        """Note that the server of the last attempt has accepted."""
        if self._dialled_at >= 0:  # else it took a pipe's connection over
            self.record.connect_ms = round((now - self._dialled_at) * 1000)

    def submitted(self, server: "Server", replies: int) -> None:
        """Note requests that go to a pipe, or a connection that was opened ahead."""
        self.server = server
        record = self.record
        record.requests += replies
        record.connect_ms = max(record.connect_ms, 0)
        record.queue_ms = max(record.queue_ms, 0)

    def lost(self, why: str) -> None:
        """Note that the client was told an error in place of a reply that its pipe had lost."""
        self.record.lost = why

    def closing(self, now: float) -> None:
        """End what has not ended: a wait that was in vain."""
        if self._queued_at >= 0:
            self.dequeued(now)
        self.record.total_ms = round((now - self.record.began) * 1000)

    def counted(self) -> SessionRecord:
        """Return the record with all bytes."""
        self.record.client_bytes, self.record.server_bytes = self.bytes
        return self.record


class SessionLog:
    """Collects the records of one worker and sends them in batches."""

    def __init__(
        self,
        conf: config.Log,
        loop: Loop,
        figures: Figures,
        send: "Callable[[SessionBatch], bool]",
    ) -> None:
        """`send` never waits; False when there was no room."""
        self._sample = conf.sessions_sample
        self._skipped = conf.sessions_sample - 1  # the first session is one that is logged
        self._loop = loop
        self._figures = figures
        self._send = send
        self._notes: list[Note] = []
        self._names: dict[str, dict[str, str]] = {}  # backend -> address -> name
        Alarm(loop.wheel, loop.now, self._flush_in_time)

    def opened(self, session: "AnySession", client: socket, address: Any) -> None:
        """Begin to note a session, if it is one of the sample; before its first byte."""
        self._skipped += 1
        if self._skipped < self._sample:
            return
        self._skipped = 0
        listener = session.listener
        record = SessionRecord(_text(client, address), listener.config.name, self._loop.now)
        session.note = Note(record, Tally(listener.figures.bytes))
        session.bytes = session.note.bytes

    def closed(self, note: Note, backend: "Backend", reason: CloseReason, sessions: int) -> None:
        """Complete a record; while `sessions`, of its listener, still counts it."""
        note.closing(self._loop.now)
        record = note.record
        record.reason = reason
        record.worker_sessions = self._figures.sessions
        record.listener_sessions = sessions
        record.backend = backend.config.name
        record.backend_connections = backend.open
        if note.server is not None:
            address = note.server.address.text
            record.server = self._names_in(backend).get(address, address)
            record.server_connections = note.server.figures.connections
        self._notes.append(note)
        if len(self._notes) == SESSIONS_PER_BATCH:
            self._loop.defer(self)

    def _names_in(self, backend: "Backend") -> dict[str, str]:
        """Return the names of those servers of a backend that have one."""
        conf = backend.config
        names = self._names.get(conf.name)
        if names is None:
            named = {each.address: each.name for each in servers_of(conf.servers) if each.name}
            names = self._names[conf.name] = named
        return names

    def flush(self) -> None:
        """Send what has been collected; at a turn's end: a close may come before a count."""
        notes, self._notes = self._notes, []
        offset = time() - self._loop.now
        for start in range(0, len(notes), SESSIONS_PER_BATCH):
            records = [note.counted() for note in notes[start : start + SESSIONS_PER_BATCH]]
            if not self._send(SessionBatch(self._figures.slot, offset, records)):
                self._figures.session_log_drops += len(records)

    def fail(self, error: Exception) -> None:
        """Let the worker live: only what was to be logged is lost."""
        del error  # the loop has logged it

    def _flush_in_time(self, now: float) -> float:
        self.flush()
        return now + SESSION_LOG_DELAY_S


def _text(client: socket, address: Any) -> str:
    return "unix" if client.family == AF_UNIX else text_of(address[:2])


def text_of(end: tuple[str, int]) -> str:
    """Write one end of a connection."""
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

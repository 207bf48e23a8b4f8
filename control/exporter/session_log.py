"""The session log's writer: a thread of the exporter, with a socket and a file of its own.

    workers ──SessionBatch──▶ PULL ─▶ lines ─▶ write(2) ─▶ file

However slow the file is, only this thread waits. Then batches queue up, first here and then in the
workers, SESSION_LOG_HWM of them on each side; a worker that finds no room drops and counts. What
cannot be written (a full disk) is counted here and lost, so that the newest lines are there once
there is room again. It is opened with the first session, so a wrong path costs the log alone.
"""

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from aegis.bus import UNREADABLE
from aegis.config import Log
from aegis.config_bus import LOCAL, Bus
from aegis.errors import AegisError, BusError
from aegis.inbox import Inbox
from aegis.limits import HEARTBEAT_S
from aegis.session_records import SessionBatch
from control.exporter.session_lines import LINES, NO_INSTANT

_NONE, _STDOUT = -1, 1
_decode = msgspec.msgpack.Decoder(SessionBatch).decode

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """What has become of the sessions that have arrived."""

    written: int = 0
    unwritten: int = 0


class SessionLog:
    """Writes from `start` to `stop`; `counts` may be read in any thread."""

    def __init__(self, runtime_dir: Path, conf: Log, bus: Bus = LOCAL) -> None:
        """Bind; only for who holds the exporter's claim on the runtime directory.

        Raises:
            AegisError: the endpoint cannot be bound, or the keys cannot be used.
        """
        self.counts = Written()
        self._path = conf.sessions
        self._line = LINES[conf.sessions_format]
        self._file = _NONE
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._reopen = self._stopping = False
        self._failing = False
        self._context = zmq.Context()
        try:
            self.inbox = Inbox(self._context, zmq.PULL, runtime_dir, "sessions", bus)
        except AegisError:
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._run, name="session log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def reopen(self) -> None:
        """Have the file closed and opened again: somebody has renamed it."""
        self._reopen = True
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """Write what has arrived, unless that takes long, and end."""
        self._stopping = True
        os.eventfd_write(self._wakeup, 1)
        self._thread.join(HEARTBEAT_S)
        if not self._thread.is_alive():
            self.inbox.close()
            self._context.destroy(linger=0)
            os.close(self._wakeup)
            self._close()
        elif self.inbox.file is not None:
            self.inbox.file.unlink(missing_ok=True)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (*self.inbox.sources, self._wakeup):
            poller.register(source, zmq.POLLIN)
        while True:
            poller.poll(int(HEARTBEAT_S * 1000))
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
            if not self._stopping:
                with contextlib.suppress(BusError):
                    self.inbox.stay_reachable()
            while (lines := self._receive()) is not None:
                self._write(lines)
            self._reopen_if_asked()
            if self._stopping:
                return

    def _receive(self) -> list[str] | None:
        """Return the lines of the next batch that makes sense; None: there is none yet."""
        while (frames := self.inbox.frames()) is not None:
            try:
                batch = _decode(frames[-1])
                return [self._line(batch, record) for record in batch.records]
            except (*UNREADABLE, *NO_INSTANT) as error:
                self.inbox.ignore("malformed", error)
        return None

    def _write(self, lines: list[str]) -> None:
        """Write the lines of a batch, or count that they could not be written."""
        count = len(lines)
        rest = memoryview("".join(f"{line}\n" for line in lines).encode())
        self._reopen_if_asked()
        try:
            if self._file == _NONE:
                self._file = self._open()
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self.counts = self.counts._replace(unwritten=self.counts.unwritten + count)
            if not self._failing:
                self._failing = True
                log.error("session log: %s: %s; sessions are lost", self._path, error.strerror)
            return
        if self._failing and count:
            self._failing = False
            log.info("session log: %s is written again", self._path)
        self.counts = self.counts._replace(written=self.counts.written + count)

    def _open(self) -> int:
        if self._path == "-":
            return _STDOUT
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, 0o640)

    def _reopen_if_asked(self) -> None:
        """Go over to a new file; if that cannot be, go on with the old."""
        if not self._reopen:
            return
        self._reopen = False
        try:
            file = self._open()
        except OSError as error:
            log.error("session log: %s: %s; not reopened", self._path, error.strerror)
            return
        self._close()
        self._file = file
        log.info("session log: reopened %s", self._path)

    def _close(self) -> None:
        if self._file not in {_NONE, _STDOUT}:
            os.close(self._file)

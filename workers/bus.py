"""A worker's end of the bus: commands in; reports, telemetry and sessions out, never waiting.

The command socket's fd stands in the loop. It is edge-triggered, and readiness does not mean a
message (zmq_getsockopt(3), ZMQ_FD): each event drains the socket, and the heartbeat drains it again
as a backstop.
"""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec
import zmq

from aegis import bus
from aegis.figures import Figures
from aegis.limits import DEAF_AFTER_S
from aegis.messages import Boot, Desired, Report
from aegis.outbox import Outbox
from aegis.session_records import SessionBatch

_decode = msgspec.msgpack.Decoder(Desired).decode


class Bus:
    """A worker's sockets and the loop's reader for one of them."""

    def __init__(self, boot: Boot, figures: Figures, on_command: Callable[[Desired], None]) -> None:
        """Connect; without an exporter there is no telemetry.

        Raises:
            AegisError: over TCP, the keys cannot be used.
        """
        self._context = zmq.Context()
        self._runtime_dir = directory = Path(boot.runtime_dir)
        conf = boot.config
        self._commands = bus.connect(self._context, zmq.SUB, directory, "commands")
        self._reports = Outbox(self._context, directory, "reports", renew_after_s=DEAF_AFTER_S)
        self._telemetry = self._sessions = None
        if conf.metrics.bind:
            self._telemetry = Outbox(self._context, directory, "telemetry", conf.bus)
        if conf.log.sessions:
            self._sessions = Outbox(self._context, directory, "sessions", conf.bus)
        self._heard_at = monotonic()
        self._figures = figures
        self._on_command = on_command

    def fileno(self) -> int:
        """Return the fd that tells of commands."""
        return int(self._commands.getsockopt(zmq.FD))

    def on_readable(self, mask: int = 0) -> None:  # noqa: ARG002 - the mask says nothing, see above
        """Apply every command that has come."""
        while True:
            try:
                message = self._commands.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_at = monotonic()
            try:
                command = _decode(message)
            except bus.UNREADABLE:
                self._figures.bus_errors["malformed"] += 1
                continue
            self._on_command(command)

    def is_deaf(self) -> bool:
        """Whether no command has come for long: no controller, or ZeroMQ has given it up."""
        return monotonic() > self._heard_at + DEAF_AFTER_S

    def listen_anew(self) -> None:
        """Connect to whoever is the controller now; for who has taken the fd out of its loop."""
        self._commands.close()
        self._commands = bus.connect(self._context, zmq.SUB, self._runtime_dir, "commands")
        self._heard_at = monotonic()

    def report(self, report: Report) -> None:
        """Tell the controller, or count that it could not be told."""
        self._figures.bus_drops += not self._reports.send(report)

    def telemetry(self) -> None:
        """Tell the exporter all figures, or count that it could not be told."""
        if self._telemetry is None:
            return
        if self._telemetry.send(self._figures):
            self._figures.longest_turn_s = 0.0
        else:
            self._figures.bus_drops += 1

    def sessions(self, batch: SessionBatch) -> bool:
        """Tell the session log, if there is one; False when there is no room."""
        return self._sessions is None or self._sessions.send(batch)

    def fail(self, error: Exception) -> None:
        """Let the worker die: one that cannot apply commands must be replaced."""
        raise error

    def close(self) -> None:
        """Close the sockets; what was just sent has a second to leave, on a busy core too."""
        self._context.destroy(linger=1000)

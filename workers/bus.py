"""A worker's end of the bus: commands in; reports, telemetry and sessions out, never waiting.

The command socket's fd stands in the loop. It is edge-triggered, and readiness does not mean a
message (zmq_getsockopt(3), ZMQ_FD): each event drains the socket, and the heartbeat drains it again
as a backstop.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from aegis import bus
from aegis.figures import Figures
from aegis.messages import Boot, Desired, Report, SocketName
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
        self._runtime_dir, self._conf = Path(boot.runtime_dir), boot.config.bus
        self._commands = self._connect(zmq.SUB, "commands")
        self._reports = self._connect(zmq.PUSH, "reports")
        seen = bool(boot.config.metrics.bind)
        self._telemetry = self._connect(zmq.PUSH, "telemetry") if seen else None
        self._sessions = self._connect(zmq.PUSH, "sessions") if boot.config.log.sessions else None
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
            try:
                command = _decode(message)
            except bus.UNREADABLE:
                self._figures.bus_errors["malformed"] += 1
                continue
            self._on_command(command)

    def report(self, report: Report) -> None:
        """Tell the controller, or count that it could not be told."""
        self._figures.bus_drops += not bus.send(self._reports, report)

    def telemetry(self) -> None:
        """Tell the exporter all figures, or count that it could not be told."""
        if self._telemetry is None:
            return
        if bus.send(self._telemetry, self._figures):
            self._figures.longest_turn_s = 0.0
        else:
            self._figures.bus_drops += 1

    def sessions(self, batch: SessionBatch) -> bool:
        """Tell the session log, if there is one; False when there is no room."""
        return self._sessions is None or bus.send(self._sessions, batch)

    def _connect(self, kind: int, name: SocketName) -> Any:
        return bus.connect(self._context, kind, self._runtime_dir, name, self._conf)

    def fail(self, error: Exception) -> None:
        """Let the worker die: one that cannot apply commands must be replaced."""
        raise error

    def close(self) -> None:
        """Close the sockets; what was just sent has a second to leave, on a busy core too."""
        self._context.destroy(linger=1000)

"""A worker's end of the bus: commands in, reports and telemetry out, never waiting.

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
from aegis.messages import Desired, Report
from aegis.session_records import SessionBatch

_decode = msgspec.msgpack.Decoder(Desired).decode


class Bus:
    """Three sockets and the loop's reader for one of them."""

    def __init__(
        self, runtime_dir: Path, figures: Figures, on_command: Callable[[Desired], None]
    ) -> None:
        self._context = zmq.Context()
        self._commands = bus.connect(self._context, zmq.SUB, runtime_dir, "commands")
        self._reports = bus.connect(self._context, zmq.PUSH, runtime_dir, "reports")
        self._telemetry = bus.connect(self._context, zmq.PUSH, runtime_dir, "telemetry")
        self._sessions: Any = None
        self._runtime_dir = runtime_dir
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
                self._figures.bus_errors += 1
                continue
            self._on_command(command)

    def report(self, report: Report) -> None:
        """Tell the controller, or count that it could not be told."""
        self._figures.bus_drops += not bus.send(self._reports, report)

    def telemetry(self) -> None:
        """Tell the exporter all figures, or count that it could not be told."""
        if bus.send(self._telemetry, self._figures):
            self._figures.longest_turn_s = 0.0
        else:
            self._figures.bus_drops += 1

    def sessions(self, batch: SessionBatch) -> bool:
        """Tell the session log; False when there is no room."""
        if self._sessions is None:
            self._sessions = bus.connect(self._context, zmq.PUSH, self._runtime_dir, "sessions")
        return bus.send(self._sessions, batch)

    def fail(self, error: Exception) -> None:
        """Let the worker die: one that cannot apply commands must be replaced."""
        raise error

    def close(self) -> None:
        """Close the sockets; what was just sent has a second to leave, on a busy core too."""
        self._context.destroy(linger=1000)

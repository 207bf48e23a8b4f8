"""A socket of the bus through which messages go one way, and which heals by itself.

ZeroMQ reconnects to a peer that is gone, but gives one up for good that has broken its protocol
(session_base.cpp, engine_error): somebody else on the exporter's port, once, would end telemetry
for ever. So a socket that has taken nothing is made anew now and then; what was queued in it is
old news by then.
"""

from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import zmq

from aegis import bus
from aegis.config_bus import LOCAL, Bus
from aegis.limits import RENEW_AFTER_S
from aegis.messages import SocketName


class Outbox:
    """A PUSH socket."""

    def __init__(
        self,
        context: zmq.Context[Any],
        runtime_dir: Path,
        name: SocketName,
        conf: Bus = LOCAL,
        *,
        renew_after_s: float = RENEW_AFTER_S,
    ) -> None:
        """Connect.

        Raises:
            AegisError: over TCP, the keys cannot be used.
        """
        self._where = (context, zmq.PUSH, runtime_dir, name, conf)
        self._socket: Any = bus.connect(*self._where)
        self._renew_after_s = renew_after_s
        self._renew_at = monotonic() + renew_after_s

    def send(self, message: msgspec.Struct) -> bool:
        """Send without waiting; False when there is no room or no peer, or it is too long."""
        if bus.send(self._socket, message):
            return True
        now = monotonic()
        if now >= self._renew_at:
            self._renew_at = now + self._renew_after_s
            renewed = bus.connect(*self._where)
            self._socket.close()
            self._socket = renewed
        return False

    def close(self) -> None:
        """Close; what has not left is lost."""
        self._socket.close()

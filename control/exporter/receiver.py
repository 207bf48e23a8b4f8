"""The exporter's end of the bus: drains telemetry into the state, and can still be found.

A ZeroMQ socket belongs to one thread; here it is the main one.
"""

from pathlib import Path
from time import monotonic

import zmq

from aegis.config_bus import Bus
from aegis.errors import AegisError
from aegis.inbox import Inbox
from aegis.limits import SEND_HWM
from control.exporter.ledger import Ledger
from control.exporter.state import Snapshot, State


class Receiver:
    """The telemetry socket. Only for who holds the exporter's claim on the runtime directory."""

    def __init__(self, runtime_dir: Path, conf: Bus) -> None:
        """Bind.

        Raises:
            AegisError: the endpoint cannot be bound, or the keys cannot be used.
        """
        self._context = zmq.Context()
        self._state = State(monotonic())
        self._ledger = Ledger(runtime_dir)
        self._state.restore(*self._ledger.read())
        try:
            self.inbox = Inbox(self._context, zmq.PULL, runtime_dir, "telemetry", conf)
        except AegisError:
            self._context.destroy(linger=0)
            raise

    def receive(self) -> Snapshot:
        """Take in what has come, as much at once as a peer may queue; return what is known."""
        for _ in range(SEND_HWM):
            frames = self.inbox.frames()
            if frames is None:
                break
            why = self._state.receive(frames[-1], monotonic())
            if why is not None:
                self.inbox.ignore(why, f"a message of {len(frames[-1])} bytes")
        self._state.fold(monotonic())
        self.inbox.stay_reachable()
        return self._state.snapshot()

    def save(self, snapshot: Snapshot) -> None:
        """Write down what is known, in case this process is killed."""
        self._ledger.write(snapshot)

    def close(self) -> None:
        """Close the socket; with no worker left, forget what was written down."""
        snapshot = self._state.snapshot()
        if snapshot.processes:
            self._ledger.write(snapshot)
        else:
            self._ledger.remove()
        self.inbox.close()
        self._context.destroy(linger=0)

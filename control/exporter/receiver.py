"""The exporter's end of the bus: drains telemetry into the state, and can still be found.

A ZeroMQ socket belongs to one thread; here it is the main one.
"""

from pathlib import Path
from time import monotonic

import zmq

from aegis import bus
from aegis.errors import BusError
from aegis.limits import SEND_HWM
from aegis.runtime import Claim, living, read_claim
from control.exporter.ledger import Ledger
from control.exporter.state import Snapshot, State


class Receiver:
    """The telemetry socket. Only for who holds the exporter's claim on the runtime directory."""

    def __init__(self, runtime_dir: Path) -> None:
        """Bind.

        Raises:
            BusError: the endpoint cannot be bound.
        """
        self._runtime_dir = runtime_dir
        self._file = runtime_dir / "telemetry.ipc"
        self._context = zmq.Context()
        self._state = State(monotonic(), self._alive, self._core)
        self._ledger = Ledger(runtime_dir)
        self._state.restore(*self._ledger.read())
        try:
            self.socket = bus.bind(self._context, zmq.PULL, runtime_dir, "telemetry")
        except BusError:
            self._context.destroy(linger=0)
            raise

    def receive(self) -> Snapshot:
        """Take in what has come, as much at once as a peer may queue; return what is known."""
        for _ in range(SEND_HWM):
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._state.receive(data, monotonic())
        self._state.fold(monotonic())
        self._stay_reachable()
        return self._state.snapshot()

    def save(self, snapshot: Snapshot) -> None:
        """Write down what is known, in case this process is killed."""
        self._ledger.write(snapshot)

    def close(self) -> None:
        """Close the socket and remove its file, which ZeroMQ leaves; with no worker ours too."""
        if any(claim.role == "worker" for claim in living(self._runtime_dir)):
            self._ledger.write(self._state.snapshot())
        else:
            self._ledger.remove()
        self._context.destroy(linger=0)
        self._file.unlink(missing_ok=True)

    def _stay_reachable(self) -> None:
        """Bind anew when the file is gone: a controller tidies up when it starts and ends.

        Who is connected stays so; who connects later needs the file.
        """
        if self._file.exists():
            return
        try:
            self.socket.bind(bus.endpoint(self._runtime_dir, "telemetry"))
        except zmq.ZMQError as error:
            raise BusError(f"{self._file}: {error.strerror}") from None

    def _alive(self, slot: int, pid: int) -> bool:
        return self._claim(slot, pid) is not None

    def _core(self, slot: int, pid: int) -> int:
        claim = self._claim(slot, pid)
        return claim.cpu if claim is not None else -1

    def _claim(self, slot: int, pid: int) -> Claim | None:
        return read_claim(self._runtime_dir / Claim("worker", pid, slot).file_name)

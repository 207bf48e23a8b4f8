"""A socket of the bus that others connect to: what comes, what is ignored, who is turned away.

    peer ──handshake──▶ Gate, over TCP ──known──▶ message ──decoded──▶ its reader
               └─ refused                             └─ malformed, old, foreign: counted, ignored

Everything that is ignored is counted by why, and logged once a while, so that nobody who speaks
nonsense fills a log. ZeroMQ itself cuts who sends more than MESSAGE_BYTES at once.
"""

import logging
import struct
from pathlib import Path
from time import monotonic
from typing import Any, Literal, get_args

import zmq

from aegis import bus, curve
from aegis.config_bus import LOCAL, Bus
from aegis.errors import AegisError, BusError
from aegis.limits import COMPLAIN_EVERY_S
from aegis.messages import SocketName

Why = Literal["malformed", "old", "foreign", "refused"]
WHYS: tuple[Why, ...] = get_args(Why)
"""No message of the bus; of before what is known; of nobody we know; stopped at the door."""

_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_EVENT = struct.Struct("=Hi")  # which, and its value: a fd (zmq_socket_monitor(3))

log = logging.getLogger(__name__)


class Inbox:
    """One bound socket. Whoever has it polls `sources` and calls `frames` until there are none."""

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        runtime_dir: Path,
        name: SocketName,
        conf: Bus = LOCAL,
    ) -> None:
        """Bind.

        Raises:
            AegisError: the endpoint cannot be bound, or the keys cannot be used.
        """
        self.name = name
        self.ignored: dict[Why, int] = dict.fromkeys(WHYS, 0)
        self._endpoint = bus.endpoint(runtime_dir, name, conf)
        remote = self._endpoint.startswith("tcp://")
        self.file = None if remote else Path(self._endpoint.removeprefix("ipc://"))
        """The socket's file, which ZeroMQ leaves behind; over TCP there is none."""
        self._gate = curve.Gate(context, Path(conf.keys)) if remote else None
        try:
            self.socket = bus.bind(context, kind, runtime_dir, name, conf)
        except AegisError:
            if self._gate is not None:
                self._gate.socket.close()
            raise
        self._events = bus.watch(context, self.socket, _EVENTS)
        self._greeted = 0  # handshakes that have succeeded
        self._accepted: dict[int, int] = {}  # fd → how many had when it was accepted
        self._complain_at: dict[Why, float] = {}

    @property
    def sources(self) -> list[Any]:
        """What to poll for input."""
        gate = [self._gate.socket] if self._gate is not None else []
        return [self.socket, self._events, *gate]

    def frames(self) -> list[bytes] | None:
        """Return the frames of the next message, None when there is none; never waits."""
        if self.socket.closed:  # by what was done for the message before
            return None
        self._attend()
        try:
            frames: list[bytes] = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames

    def ignore(self, why: Why, what: object) -> None:
        """Count what came to nothing, and say so if that was not just said."""
        self.ignored[why] += 1
        now = monotonic()
        if now >= self._complain_at.get(why, 0.0):
            self._complain_at[why] = now + COMPLAIN_EVERY_S
            log.warning("%s: ignored, %s: %s", self.name, why, what)

    def close(self, linger_s: float = 0.0) -> None:
        """Close it and remove its file, which ZeroMQ leaves; before its context ends."""
        bus.unwatch(self.socket, self._events)
        self.socket.close(linger=int(linger_s * 1000))
        if self._gate is not None:
            self._gate.socket.close(linger=0)
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def stay_reachable(self) -> None:
        """Bind anew when the socket's file is gone: a controller tidies up as it starts and ends.

        Who is connected stays so; who connects later needs the file.

        Raises:
            BusError: that is not possible.
        """
        if self.file is None or self.file.exists():
            return
        try:
            self.socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            raise BusError(f"{self.file}: {error.strerror}") from None

    def _attend(self) -> None:
        """Let in who is known, and count who left before it was."""
        if self._gate is not None:
            self._gate.answer()
        while self._events.poll(0):
            kind, fd = _EVENT.unpack(self._events.recv_multipart()[0])
            if kind == zmq.EVENT_ACCEPTED:
                self._accepted[fd] = self._greeted
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:  # which does not say whose
                self._greeted += 1
            elif self._accepted.pop(fd, -1) == self._greeted:
                self.ignore("refused", "a peer that does not speak ZeroMQ, or has no known key")

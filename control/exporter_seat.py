"""The exporter's seat: one process on a listening socket that outlives it.

It is the last to end, so that what the workers counted at the end is seen, and it follows
`metrics.bind` when a reload changes that.
"""

import signal
import socket
from pathlib import Path
from time import monotonic

import msgspec

from aegis.addresses import parse_address
from aegis.config import Config, Log
from aegis.config_bus import Bus
from aegis.limits import KILL_AFTER_S
from control.process import Process, spawn_exporter
from control.seat import Seat
from control.sockets import open_listener, probe


class ExporterSeat:
    """Keeps an exporter running, where there is to be one; `seat` tells its state."""

    def __init__(self, runtime_dir: Path) -> None:
        """Have no socket yet: `use` comes first."""
        self.seat = Seat("exporter", -1, self._spawn)
        self._runtime_dir = runtime_dir
        self._socket: socket.socket | None = None
        self._bind = ""
        self._config: Config | None = None

    def open(self, config: Config) -> socket.socket | None:
        """Open the socket that a configuration wants; None when we have it or none is wanted.

        Raises:
            AegisError: the address cannot be bound.
        """
        if not config.metrics.bind:
            return None
        address = parse_address(config.metrics.bind)
        if address.text == self._bind:
            return None
        if not self._bind or not parse_address(self._bind).overlaps(address):
            probe(address, "metrics")
        return open_listener(address, "metrics")

    def use(self, config: Config, sock: socket.socket | None) -> None:
        """Serve on what `open` has returned; the exporter that there is makes room if it must."""
        before, self._config = self._config, config
        bind = parse_address(config.metrics.bind).text if config.metrics.bind else ""
        if bind == self._bind and before is not None and _told(before) == _told(config):
            return
        if bind != self._bind:
            self.close()
            self._socket, self._bind = sock, bind
        if self.seat.current is not None:
            self.seat.current.signal(signal.SIGTERM)
            self.seat.current.kill_at = monotonic() + KILL_AFTER_S
            self.seat.expect_end()

    def reopen_logs(self) -> None:
        """Have it open the session log's file again."""
        if self.seat.current is not None:
            self.seat.current.signal(signal.SIGUSR1)

    def tick(self, now: float, *, may_go: bool) -> None:
        """Reap and replace it, unless nobody needs it any more."""
        wanted = self._socket is not None and not may_go
        self.seat.reap(now, expected=not wanted)
        self.seat.tick(now, start=wanted)

    def has_ended(self) -> bool:
        """Ask it to end; True once it has."""
        process = self.seat.current
        if process is not None and process.kill_at is None:
            process.signal(signal.SIGTERM)
            process.kill_at = monotonic() + KILL_AFTER_S
        return process is None

    def hand_over(self) -> tuple[str, int]:
        """Let the socket, if any, live through execve(2); returns what `receive` takes."""
        if self._socket is None:
            return "", -1
        self._socket.set_inheritable(True)
        return self._bind, self._socket.fileno()

    def receive(self, bind: str, fd: int) -> None:
        """Take the socket of the program that we were before execve(2)."""
        if bind:
            self._bind, self._socket = bind, socket.socket(fileno=fd)
            self._socket.set_inheritable(False)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _spawn(self, seat: Seat) -> Process:
        del seat
        assert self._socket is not None
        assert self._config is not None
        process = spawn_exporter(self._config, self._runtime_dir, self._socket.fileno())
        process.serving_since = process.started  # its socket listens, so it is reachable
        return process


def _told(config: Config) -> tuple[Log, Bus]:
    """Return what an exporter goes by, apart from its address."""
    return config.log, msgspec.structs.replace(config.bus, requests="")

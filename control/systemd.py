"""What systemd and we tell each other: readiness, the watchdog, sockets it has opened for us.

Source: sd_notify(3), sd_listen_fds(3), systemd.service(5). Nothing here happens without systemd's
variables in the environment.
"""

import contextlib
import logging
import os
import socket
import stat
from time import monotonic

from aegis.limits import HEARTBEAT_S
from control.sockets import SlotSockets, bound_to

_FIRST_FD = 3

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager what we are at; each state once."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._said = ""
        watchdog_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            watchdog_s = 0.0
        self._every_s = min(HEARTBEAT_S, watchdog_s / 3)
        self._next = 0.0

    def ready(self) -> None:
        """Serving, and nothing is being replaced."""
        self._say("READY=1\nSTATUS=serving")

    def reloading(self) -> None:
        """Replacing workers; `ready` comes when that is done."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}", "RELOADING")

    def stopping(self) -> None:
        """Draining for good."""
        self._say("STOPPING=1\nSTATUS=finishing sessions")

    def alive(self, now: float) -> None:
        """Feed the watchdog when it is time; to be called in every turn."""
        if self._every_s and now >= self._next:
            self._next = now + self._every_s
            self._send("WATCHDOG=1")

    def _say(self, text: str, what: str = "") -> None:
        if (what or text) != self._said and self._send(text):
            self._said = what or text

    def _send(self, text: str) -> bool:
        """Send without waiting; False when the manager's queue is full at the moment."""
        if not self._address:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto(text.encode(), self._address)
            except BlockingIOError:
                return False
            except OSError as error:
                log.warning("NOTIFY_SOCKET: %s", error)
        return True


def inherited_sockets() -> SlotSockets:
    """Return the listening sockets that systemd has passed, by Address.text."""
    count = int(os.environ.get("LISTEN_FDS") or 0)
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        count = 0
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # they are not meant for the processes we start
    sockets: SlotSockets = {}
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                sock = socket.socket(fileno=fd)
                sock.setblocking(False)  # as in `open_listener`
                text = bound_to(sock) if sock.type == socket.SOCK_STREAM else ""
                if text:
                    sockets[text] = sock
                    continue
                sock.detach()
        log.warning("LISTEN_FDS: fd %d is no listening socket", fd)
    return sockets

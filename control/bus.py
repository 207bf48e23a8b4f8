"""The controller's end of the bus: commands out; reports and requests in, each request answered.

    workers ◀── commands, PUB      reports, PULL ◀── workers        telemetry, PUSH ──▶ exporter
    aegis-ctl ◀──▶ requests, ROUTER: in the runtime directory, and over TCP where `[bus]` says so

A socket belongs to one thread, and a context does not live through execve(2): an upgrade closes all
of it once replies have left. What is on TCP has a context of its own, because only the end of a
context tells that a port is free again (zmq_ctx_term(3)), and each has one Gate.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import zmq

from aegis import bus
from aegis.config_bus import LOCAL, Bus
from aegis.errors import AegisError
from aegis.inbox import WHYS, Inbox, Why
from aegis.limits import MESSAGE_BYTES
from aegis.messages import Desired, Refused, Reply, Report, Request, Supervision, Upgrade
from aegis.outbox import Outbox

_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_instant = msgspec.msgpack.Decoder(float).decode


class ControllerBus:
    """Nothing in it waits for anyone but `wait` and `await_report`, after which the rest reads."""

    def __init__(self, runtime_dir: Path) -> None:
        """Be closed: `open` comes first."""
        self._runtime_dir = runtime_dir
        self._context: zmq.Context[Any] = zmq.Context()
        self._remote_context: zmq.Context[Any] = zmq.Context()
        self._local: list[Inbox] = []
        self._remote: Inbox | None = None
        self._turned_away: dict[Why, int] = dict.fromkeys(WHYS, 0)  # by any remote one there was
        self._conf = LOCAL
        self._poller = zmq.Poller()
        self._due: set[Inbox] = set()  # who had input when it was looked at last

    def open(self, conf: Bus) -> None:
        """Bind and connect all of it.

        Raises:
            AegisError: an endpoint cannot be bound, or the keys cannot be used.
        """
        directory = self._runtime_dir
        self._commands = bus.bind(self._context, zmq.PUB, directory, "commands")
        self._reports = Inbox(self._context, zmq.PULL, directory, "reports")
        self._local = [self._reports]
        self._requests = Inbox(self._context, zmq.ROUTER, directory, "requests")
        self._local.append(self._requests)
        self._conf = conf
        self._telemetry = Outbox(self._context, directory, "telemetry", conf)
        self._open_remote(conf)

    def use(self, conf: Bus) -> None:
        """Go over to another configuration, whole or not at all.

        Raises:
            AegisError: its endpoint cannot be bound, or its keys cannot be used.
        """
        if conf == self._conf:
            return
        telemetry = Outbox(self._context, self._runtime_dir, "telemetry", conf)
        try:
            self._open_remote(conf)
        except AegisError:
            telemetry.close()
            self._open_remote(self._conf)
            raise
        self._telemetry.close()
        self._telemetry, self._conf = telemetry, conf

    def close(self, linger_s: float = 0.0) -> None:
        """Close all of it; what is queued has so long to leave. `open` may come again."""
        for inbox in self._inboxes:
            inbox.close(linger_s)
        self._local = []
        self._remote_context.destroy(linger=int(linger_s * 1000))
        self._context.destroy(linger=int(linger_s * 1000))
        self._context, self._remote_context, self._remote = zmq.Context(), zmq.Context(), None

    def wait(self, fds: Collection[int], timeout_s: float) -> set[int]:
        """Wait for input, here or on other fds, but not longer; returns which of them have some."""
        for fd in fds:
            self._poller.register(fd, zmq.POLLIN)
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        self._due = {each for each in self._inboxes if not ready.keys().isdisjoint(each.sources)}
        return {fd for fd in fds if fd in ready}

    @property
    def ignored(self) -> dict[str, dict[str, int]]:
        """Socket → why → what came to nothing there."""
        counts: dict[str, dict[str, int]] = {}
        for inbox in self._inboxes:
            of_name = counts.setdefault(inbox.name, {})
            for why, count in inbox.ignored.items():
                of_name[why] = of_name.get(why, 0) + count
        return counts

    def command(self, desired: Desired) -> None:
        """Publish what is wanted."""
        bus.send(self._commands, desired)

    def tell(self, supervision: Supervision) -> None:
        """Tell the exporter how things are."""
        self._telemetry.send(supervision)

    def await_report(self, timeout_s: float) -> None:
        """Wait until a worker has reported something, or for so long."""
        self._due = {self._reports} if self._reports.socket.poll(timeout_s * 1000) else set()

    def reports(self) -> Iterator[Report]:
        """Yield the reports that have come."""
        while self._reports in self._due and (frames := self._reports.frames()) is not None:
            try:
                yield _decode_report(frames[-1])
            except bus.UNREADABLE as error:
                self._reports.ignore("malformed", error)

    def ignore_report(self, why: Any, report: Report) -> None:
        """Count a report that was of no use."""
        self._reports.ignore(why, f"a report of pid {report.figures.pid}")

    def answer(self, respond: Callable[[Request], Reply]) -> None:
        """Answer the requests that have come."""
        for inbox in self._due - {self._reports}:
            while (frames := inbox.frames()) is not None:
                reply = bus.encode(self._reply(inbox, frames, respond))
                if len(reply) > MESSAGE_BYTES:
                    reply = bus.encode(Refused(f"the answer is too long: {len(reply)} bytes"))
                if inbox.socket.closed:  # by a reload that came in through it
                    break
                inbox.socket.send_multipart([*frames[:-1], reply])

    def _reply(
        self, inbox: Inbox, frames: list[bytes], respond: Callable[[Request], Reply]
    ) -> Reply:
        # [identity, empty, instant until which anybody waits (from this machine only), request]
        try:
            if len(frames) > 3 and _decode_instant(frames[-2]) < monotonic():
                inbox.ignore("old", "nobody waits for the answer any more")
                return Refused("too late")
            request = _decode_request(frames[-1])
            if inbox is self._remote and isinstance(request, Upgrade):
                return Refused("upgrade: what to run is for the machine itself to say")
            return respond(request)
        except bus.UNREADABLE as error:
            inbox.ignore("malformed", error)
            return Refused(f"request not understood: {error}")

    @property
    def _inboxes(self) -> list[Inbox]:
        return [*self._local, *([self._remote] if self._remote is not None else [])]

    def _open_remote(self, conf: Bus) -> None:
        """Be reachable where a configuration says, and nowhere else."""
        before, self._remote = self._remote, None
        if before is not None:
            before.close()
        self._remote_context.destroy(linger=0)
        self._remote_context = zmq.Context()
        if conf.requests:
            directory = self._runtime_dir
            self._remote = Inbox(self._remote_context, zmq.ROUTER, directory, "requests", conf)
            self._remote.ignored = self._turned_away
        self._poller = zmq.Poller()
        for source in (source for inbox in self._inboxes for source in inbox.sources):
            self._poller.register(source, zmq.POLLIN)

"""A worker process: one core, one loop, the phases of its life.

    python -m workers.worker < Boot      standard input holds what it is told (aegis/messages.py)

    starting ─▶ serving ─▶ draining ─▶ drained ─▶ (goal stopped, or retired) exit 0
                   ▲           │           │
                   └───────────┴───────────┘ goal serving

The worker applies whatever desired state came last; it needs nobody to go on serving, so it
outlives its controller. SIGTERM is for when there is none: it drains for `drain_timeout_s`, a
second one cuts.
"""

import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from time import monotonic

import msgspec

from aegis.config import unix_paths, worker_digest
from aegis.errors import AegisError
from aegis.figures import Figures
from aegis.lifecycle import Phase
from aegis.limits import HEARTBEAT_S, REFUSE_SETTLE_S, STEER_SETTLE_S, TICK_S
from aegis.logs import configure_logging
from aegis.messages import Boot, Desired, Report
from aegis.runtime import Claim, drop_claim, take_claim
from aegis.session_messages import Found
from workers import census
from workers.assembly import Assembly, make_loop
from workers.bus import Bus
from workers.drain import Cuts, Parts
from workers.loop import READ
from workers.roster import Roster
from workers.session_log import SessionLog
from workers.timers import Alarm

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger("workers.worker")  # it runs as __main__


class Worker:
    """Everything one worker has, and the only place that changes its phase."""

    def __init__(self, boot: Boot) -> None:
        conf = boot.config
        self._boot = boot
        self._digest = worker_digest(conf)
        self.figures = Figures(
            boot.slot, os.getpid(), "starting", [], [], conf.slabs, boot.cpu, started=monotonic()
        )
        self.loop = make_loop(boot, self.figures)
        self._bus = Bus(boot, self.figures, self._apply)
        self._session_log = (
            SessionLog(conf.log, self.loop, self.figures, self._bus.sessions)
            if conf.log.sessions
            else None
        )
        parts = self._assembly = Assembly(boot, self.loop, self.figures, self._session_log)
        self._backends, self._pools = parts.backends, parts.pools
        self._listeners, self._quotas = parts.listeners, parts.quotas
        self._controller = self._epoch = 0
        self._since = 0.0  # when that controller began
        self._looked = (0, 0)  # the last question about sessions: whose, and its number
        self._deadline = 0.0  # while draining: when what is left is cut
        self._drains_since = 0.0
        self._settle_at: float | None = None  # while draining: when the listeners begin to close
        self._refuse_at: float | None = None  # and when they have
        self._closing: set[str] = set()  # of a retired worker: listeners nobody else accepts from
        self._cuts = Cuts(self.figures)
        self._parts = Parts(self._listeners, self._cuts)
        self._roster = Roster(
            self._backends, self._listeners, self._pools, self.figures, self._cuts
        )
        self._roster.apply(boot.servers, boot.shares)
        self._share(boot.shares)
        self._reported: list[object] = []  # what a report must tell at once, as told last
        self._exit_when_drained = False
        self._retired = False  # for good: a successor has the slot, or SIGTERM came
        # Kept open: there may be no fd to spare when it is read.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._wakeup, self._signals = socket.socketpair()

    def run(self) -> None:
        """Serve until told to stop."""
        self._watch_signals()
        self.loop.add(self._bus.fileno(), READ, self._bus)
        self._parts.start_drained(self._boot.drained_listeners)
        if self._boot.goal == "serving":
            self._serve()
        else:
            for listener in self._listeners:
                listener.refuse()  # a worker that was killed may have left them open
            self._set_phase("drained")
        Alarm(self.loop.wheel, self.loop.now, self._heartbeat)
        Alarm(self.loop.wheel, self.loop.now, self._tick)
        gc.collect()
        gc.freeze()  # what lives now lives for ever: later collections need not look at it
        self.loop.run()
        self._set_phase("stopped")
        if self._session_log is not None:
            self._session_log.flush()
        self._bus.telemetry()
        self._bus.close()

    # --- commands and signals ------------------------------------------------------------------

    def _apply(self, desired: Desired) -> None:
        """Move towards what is wanted; the same state again changes nothing, an older one neither.

        What a dead controller had said may still be read after the first words of its successor:
        each comes over a connection of its own.
        """
        if (desired.controller, desired.epoch) == (self._controller, self._epoch):
            return
        if desired.since > monotonic():  # one clock for all: it is of no controller of this machine
            self.figures.bus_errors["foreign"] += 1
            return
        if desired.since > 0 and (desired.since, desired.epoch) < (self._since, self._epoch):
            self.figures.bus_errors["old"] += 1
            return
        self._controller, self._epoch, self._since = (
            desired.controller,
            desired.epoch,
            desired.since,
        )
        shares = desired.shares.get(os.getpid())
        self._roster.apply(desired.servers, shares)
        self._share(shares or {})
        self._assembly.certificates.apply(desired.tls)
        deadline = desired.retired.get(os.getpid())
        for backend in self._backends:
            if deadline is not None:
                backend.pool_min = 0  # a successor keeps them
            elif desired.workers:
                backend.divide_minimum(self._boot.slot, desired.workers)
        if deadline is not None:
            if desired.goal != "serving":
                deadline = min(deadline, desired.deadline)
            self._retire(deadline, desired.closing.get(os.getpid(), []))
        elif desired.goal == "serving":
            self._exit_when_drained = self._retired
            if not self._retired:
                self._serve_again(desired)
        else:
            stop = self._retired or desired.goal == "stopped"
            self._drain(desired.deadline, stop=stop, doors_close_at=desired.doors_close_at)
        if desired.kills:
            census.kill(self._listeners, desired.kills.get(os.getpid(), []))
        found = None
        if desired.look is not None and (desired.controller, desired.look.number) != self._looked:
            self._looked = desired.controller, desired.look.number
            found = census.find(self._listeners, desired.look, self._boot.slot)
        self._report(found)

    def _share(self, shares: dict[str, int]) -> None:
        for quota in self._quotas:
            quota.set_limit(shares.get(quota.figures.name, quota.limit))

    def _serve_again(self, desired: Desired) -> None:
        """Serve, all but the parts that are to be drained."""
        if self.figures.phase in {"draining", "drained"}:
            for name in desired.drained_listeners:  # drained with the rest, and it stays so
                self._parts.listeners.setdefault(name, 0.0)
            self._serve()
        self._parts.apply(desired.drained_listeners, self.loop.now)

    def on_readable(self, mask: int) -> None:  # noqa: ARG002 - the byte read says it all
        """SIGTERM or SIGINT came: finish for good, on the second one at once."""
        self._signals.recv(64)
        again = self._retired
        self._retire(self.loop.now + (0.0 if again else self._boot.config.drain_timeout_s), [])

    def fail(self, error: Exception) -> None:
        """Let the worker die: one that cannot stop must be replaced."""
        raise error

    def _watch_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the wake-up byte is what counts
        self.loop.add(self._signals.fileno(), READ, self)

    # --- phases --------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._settle_at = self._refuse_at = None
        for pool in self._pools:
            pool.closed = False
        for listener in self._listeners:
            if listener.config.name not in self._parts.listeners:
                listener.serve()
        self._set_phase("serving")

    def _retire(self, deadline: float, closing: list[str]) -> None:
        """Leave the sockets to a successor, finish what is here, exit."""
        if not self._retired:
            self._retired = True
            self._settle_at = self._refuse_at = None
            self._closing = set(closing)
            for listener in self._listeners:
                if listener.config.name in self._closing:
                    listener.settle()
                    self._refuse_at = min(self.loop.now + STEER_SETTLE_S, deadline)
                else:
                    listener.leave()
        self._drain(deadline, stop=True)

    def _drain(self, deadline: float, *, stop: bool, doors_close_at: float = 0.0) -> None:
        """Accept no more, let sessions finish until the deadline; a later call may move it."""
        self._deadline = deadline
        self._exit_when_drained = stop
        now = self.loop.now
        if self.figures.phase == "serving":
            self._set_phase("draining")
            self._drains_since = max(now, doors_close_at)
            if not self._retired:
                self._settle_at = doors_close_at
                self._close_doors(now)
            else:
                for pool in self._pools:
                    pool.drain()
            Alarm(self.loop.wheel, now, self._drain_step)
        elif self.figures.phase == "draining" and self._settle_at is not None:
            self._settle_at = min(self._settle_at, doors_close_at)
        elif self.figures.phase == "drained" and stop:
            self.loop.stop()

    def _close_doors(self, now: float) -> None:
        """Go on with closing the listeners, one step when its time has come."""
        if self._settle_at is not None and now >= min(self._settle_at, self._deadline):
            self._settle_at = None
            self._refuse_at = min(now + REFUSE_SETTLE_S, max(now, self._deadline))
            for listener in self._listeners:
                listener.settle()
            for pool in self._pools:
                pool.drain()
        elif self._refuse_at is not None and now >= min(self._refuse_at, self._deadline):
            self._refuse_at = None
            for listener in self._listeners:
                if not self._retired:
                    listener.refuse()
                elif listener.config.name in self._closing:
                    listener.turn_away()

    def _drain_step(self, now: float) -> float:
        """Every tick: close the listeners when it is time, see whether all sessions have ended."""
        if self.figures.phase != "draining":
            return 0.0  # resumed
        self._close_doors(now)
        closing = self._settle_at is not None or self._refuse_at is not None
        if self._settle_at is None:
            since = self._drains_since
            half = (self._deadline - since) / 2
            for listener in self._listeners:
                until = since + min(self._boot.config.close_spread_s, half)
                listener.drain(now, since, until)
        ending = any(backend.ending for backend in self._backends)
        if closing or (now < self._deadline and (self.figures.sessions or ending)):
            return now + TICK_S
        for pool in self._pools:
            pool.closed = True  # who is cut gives its pipe to nobody
        for listener in self._listeners:
            self._cuts.end(listener, listener.sessions)
        for pool in self._pools:
            pool.close()
        for backend in self._backends:
            backend.let_go()
        self._set_phase("drained")
        if self._exit_when_drained:
            self.loop.stop()
        return 0.0

    def _set_phase(self, phase: Phase) -> None:
        if phase != self.figures.phase:
            fields = {"event": "phase", "slot": self._boot.slot, "phase": phase}
            log.info("worker %d: %s -> %s", fields["slot"], self.figures.phase, phase, extra=fields)
            self.figures.phase = phase
            self._report()

    # --- telling others ------------------------------------------------------------------------

    def _heartbeat(self, now: float) -> float:
        """Once a second: the backstop for commands, then a report and telemetry."""
        self._bus.on_readable()
        if self._bus.is_deaf():
            self.loop.remove(self._bus.fileno())
            self._bus.listen_anew()
            self.loop.add(self._bus.fileno(), READ, self._bus)
        self._report()
        self._bus.telemetry()
        return now + HEARTBEAT_S

    def _tick(self, now: float) -> float:
        """Every tick: what is drained and let go; tell what the controller is to act upon."""
        if self.figures.phase == "serving":
            self._parts.step(now, self._boot.config.close_spread_s)
        self._roster.step(now)
        news = [*self._roster.news(now), *(quota.news for quota in self._quotas)]
        if news != self._reported:
            self._reported = news
            self._report()  # it moves connections by this, others wait for them; or ejects a server
        return now + TICK_S

    def _sample(self) -> None:
        """Bring those figures up to date that are states and not counts."""
        spent = os.times()
        self.figures.cpu_seconds = [spent.user, spent.system]
        resident = os.pread(self._statm, 64, 0).split()[1]  # proc(5)
        self.figures.memory_bytes = int(resident) * _PAGE_BYTES
        self._roster.sample(self.loop.now)

    def _report(self, found: Found | None = None) -> None:
        self._sample()
        fds = {} if self._retired else self._boot.listeners
        self._bus.report(
            Report(
                controller=self._controller,
                epoch=self._epoch,
                config=self._digest,
                fds=fds,
                figures=self.figures,
                generation=self._boot.generation,
                leaves_by=self._deadline if self._retired else 0.0,
                cuts=list(self._cuts.last),
                found=found,
            )
        )


def main() -> int:
    """Run a worker; returns the exit code."""
    # Whoever rotates logs may signal all processes of the service; only the exporter has a file.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    boot = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Boot)
    configure_logging(boot.config.log.format)
    os.sched_setaffinity(0, {boot.cpu})
    runtime_dir = Path(boot.runtime_dir)
    claim = Claim(
        "worker",
        os.getpid(),
        boot.slot,
        boot.cpu,
        drain_timeout_s=boot.config.drain_timeout_s,
        unix_paths=unix_paths(boot.config),
    )
    take_claim(runtime_dir, claim)
    try:
        # Whoever cleaned up after a dead controller may have missed our claim.
        if boot.controller not in {0, os.getppid()}:
            log.error("worker %d: the controller died while this worker started", boot.slot)
            return 1
        Worker(boot).run()
    except (AegisError, OSError) as error:
        log.error("worker %d: %s", boot.slot, error)
        return 1
    finally:
        drop_claim(runtime_dir, claim)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The pipes of one backend and protocol in one worker: who gets which, and when one is opened.

The pool decides; its pipes and sessions do the I/O.

    pick ──a ready pipe with few replies owed──▶ shared by whoever comes
    lease ──a ready pipe that owes nothing──▶ one client's alone, until `give_back`
      └─ none: the client waits its turn, `grow` opens a pipe if the backend's budget has room

The lists of pipes are in workers/shelves.py. The budget, `max_connections` of the backend, is
counted in Backend.open, over all pools and plain sessions of the worker that use it.

Pins may not take every pipe: one is left for those who share, if the budget has two. A pin beyond
that is `parked`, out of the way of those who wait behind it, until another pin ends.
"""

import logging
import random
from collections import deque
from itertools import islice
from socket import socket
from typing import TYPE_CHECKING, Literal

from aegis.figures import REPLY_BOUNDS_S, WAIT_BOUNDS_S, Histogram, PoolFigures, empty
from aegis.framers.contract import Framer, Setup, never
from aegis.limits import GATHER_MAX, LOOK_AHEAD, MAX_OPENING, TICK_S
from workers.backend import Backend
from workers.loop import Loop
from workers.opening import Opening
from workers.overdue import end_overdue
from workers.pipe import Pipe
from workers.server import READY
from workers.shelves import Shelves
from workers.spread import next_alone, next_shared
from workers.target import LOSSES_THAT_COUNT, Server
from workers.timers import Alarm

if TYPE_CHECKING:
    from workers.pool_client import PoolClient

log = logging.getLogger(__name__)


class Pool(Opening):
    """All pipes of one backend that speak one protocol."""

    def __init__(self, backend: Backend, framer: Framer, loop: Loop) -> None:
        super().__init__(backend, loop)
        self.framer = framer
        self.figures = PoolFigures(backend.config.name, framer.name)
        self.waiting: deque[PoolClient] = deque()
        self.parked: deque[PoolClient] = deque()
        self.shelves = Shelves()
        self.pipes = self.shelves.pipes
        self.quick = framer.quick_request
        self.deals_quickly = framer.quick_reply is not never
        self.gathering: Pipe | None = None
        """Where this turn's next request goes, if it has the same setup."""
        self.gather_most = min(GATHER_MAX, framer.in_flight)
        """Replies a pipe may owe before the next request of a turn goes to another."""
        self._setup = framer.requests().setup
        Alarm(loop.wheel, loop.now, self._tend)

    # --- what sessions ask for -----------------------------------------------------------------

    def pick(self, setup: Setup) -> Pipe | None:
        """Return the ready pipe that owes least, None if the client must `wait` its turn.

        Requests of one turn go to one pipe, up to a number, so that they leave in one send and
        their replies come in one read.
        """
        if self.waiting:
            return None  # first come, first served
        pipe = self.gathering
        if pipe is None or pipe.setup != setup:  # else it is one that equals the client's own
            pipe = self.gathering = next_shared(self, setup)
        return pipe

    def not_on(self, pipe: Pipe) -> None:
        """Gather no more requests on that pipe."""
        if self.gathering is pipe:
            self.gathering = None

    def lease(self, setup: Setup, client: "PoolClient") -> Pipe | None:
        """Return a pipe that is the client's alone from now on, None if it must `wait`."""
        if self.waiting or self._too_many_pins(client):
            return None
        pipe = next_alone(self, setup)
        if pipe is not None:
            self._hand_over(pipe, client)
        return pipe

    def wait(self, client: "PoolClient") -> bool:
        """Queue a client until `granted` is called; False when the queue is full."""
        scarce = not (self.may_dial and self.backend.has_room())
        if scarce and len(self.waiting) + len(self.parked) >= self.backend.config.queue_max:
            return False
        if client.note is not None:
            client.note.queued(len(self.waiting) + len(self.parked), self.loop.now)
        self.waiting.append(client)
        self.gathering = None
        self.figures.misses += 1
        self.call()  # not now: whoever asks is in the middle of its input
        return True

    def flush(self) -> None:
        """Serve those who began to wait in this turn."""
        self.deferred = False
        self._serve_all()

    def stop_waiting(self, client: "PoolClient") -> None:
        """Take a client that leaves out of the queue."""
        for queue in (self.waiting, self.parked):
            if client in queue:
                queue.remove(client)

    def queue(self) -> tuple[int, float]:
        """Return how many clients wait, and since when the first of them does."""
        firsts = [queue[0].since for queue in (self.waiting, self.parked) if queue]
        return len(self.waiting) + len(self.parked), min(firsts, default=self.loop.now)

    def _too_many_pins(self, client: "PoolClient") -> bool:
        """Whether another pin would leave no pipe to share; who has one for good asked for it."""
        return not client.sticky and len(self.shelves.alone) >= max(1, self.backend.limit - 1)

    def give_back(self, pipe: Pipe, *, clean: bool, used: bool) -> None:
        """Take a leased pipe back.

        Args:
            pipe: the pipe.
            clean: nothing is under way on it; else it is closed.
            used: it may carry a client's state, so it is reset, or closed if that cannot be.
        """
        self._take_from(pipe)
        whole = clean and not pipe.owed and pipe.state == READY and not pipe.retiring
        if whole and not used:
            self._offer(pipe)
        elif whole and self.framer.reset.replies:
            self.shelves.reopen(pipe)
            pipe.begin_again(self.framer.reset)
        else:
            self._forget(pipe)
            pipe.close()
            self._serve_all()

    def count_pin(self, why: str) -> None:
        """Count a client that needs a pipe of its own, by reason."""
        pins = self.figures.pins
        pins[why] = pins.get(why, 0) + 1

    def count_error(self, of: Literal["client", "server"], kind: str) -> None:
        """Count bytes that break the protocol, by who sent them and the framer's word for it."""
        errors = self.figures.errors[of]
        errors[kind] = errors.get(kind, 0) + 1

    def latency_of(self, server: Server) -> Histogram:
        """Return where it is counted how long the server's replies took."""
        return self.figures.reply_seconds.setdefault(server.figures.address, empty(REPLY_BOUNDS_S))

    def forget(self, server: Server) -> None:
        """Forget what was counted of a server to which there is no pipe any more."""
        self.figures.reply_seconds.pop(server.figures.address, None)

    # --- what pipes tell -----------------------------------------------------------------------

    def ready(self, pipe: Pipe) -> None:
        """Offer a pipe: it is connected and set up, or was given back clean."""
        self.dial_succeeded()
        self._offer(pipe)

    def _offer(self, pipe: Pipe) -> None:
        self.shelves.offer(pipe)
        pipe.idle_since = self.loop.now
        self.idle(pipe)
        if self.waiting:
            self.grow(self.waiting[0].setup)

    def has_room(self, pipe: Pipe) -> None:
        """Note that a pipe may take more requests."""
        if self.waiting:
            self._serve(pipe)

    def idle(self, pipe: Pipe) -> None:
        """Note that a pipe owes nothing: serve who waits, or close it if its time is over."""
        if pipe.owner is not None:
            return
        if pipe.retiring:
            self._forget(pipe)
            pipe.close()
            self._serve_all()
            return
        self.shelves.set_down(pipe)
        if self.waiting:
            self._serve(pipe)
        elif self.backend.open > self.backend.limit:
            self.shrink()

    def retire(self, pipe: Pipe) -> None:
        """Give the pipe no more requests; it is closed once it owes nothing."""
        pipe.retiring = True
        self.not_on(pipe)
        self.shelves.unlist(pipe)

    def lost(self, pipe: Pipe, why: str) -> None:
        """Forget a pipe that has ended, or broken the protocol."""
        if pipe.state < READY:  # not again at once
            self.back_off()
        self._forget(pipe)
        losses = self.figures.losses
        losses[why] = losses.get(why, 0) + 1
        pipe.close()
        self._serve_all()

    def blame(self, pipe: Pipe, why: str) -> None:
        """Count against its server that a pipe ends which owed something, if that is to blame."""
        server = pipe.target
        if why in LOSSES_THAT_COUNT:
            server.heard(max(each.heard_at for each in self.pipes if each.target is server))
            server.failed(why)

    def give_away(self, pipe: Pipe) -> None:
        """Forget a pipe that has become a tunnel; its connection goes on being counted."""
        self._forget(pipe)

    def connect_failed(self, pipe: Pipe, error: int | str) -> None:
        """Try the next server; when all have failed, tell who waits."""
        self.dial_failed(pipe.target, error)
        self._forget(pipe)
        pipe.close()
        if self.exhausted:
            self._give_up()
        elif self.waiting and self.backend.claim(self):
            self._open(pipe.setup)

    def setup_failed(self, pipe: Pipe, reply: bytes) -> None:
        """Give the server's refusal to the clients that asked for this setup."""
        self._forget(pipe)
        pipe.close()
        for client in [each for each in self.waiting if each.setup == pipe.setup]:
            self.waiting.remove(client)
            client.refused(reply)
        self._serve_all()

    # --- opening and closing -------------------------------------------------------------------

    def room(self) -> None:
        """The backend's budget has room again."""
        self._serve_all()

    def shrink(self, server: Server | None = None) -> bool:
        """Close a pipe that nobody uses, for somebody who needs its place."""
        pipe = self.shelves.longest_idle(server)
        if pipe is None:
            return False
        self._forget(pipe)
        pipe.close()
        return True

    @property
    def serves_live(self) -> bool:
        """Whether there is a pipe to a server that is live."""
        return any(pipe.state == READY and pipe.target.live for pipe in self.pipes)

    def close(self) -> None:
        """Close all pipes, once all sessions have ended; the next client opens one again."""
        self.closed = True
        for pipe in list(self.pipes):
            self._forget(pipe)
            pipe.close()

    def retire_one(self, server: Server | None = None) -> bool:
        """Give a ready pipe no more requests, so that it closes once it owes nothing."""
        ready = [pipe for pipe in self.shelves.every_ready if server in {None, pipe.target}]
        if ready:
            self.retire(ready[0])
        return bool(ready)

    def sample(self) -> int:
        """Bring the figures up to date; returns how many pipes nobody uses."""
        self.figures.in_flight = sum([len(pipe.owed) for pipe in self.pipes])
        known = dict.fromkeys(self.figures.reply_seconds, 0.0)
        self.figures.oldest_s = known | self.shelves.oldest(self.loop.now)
        self.figures.pipes = self.shelves.sample()
        return self.figures.pipes["idle"]

    def idle_on(self, server: Server) -> int:
        """Return how many pipes to a server nobody uses."""
        return self.shelves.idle_on(server)

    def grow(self, setup: Setup) -> None:
        """Open a pipe for a setup unless enough are being opened, or there is no room."""
        opening = self.shelves.opens(setup)
        waiting = [each for each in islice(self.waiting, LOOK_AHEAD) if each.setup == setup]
        alone = sum(1 for client in waiting if client.wants_alone)
        most = max(1, alone + min(len(waiting) - alone, MAX_OPENING))
        while opening < most and self.may_dial and self.backend.claim(self):
            if not self._open(setup):
                return
            opening += 1

    def _open(self, setup: Setup) -> bool:
        """Open a pipe; False when that is not possible now."""
        dialled = self.dial()
        if dialled is not None:
            self._add(setup, *dialled)
        elif self.exhausted:
            self._give_up()
        return dialled is not None

    def open_to(self, server: Server, setup: Setup) -> None:
        """Open a pipe to one server, for which there is room, if that is possible now."""
        dialled = self.dial_to(server) if self.may_dial else None
        if dialled is not None:
            self._add(setup, *dialled)

    def _add(self, setup: Setup, server: Server, sock: socket) -> None:
        self.figures.opened += 1
        pipe = Pipe(self, server, sock, setup)
        lifetime_s = self.backend.config.max_lifetime_s
        if lifetime_s:  # jittered: pipes that were opened together do not go together
            pipe.expires_at = self.loop.now + lifetime_s * random.uniform(0.8, 1.0)
        self.shelves.add(pipe)

    def _give_up(self) -> None:
        """Every server has failed: tell who waits, unless a connect is still under way."""
        if self.shelves.opening:
            return
        self.back_off()
        for client in [*self.waiting, *self.parked]:
            self.stop_waiting(client)
            client.denied("connect_failed")

    def _hand_over(self, pipe: Pipe, client: "PoolClient") -> None:
        self.not_on(pipe)
        self.shelves.hand_over(pipe)
        pipe.owner = client

    def _park(self, client: "PoolClient") -> None:
        """Put a pin out of the way; one that was parked before keeps its place."""
        if self.parked and client.since < self.parked[0].since:
            self.parked.appendleft(client)
        else:
            self.parked.append(client)

    def _take_from(self, pipe: Pipe) -> None:
        """Note that a pipe is nobody's alone any more; a parked pin may have its turn."""
        if self.shelves.take_back(pipe) and self.parked:
            self.waiting.appendleft(self.parked.popleft())

    def _serve_all(self) -> None:
        for pipe in self.shelves.every_ready if self.waiting else ():
            self._serve(pipe)
        if self.waiting:
            self.grow(self.waiting[0].setup)

    def _serve(self, pipe: Pipe) -> None:
        """Give a ready pipe to those whose turn it is, as far as it suits them."""
        in_flight = self.framer.in_flight
        while self.waiting and len(pipe.owed) < in_flight and pipe.owner is None:
            if pipe.state != READY or pipe.retiring or pipe.full or pipe.stuck or self.closed:
                return
            client = self.waiting[0]
            if client.wants_alone and self._too_many_pins(client):
                self._park(self.waiting.popleft())
                continue
            if client.setup != pipe.setup:
                self.grow(client.setup)
                return
            if client.wants_alone and pipe.owed:
                return
            if not pipe.owed:
                self.shelves.take_up(pipe)
            if client.wants_alone:
                self._hand_over(pipe, client)
            self.waiting.popleft()
            self.backend.figures.wait_seconds.observe(self.loop.now - client.since, WAIT_BOUNDS_S)
            if client.note is not None:
                client.note.dequeued(self.loop.now)
            try:
                client.granted(pipe)
            except Exception as error:  # one client's; the others are served all the same
                log.exception("a client could not be given its pipe")
                client.fail(error)

    def _forget(self, pipe: Pipe) -> None:
        if self.shelves.forget(pipe):
            self.not_on(pipe)
            self._take_from(pipe)

    def _tend(self, now: float) -> float:
        """Every tick: end what is overdue, keep the minimum open."""
        for pipe in list(self.pipes):
            end_overdue(self, pipe, now)
        if len(self.pipes) < self.backend.pool_min and self.backend.open < self.backend.limit:
            self.grow(self._setup)
        if self.waiting:
            self._serve_all()
        return now + TICK_S

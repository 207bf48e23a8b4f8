"""What tests of real processes share: sockets, waiting, the bus as a controller holds it, workers.

A `Rig` (a fixture, tests/conftest.py) makes everything and ends everything. Ports come from the
kernel, all sockets are loopback or unix, nothing is mocked, and the only pause is in `wait_until`.
A worker is started exactly as the controller does it: a Boot on standard input, the listening
socket inherited. When a rig is closed each of its workers is told to stop, and must have counted
every session, connection and slab back to zero, have logged no error and exit with 0.
"""

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar

import msgspec
import psutil
import zmq

from aegis import bus
from aegis.config import Config
from aegis.config_backend import Backend, servers_of
from aegis.config_listener import Listener
from aegis.figures import Figures
from aegis.lifecycle import Goal
from aegis.messages import Boot, Desired, Report, ServerWish
from aegis.session_records import SessionBatch, SessionRecord

DEADLINE_S = 20.0
"""Generous: the machine may be busy with others' tests. Nothing waits for it when all is well."""

Kind = Literal["tcp4", "tcp6", "unix"]
KINDS: tuple[Kind, ...] = ("tcp4", "tcp6", "unix")
Result = TypeVar("Result")


def wait_until(
    condition: Callable[[], Result], what: str, deadline_s: float = DEADLINE_S
) -> Result:
    """Return the condition's first true value."""
    give_up = monotonic() + deadline_s
    while not (value := condition()):
        assert monotonic() < give_up, f"not within {deadline_s:g} s: {what}"
        select.select([], [], [], 0.005)
    return value


def listening_address(sock: socket.socket) -> str:
    """Return where a socket is bound, as a configuration says it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def bound_socket(kind: Kind, directory: Path, buffer_bytes: int = 0) -> socket.socket:
    """Bind a socket the way the controller binds a listener's, to a port of the kernel's choice."""
    family = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
    sock = socket.socket(family, socket.SOCK_STREAM)
    if buffer_bytes:  # accepted sockets inherit both
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    if kind == "unix":
        sock.bind(str(directory / f"{os.urandom(4).hex()}.sock"))
        return sock
    host = "127.0.0.1" if kind == "tcp4" else "::1"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # A port that bind(2) chose itself is given back by shutdown(2) (SOCK_BINDPORT_LOCK,
    # tcp_set_state in net/ipv4/tcp.c); one that was asked for by number stays.
    with socket.socket(family, socket.SOCK_STREAM) as scout:
        scout.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        scout.bind((host, 0))
        sock.bind((host, scout.getsockname()[1]))
    return sock


def reset(sock: socket.socket) -> None:
    """Close a TCP socket with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes, fewer only when the end came first."""
    parts = bytearray()
    while len(parts) < size and (part := sock.recv(size - len(parts))):
        parts += part
    return bytes(parts)


def receive_all(sock: socket.socket) -> bytes:
    """Return everything up to the end."""
    return receive(sock, sys.maxsize >> 32)


def is_silent(sock: socket.socket, seconds: float) -> bool:
    """Whether neither byte nor end nor error comes for so long."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(seconds * 1000)


def fill(sock: socket.socket, stream: bytes) -> int:
    """Send of the stream what fits until the sender blocks, and stays so; returns how much."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sock.setblocking(False)
    sent = 0
    view = memoryview(stream)
    while poll.poll(400):
        with contextlib.suppress(BlockingIOError):
            sent += sock.send(view[sent : sent + 65536])
        assert sent < len(stream), f"{sent} bytes went out and the sender still is not held back"
    sock.settimeout(DEADLINE_S)
    return sent


class Peer:
    """One end of a transfer for `pump`: what it has to say, what it has heard."""

    def __init__(self, sock: socket.socket, outgoing: bytes = b"", *, finish: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.outgoing = memoryview(outgoing)
        self.finish = finish  # half-close after the last byte
        self.incoming = bytearray()
        self.ended = False


def pump(peers: Iterable[Peer], until: Callable[[], bool], rng: random.Random) -> None:
    """Send and receive in random pieces, all peers at once, until the condition holds."""
    by_fd = {peer.sock.fileno(): peer for peer in peers}
    give_up = monotonic() + DEADLINE_S
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLIN | select.POLLOUT)
    while not until():
        assert monotonic() < give_up, "the transfer has not finished in time"
        for fd, mask in poll.poll(100):
            peer = by_fd[fd]
            if mask & select.POLLOUT:
                _send_some(peer, rng)
            if mask & ~select.POLLOUT and not peer.ended:
                part = peer.sock.recv(rng.randint(1, 65536))
                peer.incoming += part
                peer.ended = not part
            wanted = (0 if peer.ended else select.POLLIN) | (
                select.POLLOUT if peer.outgoing or peer.finish else 0
            )
            if wanted:
                poll.modify(fd, wanted)
            else:
                poll.unregister(fd)
                del by_fd[fd]


def _send_some(peer: Peer, rng: random.Random) -> None:
    if peer.outgoing:
        with contextlib.suppress(BlockingIOError):
            sent = peer.sock.send(peer.outgoing[: rng.randint(1, 65536)])
            peer.outgoing = peer.outgoing[sent:]
    if not peer.outgoing and peer.finish:
        peer.sock.shutdown(socket.SHUT_WR)
        peer.finish = False


class ControllerBus:
    """The controller's and the exporter's ends of the bus, held by a test."""

    def __init__(self, runtime_dir: Path, *, telemetry: bool = True) -> None:
        self._context = zmq.Context()
        self.commands = bus.bind(self._context, zmq.PUB, runtime_dir, "commands")
        self._reports = bus.bind(self._context, zmq.PULL, runtime_dir, "reports")
        self._runtime_dir = runtime_dir
        self._sessions: Any = None
        self._telemetry = None
        if telemetry:
            self._telemetry = bus.bind(self._context, zmq.PULL, runtime_dir, "telemetry")
        self.desired = Desired(controller=os.getpid(), epoch=0, goal="serving", deadline=0.0)

    def publish(
        self,
        goal: Goal,
        timeout_s: float = 0.0,
        retired: dict[int, float] | None = None,
        servers: Iterable[ServerWish] | None = None,
        shares: dict[int, dict[str, int]] | None = None,
    ) -> None:
        """Make a new epoch of it; `report` repeats it until somebody has it."""
        before = self.desired
        self.desired = Desired(
            controller=self.desired.controller,
            epoch=self.desired.epoch + 1,
            goal=goal,
            deadline=0.0 if goal == "serving" else monotonic() + timeout_s,
            retired=self.desired.retired | (retired or {}),
            servers=before.servers if servers is None else {"db": list(servers)},
            shares=before.shares if shares is None else shares,
        )
        bus.send(self.commands, self.desired)

    def report(self, pid: int, condition: Callable[[Report], bool], what: str) -> Report:
        """Return that worker's next report for which the condition holds."""
        give_up = monotonic() + DEADLINE_S
        seen: Report | None = None
        while monotonic() < give_up:
            if not self._reports.poll(100):
                bus.send(self.commands, self.desired)  # it may not have subscribed yet
                continue
            report = msgspec.msgpack.decode(self._reports.recv(), type=Report)
            if report.figures.pid == pid:
                seen = report
                if condition(report):
                    return report
        raise AssertionError(f"worker {pid} never reported {what}; its last: {seen}")

    def ask(self, pid: int) -> Figures:
        """Return the worker's figures of now: a new epoch that wants what is wanted anyway."""
        epoch = self.desired.epoch + 1
        self.desired = msgspec.structs.replace(self.desired, epoch=epoch)
        bus.send(self.commands, self.desired)
        return self.report(pid, lambda r: r.epoch == epoch, f"epoch {epoch}").figures

    def next_sessions(self) -> list[SessionRecord]:
        """Return what a worker told the session log, waiting for it; the first call binds."""
        if self._sessions is None:
            self._sessions = bus.bind(self._context, zmq.PULL, self._runtime_dir, "sessions")
        assert self._sessions.poll(DEADLINE_S * 1000), "no sessions"
        return msgspec.msgpack.decode(self._sessions.recv(), type=SessionBatch).records

    def next_telemetry(self) -> Figures:
        """Return what a worker told the exporter, waiting for it."""
        assert self._telemetry is not None
        assert self._telemetry.poll(DEADLINE_S * 1000), "no telemetry"
        return msgspec.msgpack.decode(self._telemetry.recv(), type=Figures)

    def close(self) -> None:
        self._context.destroy(linger=0)


class Worker:
    """One worker process and what it has logged."""

    def __init__(self, boot: Boot, log: Path) -> None:
        self._log = log
        memory = os.memfd_create("boot")
        try:
            os.write(memory, msgspec.msgpack.encode(boot))
            os.lseek(memory, 0, os.SEEK_SET)
            with log.open("wb") as stderr:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-W", "error", "-m", "workers.worker"],
                    stdin=memory,
                    stderr=stderr,
                    pass_fds=list(boot.listeners.values()),
                    start_new_session=True,
                )
        finally:
            os.close(memory)
        self.pid = self._child.pid
        self.process = psutil.Process(self.pid)

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def freeze(self) -> None:
        """Stop it; what comes meanwhile it finds in one turn, once it gets SIGCONT."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.process.status() == psutil.STATUS_STOPPED, "the worker has stopped")

    def exit_code(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the process to end."""
        return self._child.wait(deadline_s)

    def cpu_s(self) -> float:
        """CPU seconds it has used."""
        times = self.process.cpu_times()
        return times.user + times.system

    def end(self) -> None:
        """Make sure that no process stays, whatever the test has met."""
        if self.running:
            self._child.kill()
        self._child.wait()

    def log(self) -> str:
        return self._log.read_text()

    def complaints(self) -> list[str]:
        """What it has logged that no healthy worker logs."""
        lines = self.log().splitlines()
        bad = ("ERROR", "WARNING", "Traceback", "Exception ignored", "Error:")
        return [line for line in lines if any(word in line for word in bad)]


class Upstream:
    """A server's listening socket; a test accepts from it what a worker has dialled."""

    def __init__(self, own: contextlib.ExitStack, sock: socket.socket) -> None:
        self._own = own
        self.sock = sock
        self.address = listening_address(sock)

    def accept(self) -> socket.socket:
        sock = self._own.enter_context(self.sock.accept()[0])
        sock.settimeout(DEADLINE_S)
        return sock


class Proxy:
    """One listener, its bus and the workers on its socket; the first is `worker`."""

    def __init__(self, own: contextlib.ExitStack, directory: Path, config: Config) -> None:
        self._own = own
        self._directory = directory
        self.config = config
        self.sock: socket.socket
        self.bus: ControllerBus
        self.known = True
        self.workers: list[Worker] = []
        self._expected: list[str] = []

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    def spawn(self, goal: Goal = "serving") -> Worker:
        """Start one more worker on the listening socket."""
        boot = Boot(
            slot=0,
            cpu=random.choice(sorted(os.sched_getaffinity(0))),
            runtime_dir=str(self._directory),
            config=self.config,
            goal=goal,
            listeners={"front": self.sock.fileno()},
            servers={
                b.name: [ServerWish(each.address) for each in servers_of(b.servers)]
                for b in self.config.backends
                if self.known
            },
            shares={b.name: b.max_connections for b in self.config.backends if b.max_connections},
        )
        worker = Worker(boot, self._directory / f"worker-{len(self.workers)}.log")
        self._own.callback(worker.end)
        self.workers.append(worker)
        return worker

    def await_phase(self, phase: str, worker: Worker | None = None) -> Report:
        """Wait for that phase under what is wanted now; an older report does not count."""
        pid, epoch = (worker or self.worker).pid, self.bus.desired.epoch
        return self.bus.report(
            pid, lambda r: r.figures.phase == phase and r.epoch == epoch, f"{phase} in {epoch}"
        )

    def connect(self, *, receive_buffer: int = 0, source: str = "") -> socket.socket:
        """Connect a client, from an address of loopback; raises as connect(2) fails."""
        client = self._own.enter_context(socket.socket(self.sock.family, socket.SOCK_STREAM))
        client.settimeout(DEADLINE_S)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            client.bind((source, 0))
        client.connect(self.sock.getsockname())
        return client

    def pair(
        self, upstream: Upstream, *, receive_buffer: int = 0
    ) -> tuple[socket.socket, socket.socket]:
        """Open a session; returns the client's socket and the server's."""
        client = self.connect(receive_buffer=receive_buffer)
        return client, upstream.accept()

    def want(self, *servers: ServerWish, shares: dict[str, int] | None = None) -> Figures:
        """Have the backend's servers be these; returns the figures once the worker knows."""
        of_worker = None if shares is None else {self.worker.pid: shares}
        self.bus.publish("serving", servers=servers, shares=of_worker)
        return self.figures()

    def refuses(self) -> bool:
        """Whether a new client is refused; any other failure is an error."""
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    def figures(self) -> Figures:
        return self.bus.ask(self.worker.pid)

    def fds(self) -> int:
        """Count the worker's fds once the turn in which it answered is over.

        A turn closes fds at its end, and it may answer any number of times before.
        """
        turns = self.figures().turns
        self.figures_when(lambda f: f.turns > turns, "the turn is over")
        return int(self.worker.process.num_fds())

    def figures_when(self, condition: Callable[[Figures], bool], what: str) -> Figures:
        """Return the first worker's figures once the condition holds."""

        def look() -> Figures | None:
            figures = self.figures()
            return figures if condition(figures) else None

        found = wait_until(look, what)
        assert found is not None
        return found

    def closed_for(self, reason: str, count: int = 1) -> Figures:
        """Wait until so many sessions have closed, and all of them for that reason."""
        figures = self.figures_when(
            lambda f: sum(f.listeners[0].closed.values()) >= count, f"{count} sessions closed"
        )
        reasons = {k: v for k, v in figures.listeners[0].closed.items() if v}
        assert reasons == {reason: count}
        return figures

    def turns_in_a_heartbeat(self) -> int:
        """Count the loop's turns between two telemetry messages, which are a second apart."""
        for _ in range(2):  # what was queued or under way does not count
            before = self.bus.next_telemetry()
        return self.bus.next_telemetry().turns - before.turns

    def finish(self) -> None:
        """Stop every worker and hold it to its accounts."""
        for worker in self.workers:
            if not worker.running:
                continue
            self.bus.publish("stopped")
            figures = self.await_phase("stopped", worker).figures
            assert_settled(figures)
            assert worker.exit_code() == 0
        complaints = [line for worker in self.workers for line in worker.complaints()]
        assert [c for c in complaints if not any(words in c for words in self._expected)] == []

    def expects(self, words: str) -> None:
        """Let workers complain of this."""
        self._expected.append(words)


def assert_settled(figures: Figures) -> None:
    """Check that everything that was opened or borrowed has been given back, and counted."""
    for listener in figures.listeners:
        assert listener.sessions == 0
        assert listener.accepted == sum(listener.closed.values())
        assert listener.closed["error"] == 0
    assert [server.connections for server in figures.servers] == [0] * len(figures.servers)
    assert not parked(figures)


def parked(figures: Figures) -> int:
    """How many buffers are held by flows whose sink is full."""
    return figures.slabs_used + figures.kernel_pipes_used


class Rig:
    """Makes what a test needs and ends it."""

    def __init__(self, directory: Path) -> None:
        self._own = contextlib.ExitStack()
        self.directory = directory
        self._proxies: list[Proxy] = []

    def upstream(
        self, kind: Kind = "tcp4", *, backlog: int = 128, buffer_bytes: int = 0
    ) -> Upstream:
        """Listen as a server."""
        sock = self._own.enter_context(bound_socket(kind, self.directory, buffer_bytes))
        sock.settimeout(DEADLINE_S)
        sock.listen(backlog)
        return Upstream(self._own, sock)

    def refused_address(self, kind: Kind = "tcp4") -> str:
        """Return an address that is taken and refuses connections."""
        return listening_address(self._own.enter_context(bound_socket(kind, self.directory)))

    def own(self, thing: Any) -> Any:
        """Close something with the rig."""
        self._own.callback(thing.close)
        return thing

    def controller_bus(self, *, telemetry: bool = True) -> ControllerBus:
        """Bind the bus as a controller, and an exporter, do."""
        bound: ControllerBus = self.own(ControllerBus(self.directory, telemetry=telemetry))
        return bound

    def proxy(
        self,
        *servers: str,
        kind: Kind = "tcp4",
        buffer_bytes: int = 0,
        goal: Goal = "serving",
        telemetry: bool = True,
        known: bool = True,
        listener: dict[str, Any] | None = None,
        backend: dict[str, Any] | None = None,
        more_backends: tuple[Backend, ...] = (),
        **config: Any,
    ) -> Proxy:
        """Start a worker for these servers and wait until it has reached its goal.

        Not `known`: it is not told which servers there are.
        """
        sock = self._own.enter_context(bound_socket(kind, self.directory, buffer_bytes))
        bind = listening_address(sock)
        proxy = Proxy(
            self._own,
            self.directory,
            Config(
                listeners=(Listener(name="front", bind=bind, backend="db", **(listener or {})),),
                backends=(
                    Backend(**({"name": "db", "servers": servers} | (backend or {}))),
                    *more_backends,
                ),
                **config,
            ),
        )
        proxy.sock, proxy.known = sock, known
        proxy.bus = self.controller_bus(telemetry=telemetry)
        proxy.spawn(goal)
        proxy.await_phase(goal)
        self._proxies.append(proxy)
        return proxy

    def finish(self) -> None:
        """Check the workers' accounts; only for a test that has passed so far."""
        for proxy in self._proxies:
            proxy.finish()

    def close(self) -> None:
        self._own.close()

"""Faults done to a whole proxy and to what is around it, each reversible and each by its name.

A storm calls them one after another from a thread of its own; what touches sockets of the load is
handed to the load's thread (`Scene.run_there`).
"""

import contextlib
import os
import queue
import random
import resource
import select
import signal
import socket
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

from aegis.errors import AegisError
from tests.faults.servers import RealServer
from tests.faults.shim import Shim
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import Aegis

TCP_REPAIR = 19
"""include/uapi/linux/tcp.h. A socket that is closed under repair says nothing to its peer."""
DEATHS_PER_MINUTE = 3
"""Five within a minute are flapping: then a slot is rightly not replaced at once."""
LORIS_BYTES = b"*3\r\n$3\r\nSET\r\n$6\r\nloris:"


def pause(seconds: float) -> None:
    """Let a fault last."""
    select.select([], [], [], seconds)


@dataclass
class Scene:
    """What there is to be harmed."""

    rng: random.Random
    aegis: Aegis
    hot: tuple[str, int]
    """Address of the listener with pipes."""
    redis: RealServer
    chronos: RealServer
    shims: list[Shim]
    disk: Path | None
    """A small disk under Chronos; None where this user may not mount one."""
    most_loris: int
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    calls: "queue.SimpleQueue[Callable[[], object]]" = field(default_factory=queue.SimpleQueue)
    loris: list[socket.socket] = field(default_factory=list)
    deaths: deque[float] = field(default_factory=deque)
    over: threading.Event = field(default_factory=threading.Event)

    def run_there(self, call: Callable[[], object]) -> None:
        """Have something done by the thread that has the sockets."""
        self.calls.put(call)

    def log(self, what: str) -> None:
        print(f"  injected: {what}", flush=True)
        self.done[what.partition(":")[0]] += 1

    def promise(self, kept: bool, what: str) -> None:
        """Note a promise that was not kept."""
        if not kept:
            print("FOUND", what, flush=True)
            self.broken.append(what)


def kill_worker(scene: Scene) -> None:
    """SIGKILL: a successor serves on the same sockets; the other workers stay who they are."""
    now = monotonic()
    while scene.deaths and scene.deaths[0] < now - 60:
        scene.deaths.popleft()
    if len(scene.deaths) >= DEATHS_PER_MINUTE:
        return
    scene.deaths.append(now)
    before = scene.aegis.pids()
    victim = scene.rng.choice(before)
    scene.log(f"kill -9 of a worker: {victim}")
    scene.aegis.kill(victim)
    after = _pids_when(scene, lambda pids: victim not in pids, "a killed worker to be replaced")
    others = set(before) - {victim}
    scene.promise(others <= set(after), f"{others} did not outlive another worker: {after}")


def kill_controller(scene: Scene) -> None:
    """SIGKILL: the workers go on serving, and the next controller adopts them."""
    before = scene.aegis.pids()
    victim = scene.aegis.controller
    scene.log(f"kill -9 of the controller: {victim}")
    scene.aegis.kill(victim)
    pause(scene.rng.uniform(0, 0.5))
    scene.aegis.start("--config", str(scene.aegis.config_file))
    after = _pids_when(scene, bool, "the workers to be adopted")
    scene.promise(after == before, f"workers {before} were not adopted: {after}")


def kill_exporter(scene: Scene) -> None:
    """SIGKILL: it is replaced, and nobody else notices."""
    exporter = scene.aegis.status().exporter
    if exporter is None or exporter.pid is None:
        return
    scene.log(f"kill -9 of the exporter: {exporter.pid}")
    with contextlib.suppress(ProcessLookupError):
        scene.aegis.kill(exporter.pid)


def stop_a_process(scene: Scene) -> None:
    """SIGSTOP, and SIGCONT a moment later."""
    status = scene.aegis.status()
    pids = {f"worker {w.slot}": w.pid for w in status.workers} | {
        "controller": status.controller.pid,
        "exporter": status.exporter.pid if status.exporter else None,
    }
    name = scene.rng.choice(sorted(pids))
    pid = pids[name]
    if pid is None:
        return
    seconds = scene.rng.uniform(0.05, 1.5)
    scene.log(f"SIGSTOP: {name} for {seconds:.2f} s")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            pause(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)


def starve_of_fds(scene: Scene) -> None:
    """EMFILE: for a moment a worker may open nothing more."""
    pid = scene.rng.choice(scene.aegis.pids())
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        count = psutil.Process(pid).num_fds() + scene.rng.randrange(3)
        scene.log(f"EMFILE: worker {pid} may have {count} fds")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, old[1]))
        try:
            pause(scene.rng.uniform(0.1, 1.0))
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, old)


def cut(scene: Scene) -> None:
    """Reset a connection between proxy and server."""
    shim = scene.rng.choice(scene.shims)
    scene.log("reset: a connection to a server")
    scene.run_there(shim.cut_one)


def stall(scene: Scene) -> None:
    """Let nothing through on a connection between proxy and server for a while."""
    shim, seconds = scene.rng.choice(scene.shims), scene.rng.uniform(0.1, 3.0)
    scene.log(f"stall: a connection to a server for {seconds:.2f} s")
    scene.run_there(lambda: shim.stall_one(seconds))


def garble(scene: Scene) -> None:
    """Let the next connections to Redis be answered by something that is no server."""
    scene.log("garbage: from the next three servers")
    scene.run_there(lambda: scene.shims[0].garble_next(3))


def kill_server(scene: Scene) -> None:
    """SIGKILL a database, and start it with what it had."""
    server = scene.rng.choice([scene.redis, scene.chronos])
    scene.log(f"kill -9 of a server: {type(server).__name__}")
    server.restart()


def stop_server(scene: Scene) -> None:
    """SIGSTOP a database: it accepts, in its kernel, and says nothing."""
    server, seconds = scene.rng.choice([scene.redis, scene.chronos]), scene.rng.uniform(0.1, 2.0)
    scene.log(f"silence: of {type(server).__name__} for {seconds:.2f} s")
    server.signal(signal.SIGSTOP)
    try:
        pause(seconds)
    finally:
        server.signal(signal.SIGCONT)


def fill_disk(scene: Scene) -> None:
    """Leave Chronos no room to write, then give it back; its operator restarts it."""
    if scene.disk is None:
        return
    scene.log("full disk: under Chronos")
    ballast = scene.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    pause(scene.rng.uniform(0.2, 1.0))
    ballast.unlink()
    scene.chronos.restart()


def vanish(scene: Scene) -> None:
    """Half-open peers: clients that are gone without a word, before their replies or after them."""
    count, settled = scene.rng.randrange(1, 20), scene.rng.random() < 0.5
    scene.log(f"half-open: {count} clients vanish with replies {'read' if settled else 'due'}")
    for _ in range(count):
        with contextlib.suppress(OSError), socket.create_connection(scene.hot, 5) as sock:
            sock.sendall(b"PING\r\n" * 50)
            if settled:
                sock.recv(7 * 50, socket.MSG_WAITALL)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)


def loris(scene: Scene) -> None:
    """Clients that say a request so slowly that it never ends; they stay until the end."""
    fresh = 0
    for _ in range(min(-(-scene.most_loris // 8), scene.most_loris - len(scene.loris))):
        with contextlib.suppress(OSError):
            sock = socket.create_connection(scene.hot, 5)
            scene.loris.append(sock)
            sock.setblocking(False)
            fresh += 1
    for sock in scene.loris:
        with contextlib.suppress(OSError):
            sock.send(LORIS_BYTES[:1] if scene.rng.random() < 0.5 else LORIS_BYTES[1:2])
    scene.log(f"slow-loris: {fresh} more, {len(scene.loris)} in all")


FAULTS: dict[Callable[[Scene], None], float] = {
    kill_worker: 2,
    kill_controller: 1,
    kill_exporter: 1,
    stop_a_process: 3,
    starve_of_fds: 2,
    cut: 6,
    stall: 4,
    garble: 2,
    kill_server: 2,
    stop_server: 2,
    fill_disk: 1,
    vanish: 2,
    loris: 1,
}


def storm(scene: Scene) -> None:
    """Do one thing after another until it is over; each once before any is done again."""
    first = list(FAULTS)
    scene.rng.shuffle(first)
    while not scene.over.is_set():
        (fault,) = scene.rng.choices(list(FAULTS), list(FAULTS.values()))
        fault = first.pop() if first else fault
        if fault is loris and len(scene.loris) >= scene.most_loris:
            continue
        try:
            fault(scene)
        except (AegisError, AssertionError, OSError, subprocess.SubprocessError) as error:
            scene.promise(False, f"{fault.__name__}: {type(error).__name__} {error}")
            return
        pause(scene.rng.uniform(0.05, 0.5))


def _pids_when(scene: Scene, well: Callable[[list[int]], object], what: str) -> list[int]:
    def look() -> list[int]:
        pids = scene.aegis.pids()
        return pids if well(pids) else []

    return wait_until(look, what, 2 * DEADLINE_S)

"""One whole proxy under load while everything around it, and every process of it, is harmed.

    checked clients (RESP, line) ─┐                        ┌─▶ Shim ─▶ redis-server
    raw blobs ────────────────────┼─▶ aegis-ctl start, 2 ──┼─▶ Shim ─▶ Chronos on a small disk
    slow-loris ───────────────────┘   workers, exporter    └─▶ an echo

    make chaos SEED=1 MINUTES=10

Prints its seed and what it injects (tests/faults/injections.py). Broken promises: a reply that is
another's, out of order or changed; silence; a write that comes twice; one connection too many; a
refused client; a worker that is not replaced, not adopted, or grows; a process that logs an error.
"""

import argparse
import contextlib
import os
import random
import resource
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psutil

from tests.faults.accounts import Accounts
from tests.faults.crowd import TALKS, Crowd
from tests.faults.injections import Scene, storm
from tests.faults.poller import Poller
from tests.faults.raw_load import Echo, Seat
from tests.faults.servers import Chronos, Redis
from tests.faults.shim import Shim
from tests.harness import DEADLINE_S
from tests.proxy import Aegis, Proxies, made, reserve, sockaddr

MAX_CONNECTIONS = 16
KEEPALIVE_S = 5
"""A client that vanished with nothing due to it is found by a probe, and by nothing else."""
MAX_GROWTH_BYTES = 64 << 20
PARTING_S = 60.0
"""For the last clients to come to their end."""


class Load:
    """The clients of a run, their servers, and the thread that has all their sockets."""

    def __init__(self, options: argparse.Namespace, proxies: Proxies, disk: Path | None) -> None:
        self.options = options
        self.accounts = Accounts()
        self.poller = Poller()
        own, seed = proxies.own, options.seed
        own.callback(self.poller.close)
        redis, chronos = (
            Redis(_made(proxies.directory / "redis")),
            Chronos(disk or _made(proxies.directory / "chronos")),
        )
        self.shims = []
        for name, server in {"resp": redis, "line": chronos}.items():
            own.callback(server.close)
            shim = Shim(self.poller, random.Random(seed), server.address, TALKS[name].writes)
            own.callback(shim.close)
            self.shims.append(shim)
        echo = Echo(self.poller)
        own.callback(echo.close)
        self.addresses = {n: reserve(own, "tcp4", proxies.directory) for n in ("line", "raw")}
        self.aegis = self._start(proxies, echo.address)
        rng = random.Random(f"{seed}:storm")
        hot = sockaddr(self.aegis.address)
        self.scene = Scene(rng, self.aegis, hot, redis, chronos, self.shims, disk, options.loris)
        self.baseline = dict.fromkeys(self.aegis.pids(), 0)
        self.baseline = {pid: psutil.Process(pid).memory_info().rss for pid in self.baseline}
        self.crowds: list[Crowd | Seat] = []

    def _start(self, proxies: Proxies, echo: str) -> Aegis:
        aegis = proxies.new()
        hot = {"bind": aegis.address, "protocol": "resp", "backend": "redis"}
        line = {"bind": self.addresses["line"], "protocol": "line", "backend": "chronos"}
        pipes = {"max_connections": MAX_CONNECTIONS, "queue_timeout_s": 3.0, "queue_max": 20_000}
        aegis.configure(
            listeners={
                "hot": {**hot, "pooling": "multiplex", "keepalive_s": KEEPALIVE_S},
                "line": {**line, "pooling": "multiplex"},
                "raw": {"bind": self.addresses["raw"], "backend": "echo"},
            },
            backends={
                "redis": {"servers": [self.shims[0].address], **pipes},
                "chronos": {"servers": [self.shims[1].address], **pipes},
                "echo": {"servers": [echo]},
            },
            workers=2,
        )
        aegis.start("--config", str(aegis.config_file))
        return aegis

    def gather(self) -> None:
        """Bring in the clients."""
        options, accounts = self.options, self.accounts
        places = {"resp": self.aegis.address, "line": self.addresses["line"]}
        for protocol, address in places.items():
            self.crowds.append(
                Crowd(
                    self.poller,
                    accounts,
                    sockaddr(address),
                    protocol=protocol,
                    requests=float("inf"),
                    seconds=60 * options.minutes,
                    seed=f"{options.seed}:{protocol}",
                    numbers=range(options.clients),
                    big_bytes=20_000,
                )
            )
        for number in range(options.clients // 4 + 1):
            rng = random.Random(f"{options.seed}:raw:{number}")
            raw = sockaddr(self.addresses["raw"])
            self.crowds.append(Seat(self.poller, accounts, raw, rng))

    def run(self) -> None:
        """Turn until the time is up and every client has left."""
        scene, ends = self.scene, monotonic() + 60 * self.options.minutes
        thread = threading.Thread(target=storm, args=(scene,))
        thread.start()
        try:
            while monotonic() < ends and not (scene.broken or self.accounts.found):
                self._turn()
            scene.over.set()
            give_up = monotonic() + PARTING_S
            for crowd in self.crowds:
                crowd.stop()
            while thread.is_alive() or not all(crowd.ended for crowd in self.crowds):
                self._turn()
                if monotonic() > give_up:
                    self.accounts.wrong("clients or a storm that do not end")
                    break
        finally:
            scene.over.set()
            while thread.is_alive():
                self._turn()

    def _turn(self) -> None:
        self.poller.turn(0.05)
        while not self.scene.calls.empty():
            self.scene.calls.get()()

    def turn_until(self, condition: "Iterator[bool]", what: str) -> None:
        """Go on relaying until something holds."""
        give_up = monotonic() + DEADLINE_S
        while not next(condition):
            self._turn()
            if monotonic() > give_up:
                status = self.aegis.status()
                left = (status.listeners, status.workers)
                self.accounts.wrong(f"never: {what}; there are {left}")
                return


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int = 256) -> Iterator[Path | None]:
    """Mount a disk that is soon full; None where that is not allowed."""
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(["mount", *options], check=False).returncode:
        print("no full disk: only root may mount one", flush=True)
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def judge(load: Load) -> None:
    """Look at what the storm has left."""
    accounts, scene, aegis = load.accounts, load.scene, load.aegis
    accounts.found += scene.broken
    for sock in scene.loris:
        sock.close()

    def quiet() -> Iterator[bool]:
        while True:
            status = aegis.status()
            yield not any(listener.sessions for listener in status.listeners) and all(
                worker.phase == "serving" and not worker.slabs_used for worker in status.workers
            )

    load.turn_until(quiet(), "every session to end, every slab to be back, every worker to serve")
    for pid in aegis.pids():
        process = psutil.Process(pid)
        grown = process.memory_info().rss - load.baseline.get(pid, sys.maxsize)
        if grown > MAX_GROWTH_BYTES:
            accounts.wrong(f"worker {pid} has grown by {grown >> 20} MiB")
        print(f"worker {pid}: {process.memory_info().rss >> 20} MiB, {process.num_fds()} fds")
        if process.num_fds() > 40 + 2 * MAX_CONNECTIONS:
            accounts.wrong(f"worker {pid} keeps {process.num_fds()} fds")
    for shim in load.shims:
        if shim.most > MAX_CONNECTIONS:
            accounts.wrong(f"{shim.most} connections to a server at one moment")
        for token in shim.again:
            accounts.wrong(f"the write of {token!r} came to the server twice")
    for outcome, count in accounts.outcomes.items():
        if "ECONNREFUSED" in outcome:
            accounts.wrong(f"{outcome}: {count} clients were refused")
    keys = sorted(accounts.acked.keys() | accounts.unsure.keys())
    for key, count in zip(keys, scene.redis.counts(keys), strict=True):
        least, most = accounts.acked[key], accounts.acked[key] + accounts.unsure[key]
        if not least <= count <= most:
            accounts.wrong(f"{key!r}: {count} increments, answered {least} to {most}")
    bad = [line for line in aegis.log().splitlines() if "Traceback" in line or "Error:" in line]
    for line in bad[:5]:
        accounts.wrong(f"in the log: {line}")


def chaos(options: argparse.Namespace) -> Accounts:
    """Run once; `found` of what it returns is empty when every promise was kept."""
    print(f"chaos --seed {options.seed} --minutes {options.minutes:g}", flush=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with made() as proxies, small_disk(proxies.directory / "disk") as disk:
            load = Load(options, proxies, disk)
            load.gather()
            load.run()
            judge(load)
            load.aegis.done("stop", "--now")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    accounts = load.accounts
    raw = [seat for seat in load.crowds if isinstance(seat, Seat)]
    print("injected:", dict(load.scene.done))
    print(f"{accounts.answered} requests answered well of {accounts.asked};",
          f"{sum(seat.whole for seat in raw)} blobs came back whole,",
          f"{sum(seat.bytes for seat in raw)} bytes compared;",
          f"{len(load.shims[0].seen) + len(load.shims[1].seen)} writes seen once;",
          f"{dict(accounts.outcomes)}; {len(accounts.found)} promises broken")  # fmt: skip
    return accounts


def options_of(*arguments: str) -> argparse.Namespace:
    """Understand a command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--clients", type=int, default=40, help="of each protocol")
    parser.add_argument("--loris", type=int, default=8000, help="clients that never finish")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(1 if chaos(options_of(*sys.argv[1:])).found else 0)

"""Load with chance and faults; every reply is checked: who asked, in which order, for what.

    clients (Crowd) ─▶ worker (a real process) ─▶ Shim (splits, cuts) ─▶ the real server

    python -m tests.faults.checker --protocol resp --requests 1000000 --clients 500 --seed N

The seed, printed first, decides what every client says and does; the kernel decides when. The
clients are in this process, or with `--processes` in others.
"""

import argparse
import contextlib
import random
import secrets
import sys
import tempfile
import threading
from pathlib import Path
from time import monotonic

from aegis.figures import Figures
from tests.faults.accounts import MAX_FOUND, Accounts
from tests.faults.crowd import TALKS, Crowd, OtherCrowd
from tests.faults.poller import Poller
from tests.faults.servers import SERVERS, RealServer
from tests.faults.shim import Shim
from tests.harness import DEADLINE_S, Proxy, Rig

MAX_GROWTH_BYTES = 64 << 20
"""Of the worker over a run: its slabs are there from the start, so 500 clients' sessions."""
MAX_DRAIN_S = 60.0
"""For the clients to come to their end once enough has been asked."""


class Run(Accounts):
    """One run: its options, its clients' accounts and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.poller = Poller()
        self.crowds: list[Crowd | OtherCrowd] = []
        self.spent_s = 0.0

    def gather(self, address: tuple[str, int]) -> None:
        """Bring in the clients."""
        options = self.options
        task = {
            "protocol": options.protocol,
            "seconds": 60 * options.minutes,
            "seed": options.seed,
            "big_bytes": options.big_bytes,
        }
        only = frozenset(filter(None, options.only.split(",")))
        count, seats = options.processes, range(options.clients)
        if not count:
            every = {**task, "requests": options.requests, "numbers": seats, "only": only}
            self.crowds = [Crowd(self.poller, self, address, **every)]
            return
        task |= {"address": address, "requests": options.requests / count, "only": sorted(only)}
        for n in range(count):
            part = {**task, "numbers": list(seats[n::count])}
            self.crowds.append(OtherCrowd(self.poller, self, part))

    @property
    def ended(self) -> bool:
        """Whether every client has left."""
        return all(crowd.ended for crowd in self.crowds)

    def storm(self, shim: Shim, server: RealServer) -> None:
        """Kill the server and cut pipes."""
        rng, options = random.Random(f"{self.options.seed}:storm"), self.options
        restarts: list[threading.Thread] = []

        def blow() -> None:
            if self.ended:
                return
            self.poller.later(rng.uniform(0.05, 0.6), blow)
            busy = restarts and restarts[0].is_alive()
            if server.survives and rng.random() < options.kill and not busy:
                restarts[:] = [threading.Thread(target=server.restart)]
                restarts[0].start()
                self.outcomes["server killed"] += 1
            elif rng.random() < options.cut and shim.cut_one():
                self.outcomes["pipe cut"] += 1

        try:
            blow()
            began = last = monotonic()
            limit = began + 60 * options.minutes + MAX_DRAIN_S
            while not self.ended:
                self.poller.turn()
                if self.found and len(self.found) > MAX_FOUND:
                    self._stop()
                if self.poller.now > limit:
                    self.wrong("clients that do not end")
                    return
                if self.poller.now > last + 60:
                    last = self.poller.now
                    self._tell(last - began)
            self.spent_s = monotonic() - began
        finally:
            for thread in restarts:
                thread.join()

    def _stop(self) -> None:
        for crowd in self.crowds:
            crowd.stop()

    def _tell(self, seconds: float) -> None:
        others = [crowd for crowd in self.crowds if isinstance(crowd, OtherCrowd)]
        answered = self.answered + sum(crowd.answered for crowd in others if not crowd.ended)
        print(f"  {answered} answered after {seconds:.0f} s", flush=True)

    def audit(self, server: RealServer) -> None:
        """Compare what the server has counted with what was answered."""
        keys = sorted(self.acked.keys() | self.unsure.keys())
        counts = server.counts(keys) if keys else []
        for key, count in zip(keys, counts, strict=True):
            least, most = self.acked[key], self.acked[key] + self.unsure[key]
            if not least <= count <= most:
                self.wrong(f"{key!r}: {count} increments, answered {least} to {most}")
        if keys:
            print(f"{len(keys)} counters hold {sum(counts)} increments", flush=True)

    def close(self) -> None:
        for crowd in self.crowds:
            if isinstance(crowd, OtherCrowd):
                crowd.close()
        self.poller.close()


def load(run: Run, rig: Rig, server: RealServer) -> None:
    """Run the clients to their end, then hold everybody to their accounts."""
    options = run.options
    rng = random.Random(f"{options.seed}:shim")
    with contextlib.ExitStack() as own:
        own.callback(run.close)
        shim = Shim(run.poller, rng, server.address, TALKS[options.protocol].writes)
        own.callback(shim.close)
        backend = {"max_connections": options.max_connections, "queue_timeout_s": 3.0}
        proxy = rig.proxy(
            shim.address,
            listener={"protocol": options.protocol, "pooling": options.pooling},
            backend={**backend, "queue_max": 10_000},
            slab_bytes=options.slab_bytes,
            slabs=options.slabs,
        )
        rss = proxy.worker.process.memory_info().rss
        run.gather(proxy.sock.getsockname())
        run.storm(shim, server)
        judge(run, shim, proxy, rss)
    run.audit(server)
    print(f"{run.asked} requests, {run.answered} answered well, in {run.spent_s:.1f} s;",
          f"longest wait {run.longest_wait_s:.2f} s")  # fmt: skip
    print(f"connections {shim.accepted}, at one moment {shim.most};",
          f"{len(shim.seen)} writes seen once;", dict(run.outcomes), flush=True)  # fmt: skip


def judge(run: Run, shim: Shim, proxy: Proxy, rss_before: int) -> None:
    """Look at what the worker and the server are left with."""
    limit = run.options.max_connections
    if limit and shim.most > limit:
        run.wrong(f"{shim.most} connections to the server at one moment")
    for token in shim.again:
        run.wrong(f"the write of {token!r} came to the server twice")
    if not proxy.worker.running:
        run.wrong("the worker has died")
        return
    rss = proxy.worker.process.memory_info().rss
    print(f"the worker's memory: {rss_before >> 10} KiB, then {rss >> 10} KiB")
    if rss - rss_before > MAX_GROWTH_BYTES:
        run.wrong(f"the worker has grown by {rss - rss_before >> 20} MiB")
    give_up = monotonic() + DEADLINE_S
    while not _settled(figures := proxy.figures()):
        if monotonic() > give_up:
            run.wrong(f"{figures.sessions} sessions, {figures.slabs_used} slabs that do not end")
            break
        run.poller.turn(0.02)  # the shim goes on relaying
    pool = figures.pools[0]
    print({k: v for k, v in figures.listeners[0].closed.items() if v},
          pool.pins, pool.losses, f"{pool.opened} pipes opened")  # fmt: skip
    for why, count in pool.losses.items():
        if why != "server_lost":  # nothing but that was done to the server
            run.wrong(f"{count} pipes were closed for {why}")
    for line in proxy.worker.complaints()[:MAX_FOUND]:
        run.wrong(f"the worker's log: {line}")


def _settled(figures: Figures) -> bool:
    return figures.sessions == 0 and figures.slabs_used == 0


def check(options: argparse.Namespace) -> Run:
    """Run once; `found` of what it returns is empty when all is well."""
    run = Run(options)
    print(*(f"--{k.replace('_', '-')} {v}" for k, v in vars(options).items() if v), flush=True)
    with tempfile.TemporaryDirectory(prefix="aegis-") as directory:
        server = SERVERS[options.protocol](Path(directory))
        rig = Rig(Path(directory))
        try:
            load(run, rig, server)
            if not run.found:
                rig.finish()
        finally:
            rig.close()
            server.close()
    return run


def options_of(*arguments: str) -> argparse.Namespace:
    """Understand a command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.checker")
    parser.add_argument("--protocol", choices=TALKS, default="resp")
    parser.add_argument("--pooling", choices=("multiplex", "session"), default="multiplex")
    parser.add_argument("--requests", type=int, default=100_000, help="answered ones")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--processes", type=int, default=0, help="of clients; 0 = this one")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--max-connections", type=int, default=4)
    parser.add_argument("--slab-bytes", type=int, default=65_536)
    parser.add_argument("--slabs", type=int, default=256)
    parser.add_argument("--big-bytes", type=int, default=200_000)
    parser.add_argument("--kill", type=float, default=0.05, help="chance of a server's restart")
    parser.add_argument("--cut", type=float, default=0.5, help="chance of a cut pipe")
    parser.add_argument("--only", default="", help="kinds of requests, with commas")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(1 if check(options_of(*sys.argv[1:])).found else 0)

"""Load with chance and faults; every reply is checked: who asked, in which order, for what.

    clients (asyncio) ─▶ worker (a real process) ─▶ Shim (splits, cuts) ─▶ the real server

    python -m tests.faults.checker --protocol resp --requests 1000000 --clients 500 --seed N

The seed, printed first, decides what every client says and does; the kernel decides when.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from pathlib import Path
from time import monotonic

from aegis.figures import Figures
from tests.faults.asks import Talk
from tests.faults.client import Accounts, Client
from tests.faults.http1_talk import Http1Talk
from tests.faults.line_talk import LineTalk
from tests.faults.memcached_talk import MemcachedTalk
from tests.faults.resp_talk import RespTalk
from tests.faults.servers import Chronos, Memcached, RealServer, Redis
from tests.faults.shim import Shim
from tests.harness import Proxy, Rig

PROTOCOLS: dict[str, tuple[type[Talk], type[RealServer]]] = {
    "resp": (RespTalk, Redis),
    "memcached": (MemcachedTalk, Memcached),
    "line": (LineTalk, Chronos),
    "http1": (Http1Talk, Chronos),
}
MAX_FOUND = 20
MAX_GROWTH_BYTES = 64 << 20
"""Of the worker over a run: its slabs are there from the start, so 500 clients' sessions."""


class Run(Accounts):
    """One run: its options, its clients' accounts and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.only = frozenset(filter(None, options.only.split(",")))
        self.give_up = monotonic() + 60 * options.minutes

    @property
    def over(self) -> bool:
        enough = self.answered >= self.options.requests or len(self.found) > MAX_FOUND
        return enough or monotonic() > self.give_up

    async def seat(self, number: int, address: tuple[str, int]) -> None:
        """Be one client after another."""
        rng = random.Random(f"{self.options.seed}:{number}")
        make = PROTOCOLS[self.options.protocol][0]
        turn = 0
        while not self.over:
            turn += 1
            talk = make(b"c%d-%d" % (number, turn), rng, self.options.big_bytes, self.only)
            client = Client(self, address, talk, rng)
            await client.serve()
            if client.broken:  # the server may be gone: as clients do, try again in a moment
                await asyncio.sleep(rng.uniform(0.01, 0.1))

    async def storm(self, shim: Shim, server: RealServer) -> None:
        """Kill the server and cut pipes."""
        rng = random.Random(f"{self.options.seed}:storm")
        while not self.over:
            await asyncio.sleep(rng.uniform(0.05, 0.6))
            if server.survives and rng.random() < self.options.kill:
                await asyncio.to_thread(server.restart)
                self.outcomes["server killed"] += 1
            elif rng.random() < self.options.cut and shim.cut_one():
                self.outcomes["pipe cut"] += 1

    def audit(self, server: RealServer) -> None:
        """Compare what the server has counted with what was answered."""
        for key in self.acked.keys() | self.unsure.keys():
            count = server.count(key)
            least, most = self.acked[key], self.acked[key] + self.unsure[key]
            if not least <= count <= most:
                self.wrong(f"{key!r}: {count} increments, answered {least} to {most}")


async def load(run: Run, rig: Rig, server: RealServer) -> None:
    """Run the clients to their end, then hold everybody to their accounts."""
    options = run.options
    shim = Shim(random.Random(f"{options.seed}:shim"), server.address)
    await shim.open()
    backend = {"max_connections": options.max_connections, "queue_timeout_s": 3.0}
    proxy = rig.proxy(
        shim.address,
        listener={"protocol": options.protocol, "pooling": options.pooling},
        backend={**backend, "queue_max": 10_000},
        slab_bytes=options.slab_bytes,
        slabs=options.slabs,
    )
    rss = proxy.worker.process.memory_info().rss
    address = proxy.sock.getsockname()
    began = monotonic()
    seats = [asyncio.ensure_future(run.seat(n, address)) for n in range(options.clients)]
    storm = asyncio.ensure_future(run.storm(shim, server))
    try:
        await asyncio.gather(*seats)
        spent_s = monotonic() - began
        await storm
        await asyncio.to_thread(judge, run, shim, proxy, rss)  # the shim goes on relaying
    finally:
        for task in (*seats, storm):
            task.cancel()
        await asyncio.gather(*seats, storm, return_exceptions=True)
        await shim.close()
    run.audit(server)
    print(f"{run.asked} requests, {run.answered} answered well, in {spent_s:.1f} s")
    print(f"connections {shim.accepted}, at one moment {shim.most};", dict(run.outcomes))


def judge(run: Run, shim: Shim, proxy: Proxy, rss_before: int) -> None:
    """Look at what the worker and the server are left with."""
    limit = run.options.max_connections
    if limit and shim.most > limit:
        run.wrong(f"{shim.most} connections to the server at one moment")
    if not proxy.worker.running:
        run.wrong("the worker has died")
        return
    rss = proxy.worker.process.memory_info().rss
    print(f"the worker's memory: {rss_before >> 10} KiB, then {rss >> 10} KiB")
    if rss - rss_before > MAX_GROWTH_BYTES:
        run.wrong(f"the worker has grown by {rss - rss_before >> 20} MiB")
    try:
        figures = proxy.figures_when(_settled, "every session to end and every slab to be back")
    except AssertionError as error:
        run.wrong(str(error).partition("\n")[0])
        figures = proxy.figures()
    print({k: v for k, v in figures.listeners[0].closed.items() if v}, figures.pools[0])
    for line in proxy.worker.complaints()[:MAX_FOUND]:
        run.wrong(f"the worker's log: {line}")


def _settled(figures: Figures) -> bool:
    return figures.sessions == 0 and figures.slabs_used == 0


def check(options: argparse.Namespace) -> Run:
    """Run once; `found` of what it returns is empty when all is well."""
    run = Run(options)
    print(*(f"--{k.replace('_', '-')} {v}" for k, v in vars(options).items() if v), flush=True)
    with tempfile.TemporaryDirectory(prefix="aegis-") as directory:
        server = PROTOCOLS[options.protocol][1](Path(directory))
        rig = Rig(Path(directory))
        try:
            asyncio.run(load(run, rig, server))
            if not run.found:
                rig.finish()
        finally:
            rig.close()
            server.close()
    return run


def options_of(*arguments: str) -> argparse.Namespace:
    """Understand a command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.checker")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="resp")
    parser.add_argument("--pooling", choices=("multiplex", "session"), default="multiplex")
    parser.add_argument("--requests", type=int, default=100_000, help="answered ones")
    parser.add_argument("--clients", type=int, default=50)
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

"""Reloads, upgrades, kills and scalings under clients that reconnect: what do they notice?

    python -m ops.bench.replacements [--reloads 1000] [--upgrades 200] [--kills 200]
        [--controllers 50] [--scalings 100] [--clients 200]

A row per kind of change, then HAProxy's reload under the raw half of the same load. A killed
worker's own sessions break, and no more: at most as many as clients were on it at that moment.
Exit code 1 if anything was refused, reset or failed otherwise.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from aegis import bus
from aegis.errors import BusError
from aegis.messages import (
    Reload,
    Request,
    Scale,
    StatusRequest,
    Upgrade,
)
from aegis.status_messages import (
    Status,
)
from ops.bench.echo import echo_server
from ops.bench.processes import free_port
from ops.bench.reconnecting import Counts, load
from ops.conformance.sides import wait_for_port

CTL = Path(sys.executable).with_name("aegis-ctl")
WORKERS = 2
DEADLINE_S = 60.0
KILLED_AMONG, KILL_PAUSE_S = 8, 2.0  # a slot dies every 16 s, and has a clean record by then
REQUESTS = 10  # of a multiplexed client's session


class Proxy:
    """One Aegis with a raw and a multiplexed listener."""

    def __init__(self, directory: Path, server_port: int) -> None:
        self.directory = directory
        self.raw, self.shared = free_port(), free_port()
        self.config = directory / "aegis.toml"
        self.runtime_dir = directory / "run"
        self.config.write_text(
            f"""
            workers = {WORKERS}
            hard_stop_s = 20
            [[listener]]
            name = "raw"
            bind = "127.0.0.1:{self.raw}"
            backend = "echo"
            [[listener]]
            name = "shared"
            bind = "127.0.0.1:{self.shared}"
            backend = "echo"
            protocol = "line"
            pooling = "multiplex"
            [[backend]]
            name = "echo"
            servers = ["127.0.0.1:{server_port}"]
            """
        )

    def ctl(self, *arguments: str) -> None:
        """Run aegis-ctl.

        Raises:
            RuntimeError: it has failed.
        """
        result = subprocess.run(
            [CTL, *arguments, "--runtime-dir", str(self.runtime_dir)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"aegis-ctl {arguments[0]}: {result.stderr}")

    def start(self) -> None:
        """Start, or take over what a killed controller has left."""
        self.ctl("start", "--detach", "--no-exporter", "--config", str(self.config))

    def ask(self, request: Request) -> None:
        """Send a request as aegis-ctl does; many of them do not need a process each."""
        bus.ask(self.runtime_dir, request, DEADLINE_S)

    def status(self) -> Status | None:
        """Return the status, None while the controller executes itself."""
        with contextlib.suppress(BusError):
            reply = bus.ask(self.runtime_dir, StatusRequest(), 2.0)
            return reply if isinstance(reply, Status) else None
        return None

    def settle(self, changed: Callable[[Status], bool]) -> Status:
        """Wait until a change is through: every slot has the worker that is wanted.

        Raises:
            TimeoutError: it is not in time.
        """
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            status = self.status()
            if status is not None and changed(status):
                current = [w for w in status.workers if not w.retired]
                if all(w.phase == "serving" and not w.outdated for w in current):
                    return status
            time.sleep(0.01)
        raise TimeoutError("a change is not through")


def reload(proxy: Proxy) -> None:
    """Replace every worker."""
    proxy.ask(Reload(force=True))
    proxy.settle(lambda _: True)


def upgrade(proxy: Proxy) -> None:
    """Replace the controller's program and every worker."""
    before = proxy.settle(lambda _: True).controller.upgrades
    proxy.ask(Upgrade(sys.executable))
    proxy.settle(lambda status: status.controller.upgrades > before)


def scale(proxy: Proxy) -> None:
    """2 → 8 → 1 → 2 workers."""
    for count in (8, 1, 2):
        proxy.ask(Scale(count))
        proxy.settle(lambda s, n=count: len({w.slot for w in s.workers}) == n)  # type: ignore[misc]


def kill(proxy: Proxy) -> None:
    """Kill a worker with SIGKILL, each slot's in turn, so that none is taken for flapping."""
    workers = [w for w in proxy.settle(lambda _: True).workers if not w.retired]
    victim = min(workers, key=lambda w: (w.restarts, w.slot))
    os.kill(victim.pid or 0, signal.SIGKILL)
    proxy.settle(lambda s: s.workers[victim.slot].pid not in {victim.pid, None})


def kill_controller(proxy: Proxy) -> None:
    """Kill the controller with SIGKILL and start another, which must adopt every worker.

    Raises:
        RuntimeError: it did not.
    """
    before = proxy.settle(lambda _: True)
    pidfd = os.pidfd_open(before.controller.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    proxy.start()
    after = proxy.settle(lambda _: True)
    if {w.pid for w in after.workers if not w.retired} != {w.pid for w in before.workers}:
        raise RuntimeError("a worker was not adopted")


def measure(
    what: str,
    count: int,
    change: Callable[[], None],
    *targets: tuple[int, int, int],
    pause_s: float = 0.0,
) -> list[Counts]:
    """Change something so many times under load; prints a row and returns the counts."""
    took = []
    with load(*targets) as results:
        time.sleep(1.0)  # all clients have begun
        for _ in range(count):
            began = time.monotonic()
            change()
            took.append(time.monotonic() - began)
            time.sleep(max(0.0, pause_s - took[-1]))
        time.sleep(1.0)
    for name, counts in zip(("raw", "multiplex"), results, strict=False):
        print(
            f"{what:>18} {count:>5} {name:>9} {counts.requests:>9} {counts.refused:>7} "
            f"{counts.reset:>5} {counts.failed:>6} {counts.closed_between:>7} "
            f"{counts.slowest_s:>9.2f} {statistics.median(took):>9.2f} {max(took):>9.2f}",
            flush=True,
        )
    return results


@contextlib.contextmanager
def haproxy(directory: Path, server_port: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run HAProxy as its manual says for seamless reloads; yields its port and the master."""
    port = free_port()
    config = directory / "haproxy.cfg"
    config.write_text(
        f"""
global
    nbthread {WORKERS}
    stats socket {directory}/haproxy.sock expose-fd listeners
    hard-stop-after 20s
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port} backlog 4096
    server one 127.0.0.1:{server_port}
"""
    )
    master = subprocess.Popen(["haproxy", "-W", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port, psutil.Process(master.pid)
    finally:
        master.terminate()
        master.wait(30)


def reload_haproxy(master: psutil.Process) -> None:
    """Reload and wait until a new worker runs.

    Raises:
        TimeoutError: none does.
    """
    before = {child.pid for child in master.children()}
    master.send_signal(signal.SIGUSR2)
    give_up = time.monotonic() + DEADLINE_S
    while not {child.pid for child in master.children()} - before:
        if time.monotonic() > give_up:
            raise TimeoutError("no new HAProxy")
        time.sleep(0.01)
    time.sleep(0.2)  # it does not say when it serves


def main() -> int:
    """Print the rows; exit code 1 if a client noticed what it must not."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("reloads", 1000), ("upgrades", 200), ("kills", 200), ("controllers", 50),
        ("scalings", 100), ("clients", 200),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    half = options.clients // 2
    wrong = 0
    print(
        f"{'change':>18} {'times':>5} {'clients':>9} {'requests':>9} {'refused':>7} {'reset':>5} "
        f"{'failed':>6} {'between':>7} {'slowest s':>9} {'median s':>9} {'longest s':>9}"
    )
    changes: list[tuple[str, int, Callable[[Proxy], None]]] = [
        ("reload", options.reloads, reload),
        ("upgrade", options.upgrades, upgrade),
        ("scale 2-8-1-2", options.scalings, scale),
        ("kill worker", options.kills, kill),
        ("kill controller", options.controllers, kill_controller),
    ]
    with tempfile.TemporaryDirectory(prefix="aegis-") as name, echo_server() as server_port:
        proxy = Proxy(Path(name), server_port)
        proxy.start()
        try:
            for what, count, change in changes:
                if not count:
                    continue
                workers = KILLED_AMONG if change is kill else WORKERS
                proxy.ask(Scale(workers))
                proxy.settle(lambda s, n=workers: len(s.workers) == n)  # type: ignore[misc]
                targets = (proxy.raw, half, 1), (proxy.shared, half, REQUESTS)
                pause_s = KILL_PAUSE_S if change is kill else 0.0
                results = measure(what, count, lambda c=change: c(proxy), *targets, pause_s=pause_s)  # type: ignore[misc]
                refused = sum(counts.refused for counts in results)
                wrong += refused if change is kill else sum(counts.wrong for counts in results)
        finally:
            proxy.ctl("stop", "--now")
        if options.reloads and shutil.which("haproxy"):
            with haproxy(Path(name), server_port) as (port, master):
                count = options.reloads
                measure("HAProxy reload", count, lambda: reload_haproxy(master), (port, half, 1))
    print("nothing that must not happen" if not wrong else f"{wrong} that must not happen")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Servers are killed, stopped, restarted, drained, added and removed: what do clients notice?

    python -m ops.bench.failover [--rounds 3] [--protocols resp,line] [--fronts aegis,haproxy]
        [--scenarios kill,stop,restart,drain,add,remove]

Four real servers behind each proxy, configured alike (failover_fronts.py), under clients that count
every failure (failover_load.py). A row per scenario and proxy: errors, how long it took until the
proxy knew, until no new session went there, and until the server had sessions again. Exit code 1 if
Aegis had more errors than the better of the others in any scenario.
"""

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ops.bench.failover_fronts import FRONTS, NAME, Front, missing, version
from ops.bench.failover_load import Options, Seen, load
from ops.bench.failover_servers import Node, nodes, wait_for
from ops.bench.failure import MeasurementError
from ops.bench.name_server import NameServer, name_server

COUNT = 4
OUTAGE_S = 3.0
SETTLE_S = 1.5
DETECTION_DEADLINE_S = 20.0


@dataclass
class Result:
    """One scenario, once."""

    seen: Seen
    events: dict[str, float]
    """What happened when: gone, known, back."""
    known_s: float = 0.0
    """From the event until the proxy knew of it."""
    stray_s: float = 0.0
    """From the event to the last short session that the server answered, if it could."""
    back_s: float = 0.0
    """From the server's return until it answered a short session."""


@dataclass
class Scene:
    """What a scenario has at hand."""

    front: Front
    nodes: list[Node]
    names: NameServer
    outage_s: float
    events: dict[str, float] = field(default_factory=dict)
    known_s: float = 0.0

    @property
    def victim(self) -> Node:
        """The server that is harmed."""
        return self.nodes[1]

    def mark(self, event: str) -> None:
        """Note when something happens."""
        self.events[event] = time.monotonic()

    def wait_until_known(self, *, up: bool) -> None:
        """Wait until the proxy holds the victim for that."""
        what = f"{self.front.name} knows that {self.victim.name} is {'up' if up else 'down'}"
        took = wait_for(lambda: self.front.is_up(self.victim) is up, what, DETECTION_DEADLINE_S)
        if not up or not self.known_s:
            self.known_s = took
            self.mark("known")


def kill(scene: Scene) -> None:
    """Kill a server; start it again after a while."""
    scene.victim.kill()
    scene.mark("gone")
    scene.wait_until_known(up=False)
    time.sleep(scene.outage_s)
    scene.victim.start()
    scene.mark("back")
    scene.wait_until_known(up=True)


def stop(scene: Scene) -> None:
    """Stop a server (SIGSTOP): its kernel accepts, nobody answers."""
    scene.mark("gone")
    scene.victim.signal(signal.SIGSTOP)
    scene.wait_until_known(up=False)
    time.sleep(scene.outage_s)
    scene.victim.signal(signal.SIGCONT)
    scene.mark("back")
    scene.wait_until_known(up=True)


def restart(scene: Scene) -> None:
    """Kill a server and start it again at once."""
    scene.victim.kill()
    scene.mark("gone")
    scene.victim.start()
    scene.mark("back")
    time.sleep(scene.outage_s)
    scene.wait_until_known(up=True)


def drain(scene: Scene) -> None:
    """Drain a server by an operator's word, and let it come back."""
    scene.mark("gone")
    scene.front.drain(scene.victim)
    scene.wait_until_known(up=False)
    time.sleep(scene.outage_s)
    scene.front.ready(scene.victim)
    scene.mark("back")
    scene.wait_until_known(up=True)


def add(scene: Scene) -> None:
    """Add a server through DNS."""
    scene.names.hosts(NAME, *(node.host for node in scene.nodes))
    scene.mark("back")
    scene.wait_until_known(up=True)
    time.sleep(scene.outage_s)


def remove(scene: Scene) -> None:
    """Remove a server through DNS; it goes on running."""
    scene.mark("gone")
    scene.names.hosts(NAME, *(node.host for node in scene.nodes if node is not scene.victim))
    scene.wait_until_known(up=False)
    time.sleep(scene.outage_s)


SCENARIOS: dict[str, Callable[[Scene], None]] = {
    "kill": kill,
    "stop": stop,
    "restart": restart,
    "drain": drain,
    "add": add,
    "remove": remove,
}
BY_DNS = {"add", "remove"}


def run(
    kind: type[Front],
    scenario: str,
    protocol: str,
    *,
    patience_s: float = 3.0,
    outage_s: float = OUTAGE_S,
) -> Result:
    """Run a scenario once, with fresh servers and a fresh proxy.

    Args:
        kind: the proxy.
        scenario: one of SCENARIOS.
        protocol: which servers.
        patience_s: how long clients wait.
        outage_s: how long what is done to a server lasts.
    """
    with contextlib.ExitStack() as own:
        directory = Path(own.enter_context(tempfile.TemporaryDirectory(prefix="failover-")))
        names = own.enter_context(name_server(directory, ttl_s=1))
        servers = own.enter_context(nodes(protocol, COUNT, directory))
        dns = names.port if scenario in BY_DNS else 0
        known = [n for n in servers if scenario != "add" or n is not servers[1]]
        names.hosts(NAME, *(node.host for node in known))
        front = own.enter_context(kind(protocol, servers, directory, dns).run())
        wait_for(lambda: all(front.is_up(node) for node in known), "all servers are up")
        scene = Scene(front, servers, names, outage_s)
        options = Options(front.port, protocol, patience_s=patience_s)
        with load(options) as seen:
            time.sleep(2.5)  # all clients have begun
            SCENARIOS[scenario](scene)
            time.sleep(SETTLE_S)
    return _result(scene, seen)


def _result(scene: Scene, seen: Seen) -> Result:
    served = seen.served.get(scene.victim.name, [])
    gone, back = scene.events.get("gone"), scene.events.get("back")
    result = Result(seen, scene.events, scene.known_s)
    if gone is not None:
        strays = [at for at in served if gone <= at and (back is None or at < back)]
        result.stray_s = max(strays, default=gone) - gone
    if back is not None:
        after = [at for at in served if at >= back]
        result.back_s = min(after, default=float("inf")) - back
    return result


def rounds_of(kind: type[Front], scenario: str, protocol: str, rounds: int) -> int:
    """Run a scenario some times and print its row; returns the errors of all rounds."""
    results = [run(kind, scenario, protocol) for _ in range(rounds)]
    errors: dict[str, int] = {}
    for result in results:
        for what, count in result.seen.counts().items():
            errors[what] = errors.get(what, 0) + count
    total = sum(errors.values())
    median = {
        name: statistics.median(getattr(result, name) for result in results)
        for name in ("known_s", "stray_s", "back_s")
    }
    answers = sum(result.seen.answers for result in results)
    what = ", ".join(f"{count} {name}" for name, count in sorted(errors.items())) or "-"
    print(
        f"{protocol:>8} {scenario:>8} {kind.name:>16} {answers:>8} {total:>6} "
        f"{median['known_s']:>7.2f} {median['stray_s']:>8.2f} {median['back_s']:>6.2f}  {what}",
        flush=True,
    )
    return total


def compare(
    protocols: list[str], scenarios: list[str], chosen: list[type[Front]], rounds: int
) -> int:
    """Print all rows; returns in how many scenarios Aegis was worse than the better of others."""
    worse = 0
    for protocol in protocols:
        for scenario in scenarios:
            errors = {kind.name: rounds_of(kind, scenario, protocol, rounds) for kind in chosen}
            peers = [count for name, count in errors.items() if not name.startswith("aegis")]
            ours = [count for name, count in errors.items() if name.startswith("aegis")]
            if peers and ours and max(ours) > min(peers):
                worse += 1
                print(f"{protocol} {scenario}: Aegis had more errors than the better of the others")
    return worse


def _listed(text: str, known: list[str]) -> list[str]:
    names = [name for name in text.split(",") if name]
    if wrong := [name for name in names if name not in known]:
        raise SystemExit(f"unknown: {', '.join(wrong)}; known: {', '.join(known)}")
    return names or known


def main() -> int:
    """Print the rows; exit code 1 if Aegis was worse anywhere."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    for name in ("protocols", "fronts", "scenarios"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args()
    protocols = _listed(options.protocols, ["resp", "line"])
    scenarios = _listed(options.scenarios, list(SCENARIOS))
    names = _listed(options.fronts, [front.name for front in FRONTS])
    chosen = []
    for front in FRONTS:
        if front.name not in names:
            continue
        if why := missing(front):
            print(f"{front.name} is left out: {why}")
            continue
        print(f"{front.name}: {version(front)}")
        chosen.append(front)
    print(
        f"{'protocol':>8} {'scenario':>8} {'proxy':>16} {'answers':>8} {'errors':>6} "
        f"{'known s':>7} {'strays s':>8} {'back s':>6}  what clients met, {options.rounds} round(s)"
    )
    try:
        worse = compare(protocols, scenarios, chosen, options.rounds)
    except MeasurementError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 2
    print(
        "Aegis had no more errors than the better of the others" if not worse else f"{worse} worse"
    )
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())

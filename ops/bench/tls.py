"""TLS ended at the listener beside HAProxy: handshakes, round trips, bytes, by the CPU they cost.

    python -m ops.bench.tls [--seconds 5] [--rounds 3]

One worker, one thread; both speak TLS 1.3 with the same certificate (ECDSA, P-256) to one client
process, and plain text to one echo server. Each handshake is a full one. The client is Python and
slower than either proxy, so what counts is the CPU time of the proxy, not the wall clock.
"""

import argparse
import contextlib
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import trustme

from ops.bench import cpu, peer_configs
from ops.bench.echo import echo_server
from ops.bench.processes import LOAD_CPU, PROXY_CPU, free_port, running, wait_until_answering

NAME = "db.example.org"
BLOCK = b"x" * 65_536


class Front:
    """A proxy that ends TLS, and who trusts it."""

    def __init__(self, port: int, context: ssl.SSLContext, process: psutil.Process) -> None:
        self.port = port
        self.pids = cpu.family(process)
        self._context = context

    def connect(self) -> ssl.SSLSocket:
        """Connect with a full handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(plain, server_hostname=NAME)


@contextlib.contextmanager
def front(name: str, server_port: int) -> Iterator[Front]:
    """Run a proxy that ends TLS."""
    with TemporaryDirectory(prefix="bench-") as text:
        directory, port = Path(text), free_port()
        authority = trustme.CA()
        issued = authority.issue_cert(NAME)
        pem = directory / "both.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(pem)
        if name == "aegis":
            conf = directory / "aegis.toml"
            tls = f'tls = {{ certificate = "{pem}", key = "{pem}", min_version = "1.3" }}\n'
            plain = peer_configs.aegis(port, server_port, "raw", "off")
            conf.write_text(plain.replace("[[backend]]", f"{tls}[[backend]]"))
            where = ["--config", str(conf), "--runtime-dir", str(directory / "run")]
            command = [sys.executable, "-P", "-m", "control.main", *where, "--no-exporter"]
        else:
            conf = directory / "haproxy.cfg"
            tls = f"ssl crt {pem} ssl-min-ver TLSv1.3 backlog"
            plain = peer_configs.haproxy(port, server_port)
            conf.write_text(plain.replace(" backlog", f" {tls}", 1))
            command = ["haproxy", "-db", "-f", str(conf)]
        context = ssl.create_default_context()
        authority.configure_trust(context)
        log = directory / "log"
        with running(command, PROXY_CPU, log) as process:
            wait_until_answering(
                name, process, lambda: Front(port, context, process).connect().close(), log
            )
            yield Front(port, context, process)


def handshakes(proxy: Front, until: float) -> float:
    """Connect and leave; returns how often."""
    count = 0
    while time.monotonic() < until:
        with proxy.connect():
            count += 1
    return count


def round_trips(proxy: Front, until: float) -> float:
    """Ask and hear 64 bytes; returns how often."""
    count = 0
    with proxy.connect() as client:
        while time.monotonic() < until:
            client.sendall(BLOCK[:64])
            client.recv(64)
            count += 1
    return count


def megabytes(proxy: Front, until: float) -> float:
    """Send blocks and hear them; returns MB each way."""
    count = 0
    with proxy.connect() as client:
        while time.monotonic() < until:
            client.sendall(BLOCK)
            left = len(BLOCK)
            while left:
                left -= len(client.recv(left))
            count += 1
    return count * len(BLOCK) / 1e6


LOADS: tuple[Callable[[Front, float], float], ...] = (handshakes, round_trips, megabytes)


def measure(name: str, server_port: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Return load -> (how much a second, microseconds of the proxy's CPU for each)."""
    found = {}
    with front(name, server_port) as proxy:
        for load in LOADS:
            before, began = cpu.read(proxy.pids), time.monotonic()
            count = load(proxy, began + seconds)
            took = time.monotonic() - began
            spent = cpu.spent(before, cpu.read(proxy.pids)).total_s
            found[load.__name__] = count / took, spent / count * 1e6
    return found


def main() -> None:
    """Measure both in turn and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, list[dict[str, tuple[float, float]]]] = {"aegis": [], "haproxy": []}
    with echo_server(LOAD_CPU) as server_port:
        for _ in range(options.rounds):
            for name, rounds in results.items():
                rounds.append(measure(name, server_port, options.seconds))
    print(f"{'':12}{'aegis /s':>12}{'haproxy /s':>12}{'aegis us':>12}{'haproxy us':>12}")
    for load in LOADS:
        medians = [
            statistics.median(each[load.__name__][i] for each in results[name])
            for i in (0, 1)
            for name in ("aegis", "haproxy")
        ]
        print(f"{load.__name__:12}" + "".join(f"{value:12,.1f}" for value in medians))


if __name__ == "__main__":
    main()

"""A name server on loopback whose answers change: Debian's dnsmasq, for `.test`."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from ops.bench.failover_servers import wait_for
from ops.bench.failure import MeasurementError
from ops.bench.peers import find
from ops.bench.processes import free_port


class NameServer:
    """What it says is what was set last, and is good for `ttl_s`."""

    def __init__(self, directory: Path, port: int) -> None:
        """Know nothing yet, and do not run.

        Raises:
            MeasurementError: there is no dnsmasq.
        """
        program = find("dnsmasq")
        if program is None:
            raise MeasurementError("dnsmasq is not installed: apt-get install dnsmasq-base")
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.ttl_s = 0
        self._config = directory / "dnsmasq.conf"
        self._command = [program, f"--conf-file={self._config}", "--pid-file="]
        self._child: subprocess.Popen[bytes] | None = None

    def set(self, *records: str) -> None:
        """Answer with these: options of dnsmasq, such as `host-record=db.test,127.0.0.1`."""
        self.stop()
        lines = [
            *("keep-in-foreground", "no-resolv", "no-hosts", "bind-interfaces", "no-daemon"),
            *(f"port={self.port}", "listen-address=127.0.0.1", "user=", "group="),
            *("local=/test/", "cache-size=0", f"local-ttl={self.ttl_s}", "log-facility=/dev/null"),
            *records,
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._child = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        wait_for(self._answers, "dnsmasq answers")

    def hosts(self, name: str, *addresses: str) -> None:
        """Answer with these addresses for a name."""
        self.set(*(f"host-record={name},{address}" for address in addresses))

    def stop(self) -> None:
        """Answer nothing any more."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def _answers(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            raise MeasurementError(f"dnsmasq has ended: {self._child.returncode}")
        query = dns.message.make_query("any.test", "A")
        with contextlib.suppress(OSError, dns.exception.DNSException):
            dns.query.udp(query, "127.0.0.1", 0.2, self.port)
            return True
        return False


@contextlib.contextmanager
def name_server(directory: Path, port: int = 0, ttl_s: int = 0) -> Iterator[NameServer]:
    """Have one until the context ends."""
    server = NameServer(directory, port or free_port())
    server.ttl_s = ttl_s
    try:
        server.set()
        yield server
    finally:
        server.stop()

"""A real name server on loopback: Debian's dnsmasq, with records that a test changes."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import dns.exception
import dns.message
import dns.query

from tests.harness import wait_until
from tests.proxy import needs, reserve_port


class Dnsmasq:
    """A name server for `.test`; what it says is what was set last."""

    def __init__(self, directory: Path, port: int, program: str) -> None:
        self._directory = directory
        self._program = program
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._child: subprocess.Popen[bytes] | None = None
        self._records: list[str] = []
        self.ttl_s = 0

    def set(self, *records: str) -> None:
        """Answer with these: options of dnsmasq, such as `host-record=db.test,127.0.0.1`."""
        self._records = list(records)
        self.stop()
        self.start()

    def hosts(self, name: str, *addresses: str) -> None:
        """Answer with these addresses for a name."""
        self.set(*(f"host-record={name},{address}" for address in addresses))

    def start(self) -> None:
        """Serve."""
        config = self._directory / "dnsmasq.conf"
        lines = [
            *("keep-in-foreground", "no-resolv", "no-hosts", "bind-interfaces", "no-daemon"),
            *(f"port={self.port}", "listen-address=127.0.0.1", "user=", "group="),
            *("local=/test/", "cache-size=0", f"local-ttl={self.ttl_s}", "log-facility=/dev/null"),
            *self._records,
        ]
        config.write_text("\n".join(lines) + "\n")
        self._child = subprocess.Popen(
            [self._program, f"--conf-file={config}", "--pid-file="], stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, "dnsmasq answers")

    def stop(self) -> None:
        """Answer nothing any more; its port stays reserved."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def _answers(self) -> bool:
        query = dns.message.make_query("any.test", "A")
        try:
            dns.query.udp(query, "127.0.0.1", 0.2, self.port)
        except (OSError, dns.exception.DNSException):
            assert self._child is not None
            assert self._child.poll() is None, "dnsmasq has ended"
            return False
        return True


@contextlib.contextmanager
def dnsmasq() -> Iterator[Dnsmasq]:
    """Run a name server that knows nothing yet."""
    (program,) = needs("dnsmasq")
    with contextlib.ExitStack() as own:
        directory = own.enter_context(TemporaryDirectory(prefix="dns-"))
        server = Dnsmasq(Path(directory), reserve_port(own), program)
        own.callback(server.stop)
        server.start()
        yield server

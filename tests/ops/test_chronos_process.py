"""Chronos as a process: how it starts, ends, and refuses to start; and the harness of its tests."""

import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]

if importlib.util.find_spec("rocksdict") is None and not os.environ.get("CI"):
    pytest.skip("rocksdict is not installed: pip install '.[demo]'", allow_module_level=True)


class Chronos(NamedTuple):
    """A running server."""

    process: subprocess.Popen[bytes]
    first_line: str
    host: str
    port: int
    stderr: Path

    def connect(self, receive_buffer_bytes: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family)
        sock.settimeout(DEADLINE_S)
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.connect((self.host, self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self, sent: bytes) -> bytes:
        """Send on a new connection, shut down our side, return all that comes back."""
        with self.connect() as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def rss_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def file_writes(self) -> int:
        """Return how often it has called write(2) on files; sends on sockets do not count."""
        lines = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("syscw:"))

    def sockets(self) -> int:
        """Return how many sockets it has open."""
        found = 0
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found += str(fd.readlink()).startswith("socket:")
        return found

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    taken = bytearray()
    while len(taken) < count:
        piece = sock.recv(count - len(taken))
        assert piece, f"the connection ended after {bytes(taken[-200:])!r}"
        taken += piece
    return bytes(taken)


def command(data: Path, listen: str = "127.0.0.1:0") -> list[str]:
    return [sys.executable, "-m", "ops.chronos", "--listen", listen, "--data", str(data)]


@contextmanager
def running(data: Path, listen: str = "127.0.0.1:0") -> Iterator[Chronos]:
    """Run a server on a port the kernel chooses; nothing of it is left afterwards."""
    errors = data.parent / f"{data.name}.stderr"
    errors.parent.mkdir(parents=True, exist_ok=True)
    with (
        errors.open("ab") as stderr,
        subprocess.Popen(
            command(data, listen), cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
            line = process.stdout.readline().decode() if ready else ""
            assert line.startswith("chronos: listening on "), (line, errors.read_text())
            host, _, port = line.split()[3].rstrip(",").rpartition(":")
            yield Chronos(process, line, host.strip("[]"), int(port), errors)
        finally:
            process.kill()


def refused(*arguments: str) -> str:
    """Start a server that cannot start; return its one line of complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.chronos", *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
        text=True,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("chronos: ")
    return lines[0]


def test_the_first_line_tells_the_real_port_and_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "made" / "when" / "missing"
    with running(data) as chronos:
        assert chronos.port > 0
        expected = f"chronos: listening on 127.0.0.1:{chronos.port}, data in {data}\n"
        assert chronos.first_line == expected
        assert data.is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_clients_connected(tmp_path: Path, number: int) -> None:
    data = tmp_path / "db"
    with running(data) as chronos, chronos.connect() as sock:
        sock.sendall(b"SET k v\n")
        assert read_exactly(sock, 3) == b"OK\n"
        assert chronos.end(number) == 0
        assert sock.recv(1) == b""
        assert chronos.stderr.read_bytes() == b""
    with running(data) as chronos:
        assert chronos.ask(b"GET k\n") == b"v\n"


def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with running(tmp_path / "db", "[::1]:0") as chronos:
        assert f"[::1]:{chronos.port}," in chronos.first_line
        assert chronos.ask(b"PING\n") == b"PONG\n"


def test_a_port_in_use_is_told_and_the_data_is_not_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        complaint = refused("--listen", address, "--data", str(tmp_path / "db"))
    assert address in complaint
    assert "in use" in complaint
    assert not (tmp_path / "db").exists()


def test_a_data_directory_in_use_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "db"):
        complaint = refused("--listen", "127.0.0.1:0", "--data", str(tmp_path / "db"))
    assert str(tmp_path / "db") in complaint
    assert "lock" in complaint.lower()


def test_a_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    complaint = refused("--listen", "127.0.0.1:0", "--data", str(tmp_path / "file"))
    assert str(tmp_path / "file") in complaint
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "listen",
    ["", "8080", ":8080", "localhost:", "h:x", "h:65536", "h:-1", "::1:80", "[::1]80", "[h]:80"],
)
def test_an_address_that_is_none_is_told(tmp_path: Path, listen: str) -> None:
    complaint = refused(f"--listen={listen}", "--data", str(tmp_path / "db"))
    assert "HOST:PORT" in complaint


def test_a_host_that_does_not_resolve_is_told(tmp_path: Path) -> None:
    complaint = refused("--listen", "no-such-host.invalid:80", "--data", str(tmp_path / "db"))
    assert "no-such-host.invalid:80" in complaint

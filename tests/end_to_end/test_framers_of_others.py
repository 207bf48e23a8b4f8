"""The example of docs/framers.md: installed as a package of its own, run by a whole Aegis."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import DEADLINE_S, bound_socket, listening_address, receive, receive_all
from tests.proxy import Aegis, Proxies, connect

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "framers" / "example_package"
GUIDE = ROOT / "docs" / "framers.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example as anybody's package, without a network; returns where it is."""
    directory = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, directory / "source")  # the build writes into it
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation"),
            *("--target", str(directory / "site"), str(source)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return directory / "site"


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def read_frame(sock: socket.socket) -> bytes:
    return receive(sock, int.from_bytes(receive(sock, 4), "big"))


class Upper:
    """A server of the protocol: says every body in capitals. Counts connections."""

    def __init__(self) -> None:
        self._listening = bound_socket("tcp4", Path("/nonexistent"))
        self._listening.listen()
        self.address = listening_address(self._listening)
        self.accepted = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        own: list[threading.Thread] = []
        while True:
            try:
                sock = self._listening.accept()[0]
            except OSError:
                break
            self.accepted += 1
            own.append(threading.Thread(target=self._serve, args=(sock,)))
            own[-1].start()
        for thread in own:
            thread.join()

    @staticmethod
    def _serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            while head := receive(sock, 4):
                sock.sendall(frame(receive(sock, int.from_bytes(head, "big")).upper()))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE_S)
        self._listening.close()


@pytest.fixture
def upper(proxies: Proxies) -> Iterator[Upper]:
    """The server; it ends after the proxies, whose pipes it serves."""
    with contextlib.ExitStack() as own:
        server = Upper()
        own.callback(server.close)
        yield server
        for aegis in proxies.all:  # their pipes end, and with them the server's threads
            aegis.close()


def configured(proxies: Proxies, site: Path, server: str) -> Aegis:
    aegis = proxies.new(server)
    aegis.environment["PYTHONPATH"] = str(site)
    aegis.configure(
        listeners={
            "front": {"bind": aegis.address, "protocol": "prefixed", "pooling": "multiplex"}
        },
        backends={"db": {"servers": [server], "max_connections": 1}},
        workers=1,
    )
    return aegis


def test_two_clients_of_a_framer_from_another_package_share_one_pipe(
    proxies: Proxies, site: Path, upper: Upper
) -> None:
    aegis = configured(proxies, site, upper.address)
    assert aegis.done("check", str(aegis.config_file))
    aegis.start("--config", str(aegis.config_file))  # with the exporter
    clients = [connect(aegis.address) for _ in range(2)]
    try:
        for round_ in range(20):
            for number, client in enumerate(clients):
                client.sendall(
                    b"".join(frame(b"c%d-%d-%d" % (number, round_, i)) for i in range(5))
                )
            for number, client in enumerate(clients):
                for i in range(5):
                    assert read_frame(client) == b"C%d-%d-%d" % (number, round_, i)
        large = b"x" * 300_000  # longer than a slab
        clients[0].sendall(frame(large))
        clients[1].sendall(frame(b"after"))
        assert read_frame(clients[0]) == large.upper()
        assert read_frame(clients[1]) == b"AFTER"
        clients[1].sendall(b"\xff" * 4)  # no frame of this protocol
        assert read_frame(clients[1]) == b"error: protocol_error"
        assert receive_all(clients[1]) == b""
        clients[0].sendall(frame(b"") + frame(b"still"))
        assert (read_frame(clients[0]), read_frame(clients[0])) == (b"", b"STILL")
    finally:
        for client in clients:
            client.close()
    assert upper.accepted == 1
    (listener,) = aegis.status().listeners
    assert (listener.protocol, listener.pooling) == ("prefixed", "multiplex")


def test_without_the_package_the_protocol_is_unknown(proxies: Proxies, site: Path) -> None:
    aegis = configured(proxies, site, "127.0.0.1:9")
    assert aegis.ctl("check", str(aegis.config_file)).returncode == 0
    del aegis.environment["PYTHONPATH"]
    for arguments in (["check", str(aegis.config_file)],
                      ["start", "--detach", "--config", str(aegis.config_file)]):  # fmt: skip
        result = aegis.ctl(*arguments)
        assert result.returncode == 1
        assert 'listener[0].protocol = "prefixed": known protocols: "raw"' in result.stderr
    assert aegis.processes() == []


def test_the_guide_shows_the_example_as_it_is() -> None:
    guide = GUIDE.read_text()
    source = (EXAMPLE / "aegis_prefixed.py").read_text()
    project = (EXAMPLE / "pyproject.toml").read_text()
    assert f"```python\n{source}```" in guide
    assert f"```toml\n{project}```" in guide
    assert len(source.splitlines()) <= 40

"""One measurement's processes: a server, a proxy before it, and the clocks of both."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil

from ops.bench import cpu
from ops.bench.peers import Peer, Place
from ops.bench.processes import LOAD_CPU, PROXY_CPU, free_port, running, wait_until_answering
from ops.bench.servers import Family, Server, serving


class Window:
    """What was used while it was open."""

    seconds = 0.0
    proxy = cpu.Cpu(0.0, 0.0)
    server = cpu.Cpu(0.0, 0.0)


class Scene:
    """A load meets it at `port`, and must not count what the peer did not do."""

    def __init__(self, peer: Peer, port: int, server: Server, proxy: psutil.Process | None) -> None:
        self.peer = peer
        self.port = port
        self.server_port = server.port
        self.proxy = proxy
        self.proxy_pids = cpu.family(proxy)
        self._server_pids = cpu.family(server.process)

    @contextlib.contextmanager
    def window(self) -> Iterator[Window]:
        """Measure the body.

        Raises:
            MeasurementError: a process of the proxy or the server ended meanwhile.
        """
        window = Window()
        proxy, server = cpu.read(self.proxy_pids), cpu.read(self._server_pids)
        start = perf_counter()
        yield window
        window.seconds = perf_counter() - start
        window.proxy = cpu.spent(proxy, cpu.read(self.proxy_pids))
        window.server = cpu.spent(server, cpu.read(self._server_pids))


@contextlib.contextmanager
def staged(peer: Peer, family: Family, server_cpu: int = LOAD_CPU) -> Iterator[Scene]:
    """Start a server and the peer before it; a whole request has gone through both.

    Raises:
        MeasurementError: one of them does not start or answers wrongly.
    """
    with contextlib.ExitStack() as own:
        directory = Path(own.enter_context(TemporaryDirectory(prefix="bench-")))
        server = own.enter_context(serving(family, directory, server_cpu))
        if peer.command is None:
            yield Scene(peer, server.port, server, None)
            return
        port, log = free_port(), directory / "proxy.log"
        command = peer.command(Place(directory, family, port, server.port))
        process = own.enter_context(running(command, PROXY_CPU, log))
        wait_until_answering(peer.name, process, lambda: server.probe(port), log)
        yield Scene(peer, port, server, process)

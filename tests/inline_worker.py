"""The parts of a worker in the test's own process, for what can only be seen from within."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from aegis.config import Config
from aegis.config_backend import Backend
from aegis.config_listener import Listener as ListenerConfig
from aegis.figures import Figures
from aegis.messages import Boot, ServerWish
from tests.harness import bound_socket, listening_address
from workers.assembly import Assembly, make_loop
from workers.listener import Listener
from workers.loop import Loop


class InlineWorker(NamedTuple):
    """One listener before one server; `loop.run` works until `leave`."""

    address: tuple[str, int]
    loop: Loop
    figures: Figures
    parts: Assembly

    @property
    def listener(self) -> Listener:
        """Its only one."""
        return self.parts.listeners[0]

    def leave(self) -> None:
        """Close everything, and let the loop end with this turn."""
        for session in list(self.listener.sessions):
            session.close("drained")
        for pool in self.parts.pools:
            pool.close()
        self.listener.leave()
        self.loop.stop()


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Have something done by another process meanwhile; it is killed at the end."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def inline_worker(
    directory: Path, server: str, protocol: str, pooling: str
) -> Iterator[InlineWorker]:
    """Make one that serves as soon as its loop runs."""
    with bound_socket("tcp4", directory) as sock:
        bind = listening_address(sock)
        front = ListenerConfig(
            name="front", bind=bind, backend="db", protocol=protocol, pooling=pooling
        )
        config = Config(listeners=(front,), backends=(Backend(name="db", servers=(server,)),))
        boot = Boot(0, 0, str(directory), config, "serving", {"front": os.dup(sock.fileno())})
        figures = Figures(0, os.getpid(), "serving", [], [], config.slabs)
        loop = make_loop(boot, figures)
        parts = Assembly(boot, loop, figures, None)
        parts.backends[0].apply([ServerWish(server)], {})
        parts.listeners[0].serve()
        yield InlineWorker(sock.getsockname(), loop, figures, parts)

"""An echo server in a process of its own, so that its work and its fds are not the load's."""

import contextlib
import os
import selectors
import socket
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def echo_server(cpu: int | None = None) -> Iterator[int]:
    """Run the server, pinned to a core if one is given; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    pid = os.fork()
    if pid == 0:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        _echo(listener)
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        psutil.Process(pid).kill()
        os.waitpid(pid, 0)


def _echo(listener: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            data = b""
            with contextlib.suppress(ConnectionError):
                data = sock.recv(65_536)
                sock.sendall(data)
            if not data:
                selector.unregister(sock)
                sock.close()

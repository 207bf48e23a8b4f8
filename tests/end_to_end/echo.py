"""A server that says back what it hears, and clients that ask it; both in threads of the test."""

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Self

from tests.harness import DEADLINE_S, Kind, bound_socket, listening_address, receive
from tests.proxy import connect


class Echo:
    """Meant for messages that fit into a socket's buffer. `kind` is as for `bound_socket`."""

    def __init__(self, kind: Kind = "tcp4", directory: Path = Path("/nonexistent")) -> None:
        self._listening = bound_socket(kind, directory)
        self._listening.listen(1024)
        self.address = listening_address(self._listening)
        self.accepted = 0
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as own:
            for end in (self._listening, self._woken):
                own.enter_context(end)
                selector.register(end, selectors.EVENT_READ, end)
            while True:
                for key, _ in selector.select():
                    sock: socket.socket = key.data
                    if sock is self._woken:
                        return
                    if sock is self._listening:
                        client = own.enter_context(sock.accept()[0])
                        self.accepted += 1
                        selector.register(client, selectors.EVENT_READ, client)
                        continue
                    try:
                        heard = sock.recv(65536)
                        sock.sendall(heard)
                    except ConnectionError:
                        heard = b""
                    if not heard:
                        selector.unregister(sock)
                        sock.close()


def ask(client: socket.socket, question: bytes = b"ping") -> bytes:
    """Send and receive; fewer bytes come back only if the connection ended."""
    client.sendall(question)
    return receive(client, len(question))


def works(client: socket.socket) -> bool:
    """Whether a session still goes through."""
    try:
        return ask(client) == b"ping"
    except ConnectionError:
        return False


@dataclass
class Attempt:
    """One session of the load: connect, a few requests, close."""

    began: float
    answered: int = 0
    refused: bool = False
    error: str = ""


@dataclass
class Load:
    """Clients that connect, ask `requests` times and leave, again and again, until `stop`."""

    address: str
    clients: int = 4
    requests: int = 1
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, daemon=True) for _ in range(self.clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * DEADLINE_S)

    @property
    def broken(self) -> list[Attempt]:
        """Sessions that were accepted and then not served to their end."""
        return [a for a in self.attempts if a.error]

    def refused_since(self, instant: float) -> int:
        return sum(a.began > instant and a.refused for a in self.attempts)

    def served_since(self, instant: float) -> int:
        return sum(a.began > instant and not a.error and not a.refused for a in self.attempts)

    def _run(self) -> None:
        while not self._over.is_set():
            attempt = Attempt(monotonic())
            self._attempt(attempt)
            self.attempts.append(attempt)
            if attempt.refused:
                self._over.wait(0.01)  # refusals are quick; leave the proxy some of the machine

    def _attempt(self, attempt: Attempt) -> None:
        try:
            client = connect(self.address)
        except (ConnectionRefusedError, FileNotFoundError):
            attempt.refused = True
            return
        except OSError as error:
            attempt.error = f"connect: {error}"
            return
        with client:
            for _ in range(self.requests):
                try:
                    if ask(client) != b"ping":
                        attempt.error = "ended before the reply"
                        return
                except OSError as error:
                    attempt.error = repr(error)
                    return
                attempt.answered += 1

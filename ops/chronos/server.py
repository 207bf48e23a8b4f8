"""The loop: one turn reads, executes, commits once, then sends.

    poll ─▶ receive + answer, all ready clients ─▶ store.commit() ─▶ flush all of them ─▶ accept

Invariants: no reply leaves before the commit of its turn. Sockets are closed and accepted at the
end of a turn only, so a descriptor number means one client throughout it. A client is in `resumed`
exactly if it has whole requests left, nothing unsent, and so no event that would wake it.
"""

import errno
import signal
import socket
import time
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, epoll

from ops.chronos.client import Client
from ops.chronos.limits import (
    ACCEPT_PAUSE_S,
    ACCEPTS_PER_TURN,
    EVENTS_PER_TURN,
    LINGER_S,
)
from ops.chronos.store import Store

# accept(2): the listener stays readable after these, so it is left alone for a while.
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server:
    """Serves a store on a listening socket until `stop_fd` is readable."""

    def __init__(
        self, listener: socket.socket, store: Store, stop_fd: int, max_clients: int
    ) -> None:
        self._listener = listener
        self._store = store
        self._stop_fd = stop_fd
        self._max_clients = max_clients
        self._clients: dict[int, Client] = {}
        self._lingering: dict[Client, float] = {}  # deadlines, the earliest first
        self._resumed: list[Client] = []
        self._accept_at: float | None = None  # set while accepting is paused
        self._poller = epoll()
        self._poller.register(listener.fileno(), EPOLLIN)
        self._poller.register(stop_fd, EPOLLIN)

    def run(self) -> None:
        """Serve until told to stop; the turn under way is finished and answered."""
        poll, clients, store = self._poller.poll, self._clients, self._store
        listener_fd, stop_fd = self._listener.fileno(), self._stop_fd
        stopping = False
        while not stopping:
            accepting = False
            events = poll(self._patience_s(), EVENTS_PER_TURN)
            turn, self._resumed = self._resumed, []
            for client in turn:
                client.work(store)
            for fd, mask in events:
                client_or_none = clients.get(fd)
                if client_or_none is None:
                    accepting = accepting or fd == listener_fd
                    stopping = stopping or fd == stop_fd
                    continue
                if mask & EPOLLIN:
                    client_or_none.receive(store)
                elif mask & (EPOLLHUP | EPOLLERR):
                    client_or_none.over = True  # these cannot be left out of a registration
                turn.append(client_or_none)
            store.commit()
            for client in turn:
                client.flush()
                self._settle(client)
            if accepting:
                self._accept()
            if self._lingering or self._accept_at is not None:
                self._mind_deadlines()

    def close(self) -> None:
        """Close every socket."""
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        self._listener.close()
        self._poller.close()

    def _patience_s(self) -> float | None:
        """Return how long the poll may wait; None is for ever."""
        if self._resumed:
            return 0
        deadlines = [] if self._accept_at is None else [self._accept_at]
        deadlines.extend(list(self._lingering.values())[:1])
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _settle(self, client: Client) -> None:
        """Close a client that is over, else see to it that it is woken for what it waits for."""
        if client.closed:
            return
        if client.over:
            self._close(client)
            return
        if not client.unsent:
            if client.done and not client.lingers:
                self._linger(client)
            elif not (client.done or client.waits):
                self._resumed.append(client)
        wanted = client.wanted()
        if wanted != client.interest:
            client.interest = wanted
            self._poller.modify(client.fd, wanted)

    def _linger(self, client: Client) -> None:
        """End our side, and go on reading.

        A socket that is closed over unread input resets the connection, and the reset destroys the
        last reply on its way (RFC 9112 section 9.6).
        """
        client.lingers = True
        self._lingering[client] = time.monotonic() + LINGER_S
        with suppress(OSError):  # reset meanwhile; the poller reports it
            client.sock.shutdown(socket.SHUT_WR)

    def _close(self, client: Client) -> None:
        client.closed = True
        self._lingering.pop(client, None)
        del self._clients[client.fd]
        client.sock.close()  # which takes it out of the poller too: nobody else holds it

    def _accept(self) -> None:
        accept, clients, register = self._listener.accept, self._clients, self._poller.register
        for _ in range(ACCEPTS_PER_TURN):
            if len(clients) >= self._max_clients:
                self._pause_accepting()
                return
            try:
                sock, _address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._pause_accepting()
                    return
                continue  # the client has gone before it was accepted
            sock.setblocking(False)
            client = Client(sock)
            clients[client.fd] = client
            register(client.fd, EPOLLIN)

    def _pause_accepting(self) -> None:
        self._accept_at = time.monotonic() + ACCEPT_PAUSE_S
        self._poller.unregister(self._listener.fileno())

    def _mind_deadlines(self) -> None:
        now = time.monotonic()
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            self._poller.register(self._listener.fileno(), EPOLLIN)
        for client, deadline in list(self._lingering.items()):
            if deadline > now:
                break
            self._close(client)


def bind(host: str, port: int) -> socket.socket:
    """Return a non-blocking socket bound to the address; it does not listen yet.

    Accepted sockets inherit TCP_NODELAY from it on Linux.

    Raises:
        OSError: the name does not resolve, or the address cannot be had.
    """
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def stop_signals() -> socket.socket:
    """Return a socket that becomes readable on SIGTERM and SIGINT.

    A handler that raised could tear a commit; one that sets a flag would not end the poll, which
    Python restarts (PEP 475).
    """
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader

"""The loop, with real epoll: who gets an event, and who does not any more."""

import logging
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from aegis import config
from aegis.config_backend import Backend as BackendConfig
from aegis.figures import Figures
from tests.harness import Rig
from workers.backend import Backend
from workers.listener import Listener
from workers.loop import READ, SILENCED, WRITE, Loop
from workers.slab import Slabs


class Handler:
    """Notes its events and does as it is told on each."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act = act
        self.events: list[tuple[str, int]] = []
        self.failures: list[Exception] = []

    def on_readable(self, mask: int) -> None:
        self.events.append(("read", mask))
        self.act()

    def on_writable(self, mask: int) -> None:
        self.events.append(("write", mask))

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


@pytest.fixture
def loop() -> Loop:
    figures = Figures(0, 1, "serving", [], [], 2)
    return Loop(Slabs(2, 64, figures), figures)


@pytest.fixture
def readable() -> Iterator[list[socket.socket]]:
    """Three sockets that are readable, each with its peer kept open."""
    pairs = [socket.socketpair() for _ in range(3)]
    for mine, theirs in pairs:
        mine.setblocking(False)
        theirs.send(b"x")
    yield [mine for mine, _ in pairs]
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_an_event_of_a_fd_that_was_closed_in_the_same_turn_reaches_nobody(
    loop: Loop, readable: list[socket.socket]
) -> None:
    fds = [sock.fileno() for sock in readable]
    opened: list[socket.socket] = []

    def close_all() -> None:
        for sock in readable:
            loop.close(sock)
        for _ in range(6):  # the kernel hands out the lowest free numbers
            opened.append(socket.socket())
            loop.add(opened[-1].fileno(), READ, newcomer)
        assert [sock.fileno() for sock in readable] == fds  # open until the turn has ended
        loop.stop()

    handlers = [Handler(close_all) for _ in readable]
    newcomer = Handler()
    for sock, handler in zip(readable, handlers, strict=True):
        loop.add(sock.fileno(), READ, handler)
    loop.run()
    assert sum(len(handler.events) for handler in handlers) == 1
    assert newcomer.events == []
    assert [sock.fileno() for sock in readable] == [-1] * 3
    for sock in opened:
        sock.close()


def test_a_listener_that_is_left_keeps_its_fd_until_the_turn_has_ended(
    loop: Loop, rig: Rig
) -> None:
    upstream = rig.upstream()
    conf = config.Listener(name="front", bind=upstream.address, backend="db")
    backend = Backend(BackendConfig(name="db", servers=(upstream.address,)), 0)
    fd = upstream.sock.dup().detach()
    listener = Listener(conf, fd, backend, loop, Figures(0, 1, "serving", [], [], 2))
    listener.serve()
    listener.leave()
    with socket.socket() as newcomer:  # a connect that fails over to its next server, say
        reused = newcomer.fileno() == fd
    loop.stop()
    loop.run()
    assert not reused, "an event of the listener in this turn would reach whoever has its fd now"


def test_a_paused_fd_reports_a_hang_up_and_a_silenced_one_nothing(
    loop: Loop, readable: list[socket.socket]
) -> None:
    mine, witness = readable[0], readable[1]
    mine.recv(1)
    handler = Handler()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            assert handler.events == []
            mine.shutdown(socket.SHUT_RDWR)
        elif turns == 3:
            assert handler.events
            assert all(mask & select.EPOLLHUP for _, mask in handler.events)
            loop.switch(mine.fileno(), 0, SILENCED)
            handler.events.clear()
        elif turns == 6:
            assert handler.events == []
            loop.switch(mine.fileno(), SILENCED, READ)
        elif turns == 8:
            loop.stop()

    loop.add(mine.fileno(), 0, handler)
    loop.add(witness.fileno(), READ, Handler(count))
    loop.run()
    assert handler.events


def test_a_handler_that_raises_is_told_and_the_others_are_served(
    loop: Loop, readable: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("broken")

    reader, writer, other = Handler(broken), Handler(), Handler(loop.stop)
    loop.add(readable[0].fileno(), READ | WRITE, reader, writer)
    loop.add(readable[1].fileno(), READ, other)
    with caplog.at_level(logging.CRITICAL, "workers.loop"):
        loop.run()
    assert other.events
    assert [len(handler.failures) for handler in (reader, writer)] == [1, 1]


def test_a_fd_that_is_both_readable_and_writable_reaches_both_handlers_in_one_turn(
    loop: Loop, readable: list[socket.socket]
) -> None:
    reader, writer = Handler(loop.stop), Handler()
    loop.add(readable[0].fileno(), READ | WRITE, reader, writer)
    loop.run()
    assert reader.events == [("read", READ | WRITE)]
    assert writer.events == [("write", READ | WRITE)]


def test_removing_a_silenced_fd_is_no_error(loop: Loop, readable: list[socket.socket]) -> None:
    fd = readable[0].fileno()
    loop.add(fd, READ, Handler())
    loop.switch(fd, READ, SILENCED)
    loop.remove(fd)
    loop.remove(fd)

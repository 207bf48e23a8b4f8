"""Whom a socket of the bus lets in, what it ignores, and that it counts both."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zmq

from aegis import bus
from aegis.config_bus import LOCAL, Bus
from aegis.curve import make_keys
from aegis.errors import AegisError, BusError
from aegis.inbox import Inbox
from aegis.limits import MESSAGE_BYTES
from aegis.messages import StatusRequest, Supervision
from tests import zmtp
from tests.harness import wait_until
from tests.proxy import reserve_port

HELLO = Supervision("serving", 1, [])


class Door:
    """An inbox for telemetry, in the runtime directory or over TCP, and peers for it."""

    def __init__(self, own: ExitStack, directory: Path, *, remote: bool) -> None:
        self._own = own
        self.directory = directory
        self.keys = directory / "curve"
        make_keys(self.keys)
        self.conf = LOCAL
        self.place: Path | tuple[str, int] = directory / "telemetry.ipc"
        if remote:
            port = reserve_port(own)
            self.conf = Bus(telemetry=f"tcp://127.0.0.1:{port}", keys=str(self.keys))
            self.place = ("127.0.0.1", port)
        self.inbox = Inbox(self.context(), zmq.PULL, directory, "telemetry", self.conf)
        own.callback(self.inbox.close)

    def context(self) -> Any:
        context = zmq.Context()
        self._own.callback(context.destroy, linger=0)
        return context

    def peer(self, conf: Bus | None = None) -> Any:
        """Connect as a worker does."""
        return self.own(
            bus.connect(self.context(), zmq.PUSH, self.directory, "telemetry", conf or self.conf)
        )

    def own(self, sock: Any) -> Any:
        """Close a socket with the door."""
        self._own.callback(sock.close)
        return sock

    def heard(self) -> list[bytes]:
        """Return what has come by now."""
        found = []
        while (frames := self.inbox.frames()) is not None:
            found += frames
        return found

    def await_message(self, peer: Any) -> None:
        """Wait until a message of the peer has come; whatever else is there is attended to."""

        def once() -> bool:
            bus.send(peer, HELLO)
            return bus.encode(HELLO) in self.heard()

        wait_until(once, "a message")

    def await_refused(self, count: int) -> None:
        def look() -> bool:
            assert self.heard() == []
            return self.inbox.ignored["refused"] >= count

        wait_until(look, f"{count} refused")
        assert self.inbox.ignored["refused"] == count


@pytest.fixture(params=[False, True], ids=["in the runtime directory", "over TCP"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    # Not tmp_path: a unix socket's path has 107 bytes.
    with TemporaryDirectory(prefix="aegis-") as directory, ExitStack() as own:
        yield Door(own, Path(directory), remote=request.param)


@pytest.fixture
def remote() -> Iterator[Door]:
    with TemporaryDirectory(prefix="aegis-") as directory, ExitStack() as own:
        yield Door(own, Path(directory), remote=True)


@pytest.mark.parametrize("kind", zmtp.attacks(b"PUSH", random.Random(0)))
def test_nonsense_below_the_messages_holds_up_nobody(
    door: Door, kind: str, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    said = zmtp.attacks(b"PUSH", rng)[kind]
    friend = door.peer()
    door.await_message(friend)
    for _ in range(20):
        with zmtp.connect(door.place) as sock:
            with contextlib.suppress(OSError):  # it has been cut already
                sock.sendall(said)
            door.await_message(friend)
    assert len(caplog.records) <= 1, "nobody fills the log"


def test_who_leaves_before_the_handshake_is_over_is_counted(door: Door) -> None:
    for count in range(1, 6):
        zmtp.connect(door.place).close()
        door.await_refused(count)
    door.await_message(door.peer())
    assert door.inbox.ignored["refused"] == 5


def test_a_crowd_that_says_nothing_holds_up_nobody(door: Door) -> None:
    with ExitStack() as own:
        for _ in range(200):
            own.enter_context(zmtp.connect(door.place))
        door.await_message(door.peer())


def test_a_message_that_is_too_long_is_not_sent_and_would_not_arrive(door: Door) -> None:
    peer = door.peer()
    door.await_message(peer)
    assert not bus.send(peer, Supervision("serving", 1, [], ignored={"x" * MESSAGE_BYTES: {}}))
    peer.send(bytes(MESSAGE_BYTES + 1))
    door.await_message(peer)


# --- keys ------------------------------------------------------------------------------------


def strangers(remote: Door) -> dict[str, Any]:
    """Return sockets that are not to be let in, by what they lack."""
    others = remote.directory / "others"
    make_keys(others)
    plain = remote.own(remote.context().socket(zmq.PUSH))
    half = remote.own(remote.context().socket(zmq.PUSH))
    server = (remote.keys / "exporter.key").read_text().partition('public-key = "')[2][:40]
    half.curve_serverkey = server.encode()
    half.curve_publickey, half.curve_secretkey = zmq.curve_keypair()
    found = {"no keys": plain, "a key that nobody knows": half}
    for sock in found.values():
        sock.linger = 0
        sock.reconnect_ivl = 10_000  # each comes once
        sock.connect(remote.conf.telemetry)
    # Knows neither our key nor we theirs.
    found["the keys of another"] = remote.peer(
        Bus(telemetry=remote.conf.telemetry, keys=str(others))
    )
    return found


@pytest.mark.parametrize("kind", ["no keys", "a key that nobody knows", "the keys of another"])
def test_who_has_no_known_key_is_refused_and_counted(remote: Door, kind: str) -> None:
    stranger = strangers(remote)[kind]
    stranger.send(b"let me in")

    def look() -> bool:
        assert remote.heard() == []
        return remote.inbox.ignored["refused"] >= 2

    wait_until(look, "refusals")
    remote.await_message(remote.peer())


def test_a_key_opens_from_the_moment_it_is_there_until_it_is_taken_away(remote: Door) -> None:
    public = remote.keys / "proxy.key"
    aside = public.rename(remote.keys / "aside")
    peer = remote.peer()
    wait_until(lambda: (remote.heard(), remote.inbox.ignored["refused"])[1], "a refusal")
    aside.rename(public)
    remote.await_message(peer)
    public.unlink()
    refused = remote.inbox.ignored["refused"]
    later = remote.peer()
    later.send(b"too late")

    def look() -> bool:
        assert b"too late" not in remote.heard()
        return remote.inbox.ignored["refused"] > refused

    wait_until(look, "another refusal")
    remote.await_message(peer)  # who was let in stays


def test_what_is_said_cannot_be_read_on_the_way(remote: Door) -> None:
    """A tap between the two sees every byte, and none of the words."""
    with ExitStack() as own:
        tap = own.enter_context(socket.create_server(("127.0.0.1", 0)))
        tap.settimeout(20)
        conf = Bus(telemetry=f"tcp://127.0.0.1:{tap.getsockname()[1]}", keys=str(remote.keys))
        peer = remote.peer(conf)
        inner = own.enter_context(tap.accept()[0])
        outer = own.enter_context(zmtp.connect(remote.place))
        seen = b""
        for sock in (inner, outer):
            sock.setblocking(False)

        def passed_on() -> bool:
            nonlocal seen
            for source, sink in ((inner, outer), (outer, inner)):
                try:
                    part = source.recv(65536)
                except BlockingIOError:
                    continue
                seen += part
                sink.sendall(part)
            bus.send(peer, HELLO)
            return bus.encode(HELLO) in remote.heard()

        wait_until(passed_on, "a message through the tap")
    assert b"supervision" not in seen
    assert b"CURVE" in seen


def test_a_socket_over_tcp_needs_keys_that_can_be_used(tmp_path: Path) -> None:
    context = zmq.Context()
    try:
        conf = Bus(telemetry="tcp://127.0.0.1:7", keys=str(tmp_path))
        for make in (Inbox, bus.connect):
            with pytest.raises(AegisError, match="`aegis-ctl keys` makes keys"):
                make(context, zmq.PUSH, tmp_path, "telemetry", conf)
    finally:
        context.destroy(linger=0)


def test_who_asks_with_a_key_that_is_not_known_is_told_so_at_once(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="aegis-") as name, ExitStack() as own:
        make_keys(Path(name) / "curve")
        conf = Bus(requests=f"tcp://127.0.0.1:{reserve_port(own)}", keys=str(Path(name) / "curve"))
        context = zmq.Context()
        own.callback(context.destroy, linger=0)
        inbox = Inbox(context, zmq.ROUTER, Path(name), "requests", conf)
        own.callback(inbox.close)
        (Path(name) / "curve" / "operator.key").unlink()
        answered: list[str] = []

        def ask() -> None:
            try:
                bus.ask(Path(name), StatusRequest(), 60.0, conf)
            except BusError as error:
                answered.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: inbox.frames() or answered, "an answer")
        asking.join()
        assert answered == [
            f"the controller at {conf.requests} does not know the key in {conf.keys}"
        ]

"""A TLS connection read, written and ended as if it were a socket; its peer is OpenSSL by hand."""

import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis.config_tls import BackendTls, ListenerTls
from aegis.figures import Figures
from aegis.tls import client_context, server_context
from tests.certificates import Authority
from tests.harness import bound_socket, wait_until
from workers.kernel_pipes import KernelPipes
from workers.loop import READ, WRITE
from workers.slab import Slabs
from workers.timers import UNARMED
from workers.tls import DONE, TlsSocket
from workers.tls_loop import TlsLoop

NAME = "db.example.org"
RESET = struct.pack("ii", 1, 0)


class Bell:
    """Ends a loop's run with its turn."""

    def __init__(self, loop: TlsLoop) -> None:
        self._loop = loop

    def flush(self) -> None:
        self._loop.stop()

    def fail(self, error: Exception) -> None:
        raise error


def turn(loop: TlsLoop) -> None:
    """Run one turn at once."""
    loop.handshakes.put(Bell(loop))
    loop._running = True
    loop.run()


class Peer:
    """The other end: TLS in memory, so that a test says what goes over the wire when."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else NAME
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, name)
        self.heard = bytearray()
        self.ended: type[Exception] | None = None
        self.reset = False

    def take(self) -> None:
        """Read what is on the wire."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.reset = True
            return
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def put(self, most: int = 1 << 30) -> None:
        """Send some of what is to go over the wire."""
        data = self.outgoing.read(most)
        while data:
            data = data[self.sock.send(data) :]

    def shake(self) -> bool:
        self.take()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def hear(self) -> None:
        self.take()
        try:
            while data := self.tls.read(1 << 16):
                self.heard += data
            self.ended = ssl.SSLZeroReturnError
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
            self.ended = type(error)

    def say(self, data: bytes, most: int = 1 << 30) -> None:
        self.tls.write(data)
        self.put(most)

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.put()


class Reader:
    """Reads as a flow does: one call for a readiness, more while the buffer comes back full."""

    def __init__(self, sock: TlsSocket, loop: TlsLoop, buffer_bytes: int, rounds: int = 4) -> None:
        self.sock, self.loop, self.rounds = sock, loop, rounds
        self.buffer = bytearray(buffer_bytes)
        self.heard = bytearray()
        self.reads = 0
        self.ended: str = ""
        loop.hand_over(sock.fileno(), READ, self, self)

    def on_readable(self, mask: int) -> None:
        for _ in range(self.rounds):
            self.reads += 1
            try:
                count = self.sock.recv_into(self.buffer)
            except BlockingIOError:
                return
            except ConnectionResetError:
                self._end("reset")
                return
            if not count:
                self._end("clean")
                return
            self.heard += self.buffer[:count]
            if count < len(self.buffer):
                return

    def _end(self, how: str) -> None:
        self.ended = how
        self.loop.switch(self.sock.fileno(), READ, 0)

    def on_writable(self, mask: int) -> None:
        raise AssertionError

    def fail(self, error: Exception) -> None:
        raise error


class Scene:
    """A loop, a TLS socket of ours in it, and its peer."""

    def __init__(self, own: contextlib.ExitStack, directory: Path) -> None:
        self.own = own
        self.directory = directory
        self.authority = Authority(directory)
        self.pair = self.authority.issue(NAME)
        self.figures = Figures(0, 1, "serving", [], [], 2)
        self.loop = TlsLoop(
            Slabs(2, 4096, self.figures), KernelPipes(0, self.figures), self.figures
        )

    def sockets(self, buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a TCP connection over loopback."""
        listener = self.own.enter_context(bound_socket("tcp4", self.directory, buffer_bytes))
        listener.listen()
        theirs = self.own.enter_context(socket.socket())
        if buffer_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        theirs.connect(listener.getsockname())
        ours = listener.accept()[0]
        for sock in (ours, theirs):
            sock.setblocking(False)
        return ours, theirs

    def full(self) -> tuple[TlsSocket, Peer]:
        """Return one that has said 100,000 bytes, and whose kernel takes no more for now.

        Over a unix socket: TCP still adds to its last segment (tcp_sendmsg_locked).
        """
        ours, theirs = socket.socketpair()
        self.own.enter_context(theirs)
        ours.setblocking(False)
        theirs.setblocking(False)
        sock, peer = self.connected((ours, theirs))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        assert sock.send(b"x" * 100_000) == 100_000
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock, peer

    def connected(
        self,
        pair: tuple[socket.socket, socket.socket] | None = None,
        *,
        server_side: bool = True,
        buffer_bytes: int = 0,
        version: str = "1.3",
    ) -> tuple[TlsSocket, Peer]:
        """Return a TLS socket that has shaken hands."""
        ours, theirs = pair or self.sockets(buffer_bytes)
        sock = self.wrap(ours, server_side)
        if server_side:
            context = self.authority.client_context()
        else:
            context = self.authority.server_context(self.pair)
        context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[
            version
        ]
        peer = Peer(theirs, context, server_side=not server_side)
        states = [READ, False]
        while states != [DONE, True]:
            states[1] = peer.shake()
            peer.put()
            states[0] = sock.handshake()
        return sock, peer

    def wrap(self, ours: socket.socket, server_side: bool) -> TlsSocket:
        if server_side:
            context = server_context(
                ListenerTls(certificate=self.pair.certificate, key=self.pair.key)
            )
        else:
            context = client_context(BackendTls(ca=self.authority.root))
        self.loop.add(ours.fileno(), 0, Nobody())
        sock = TlsSocket(
            ours,
            context,
            self.loop,
            server_side=server_side,
            server_name=None if server_side else NAME,
        )
        self.own.callback(sock.close)
        return sock

    def until(self, condition: Callable[[], object], what: str, peer: Peer | None = None) -> None:
        """Turn, and let the peer hear, until the condition holds."""

        def look() -> bool:
            turn(self.loop)
            if peer is not None:
                peer.hear()
            return bool(condition())

        wait_until(look, what)


class Nobody:
    def on_readable(self, mask: int) -> None: ...
    def on_writable(self, mask: int) -> None: ...
    def fail(self, error: Exception) -> None: ...


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as own:
        yield Scene(own, tmp_path)


BOTH = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@BOTH
@VERSIONS
@pytest.mark.parametrize("buffer_bytes", [64, 5000, 65_536])
def test_bytes_come_and_go_in_any_pieces(
    scene: Scene, server_side: bool, version: str, buffer_bytes: int, rng: random.Random
) -> None:
    sock, peer = scene.connected(server_side=server_side, version=version)
    reader = Reader(sock, scene.loop, buffer_bytes)
    said, answered = rng.randbytes(30_000 + 2 * buffer_bytes), rng.randbytes(40_000)
    at = 0
    while at < len(said):
        size = rng.choice([1, 100, 16_384, 50_000])
        peer.tls.write(said[at : at + size])
        at += size
        peer.put(rng.randint(1, 20_000))  # records are cut anywhere
        turn(scene.loop)
    while peer.outgoing.pending:
        peer.put(20_000)
        turn(scene.loop)
    scene.until(lambda: len(reader.heard) == len(said), "all is read")
    assert reader.heard == said
    assert sock.send(answered) == len(answered)
    scene.until(lambda: len(peer.heard) == len(answered), "all is heard", peer)
    assert peer.heard == answered


def test_what_is_decrypted_and_not_read_is_told_of_although_the_network_is_silent(
    scene: Scene,
) -> None:
    sock, peer = scene.connected()
    reader = Reader(sock, scene.loop, 100, rounds=1)
    peer.say(b"x" * 16_000)
    scene.until(lambda: len(reader.heard) == 16_000, "the record is read piece by piece")
    reads = reader.reads
    assert reads <= 16_000 / 100 + 2
    turn(scene.loop)
    turn(scene.loop)
    assert reader.reads == reads, "nothing is held, and nobody is called"


def test_a_reader_that_does_not_read_is_left_alone_and_told_when_it_does(scene: Scene) -> None:
    sock, peer = scene.connected()
    reader = Reader(sock, scene.loop, 1000, rounds=1)
    peer.say(b"x" * 10_000)
    scene.until(lambda: reader.heard, "it has read once")
    scene.loop.switch(sock.fileno(), READ, 0)
    reads = reader.reads
    for _ in range(3):
        turn(scene.loop)
    assert reader.reads == reads
    scene.loop.switch(sock.fileno(), 0, READ)
    scene.until(lambda: len(reader.heard) == 10_000, "the rest is read")


@BOTH
def test_a_slow_peer_gets_every_byte_once(
    scene: Scene, server_side: bool, rng: random.Random
) -> None:
    sock, peer = scene.connected(server_side=server_side, buffer_bytes=4096)
    said = rng.randbytes(400_000)
    at = blocked = 0
    while at < len(said):
        try:
            at += sock.send(memoryview(said)[at : at + 30_000])
        except BlockingIOError:
            blocked += 1
            peer.hear()
            assert len(peer.heard) <= at, "what is not said to be sent nobody may have seen"
    scene.until(lambda: len(peer.heard) == len(said), "all is heard", peer)
    assert peer.heard == said
    assert blocked > 5


@BOTH
@VERSIONS
def test_after_the_end_of_what_we_say_the_peer_is_still_heard(
    scene: Scene, server_side: bool, version: str
) -> None:
    sock, peer = scene.connected(server_side=server_side, version=version)
    reader = Reader(sock, scene.loop, 65_536)
    sock.send(b"that is all")
    peer.tls.write(b"under way " * 3000)
    under_way = peer.outgoing.read()
    peer.sock.send(under_way[:20_000])  # one record and a part of the next
    scene.until(lambda: reader.heard, "the first record is here")
    peer.sock.send(under_way[20_000:])
    sock.shutdown(socket.SHUT_WR)
    peer.hear()
    scene.until(lambda: peer.ended, "the end is heard", peer)
    assert peer.heard == b"that is all"
    assert peer.ended is ssl.SSLZeroReturnError
    peer.say(b"and this is what I say")
    expected = b"under way " * 3000 + b"and this is what I say"
    scene.until(lambda: len(reader.heard) == len(expected), "all is read")
    assert reader.heard == expected
    peer.say_goodbye()
    scene.until(lambda: reader.ended, "the end has come")
    assert reader.ended == "clean"


@VERSIONS
def test_what_is_cut_short_is_a_reset_and_comes_after_all_bytes(scene: Scene, version: str) -> None:
    sock, peer = scene.connected(version=version)
    reader = Reader(sock, scene.loop, 100)
    peer.say(b"x" * 5000)
    peer.sock.shutdown(socket.SHUT_WR)
    scene.until(lambda: reader.ended, "the end has come")
    assert (len(reader.heard), reader.ended) == (5000, "reset")


def test_an_end_with_bytes_before_it_in_one_read_comes_after_them(scene: Scene) -> None:
    sock, peer = scene.connected()
    reader = Reader(sock, scene.loop, 65_536)
    peer.tls.write(b"last words")
    peer.say_goodbye()  # and no end of TCP
    scene.until(lambda: reader.ended, "the end has come")
    assert (bytes(reader.heard), reader.ended) == (b"last words", "clean")


def test_bytes_that_are_not_tls_are_a_reset(scene: Scene) -> None:
    sock, peer = scene.connected()
    reader = Reader(sock, scene.loop, 65_536)
    peer.say(b"well")
    peer.sock.send(b"GET / HTTP/1.1\r\n\r\n")
    scene.until(lambda: reader.ended, "the end has come")
    assert (bytes(reader.heard), reader.ended) == (b"well", "reset")


def test_closing_is_a_clean_end(scene: Scene) -> None:
    sock, peer = scene.connected()
    scene.loop.close(sock)
    turn(scene.loop)
    scene.until(lambda: peer.ended, "the end", peer)
    assert peer.ended is ssl.SSLZeroReturnError


def test_a_reset_is_no_clean_end(scene: Scene) -> None:
    sock, peer = scene.connected()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    scene.loop.close(sock)
    turn(scene.loop)
    scene.until(lambda: peer.reset, "the reset", peer)
    assert peer.ended is None


def test_a_close_waits_until_the_peer_takes_the_end(scene: Scene) -> None:
    sock, peer = scene.full()
    scene.loop.close(sock)
    turn(scene.loop)
    assert sock.fileno() >= 0
    scene.until(lambda: peer.ended, "the end", peer)
    assert (len(peer.heard), peer.ended) == (100_000, ssl.SSLZeroReturnError)
    assert sock.fileno() == -1


def test_a_half_close_waits_until_the_peer_takes_it(scene: Scene) -> None:
    sock, peer = scene.full()
    reader = Reader(sock, scene.loop, 1000)
    sock.shutdown(socket.SHUT_WR)
    assert sock.slot != UNARMED
    scene.until(lambda: peer.ended, "the end", peer)
    assert (len(peer.heard), peer.ended) == (100_000, ssl.SSLZeroReturnError)
    peer.say(b"well")
    scene.until(lambda: reader.heard, "the answer")


def test_peeked_bytes_stay_until_they_are_consumed(scene: Scene) -> None:
    sock, peer = scene.connected()
    reader = Reader(sock, scene.loop, 100)
    scene.loop.switch(sock.fileno(), READ, 0)
    peer.say(b"abcdefgh")
    buffer = bytearray(100)
    count = wait_until(lambda: received(sock, buffer, socket.MSG_PEEK), "bytes to look at")
    assert bytes(buffer[:count]) == b"abcdefgh"
    assert sock.recv_into(buffer, 3, socket.MSG_TRUNC) == 3
    assert received(sock, buffer, socket.MSG_PEEK) == 5
    scene.loop.switch(sock.fileno(), 0, READ)
    scene.until(lambda: reader.heard, "the rest is told of, although the network is silent")
    assert reader.heard == b"defgh"


def received(sock: TlsSocket, buffer: bytearray, flags: int) -> int:
    with contextlib.suppress(BlockingIOError):
        return sock.recv_into(buffer, 0, flags)
    return 0


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ssl.SSLError, "HTTP_REQUEST"),
        (b"\x16\3\1\0\1\0", ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING"),
        (b"", ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING"),
    ],
    ids=["http", "half a hello", "nothing"],
)
def test_a_peer_that_does_not_shake_hands_is_refused_with_a_reason(
    scene: Scene, said: bytes, kind: type[ssl.SSLError], reason: str
) -> None:
    ours, theirs = scene.sockets()
    sock = scene.wrap(ours, server_side=True)
    theirs.send(said)
    theirs.shutdown(socket.SHUT_WR)

    def shaken() -> bool:
        return sock.handshake() == DONE

    with pytest.raises(kind) as caught:
        wait_until(shaken, "the handshake")
    assert caught.value.reason == reason


def test_a_server_whose_certificate_does_not_hold_is_refused(scene: Scene) -> None:
    stranger = Authority(scene.directory)
    other_name = scene.authority.issue("other.example.org")
    for context, word in (
        (stranger.server_context(stranger.issue(NAME)), "unable to get local issuer certificate"),
        (scene.authority.server_context(other_name), "Hostname mismatch"),
    ):
        ours, theirs = scene.sockets()
        sock = scene.wrap(ours, server_side=False)
        peer = Peer(theirs, context, server_side=True)

        def shaken(sock: TlsSocket = sock, peer: Peer = peer) -> bool:
            done = sock.handshake() == DONE
            peer.shake()
            peer.put()
            return done

        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            wait_until(shaken, "the handshake")
        assert word in caught.value.verify_message


def test_a_fd_that_is_not_tls_passes_through_the_loop_as_ever(scene: Scene) -> None:
    ours, theirs = scene.sockets()
    events: list[int] = []

    class Handler(Nobody):
        def on_readable(self, mask: int) -> None:
            events.append(mask)
            ours.recv(10)

        def on_writable(self, mask: int) -> None:
            events.append(mask)
            scene.loop.switch(ours.fileno(), WRITE, READ)

    scene.loop.add(ours.fileno(), WRITE, handler := Handler(), handler)
    scene.until(lambda: events, "it is writable")
    theirs.send(b"x")
    scene.until(lambda: len(events) == 2, "it is readable")
    scene.loop.close(ours)
    turn(scene.loop)
    assert ours.fileno() == -1

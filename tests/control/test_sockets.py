"""The controller's listening sockets: who else is there, and what is taken over from a worker."""

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aegis.addresses import Address, parse_address
from aegis.config import Config, Listener
from aegis.config_backend import Backend
from aegis.errors import AegisError
from control.slots import Slots
from control.sockets import bound_to, close_all, open_listener, probe, take_over
from tests.harness import KINDS, Kind, bound_socket, listening_address
from tests.proxy import reserve_port

UNPRIVILEGED_UID = 65534


@pytest.fixture
def own() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="aegis-") as path:  # short enough for unix sockets
        yield Path(path)


def free_address(own: contextlib.ExitStack) -> Address:
    return parse_address(f"127.0.0.1:{reserve_port(own)}")


def config_for(*binds: str) -> Config:
    return Config(
        listeners=tuple(
            Listener(name=f"front{i}", bind=bind, backend="db") for i, bind in enumerate(binds)
        ),
        backends=(Backend(name="db", servers=("127.0.0.1:9",)),),
    )


def test_a_free_port_passes(own: contextlib.ExitStack) -> None:
    probe(free_address(own), "listener")


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_that_somebody_listens_on_is_found(
    own: contextlib.ExitStack, reuse_port: bool
) -> None:
    other = own.enter_context(socket.socket())
    if reuse_port:  # the kernel would let us share it, connections and all
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("127.0.0.1", 0))
    other.listen()
    text = listening_address(other)
    with pytest.raises(AegisError) as caught:
        probe(parse_address(text), 'listener "db"')
    assert str(caught.value) == (
        f'listener "db": cannot bind {text}: the address is in use by another process'
    )


def test_somebody_on_every_address_has_this_port_too(own: contextlib.ExitStack) -> None:
    other = own.enter_context(socket.socket())
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("0.0.0.0", 0))
    other.listen()
    with pytest.raises(AegisError, match="in use"):
        probe(parse_address(f"127.0.0.1:{other.getsockname()[1]}"), "listener")


def test_connections_that_linger_in_time_wait_are_nobody(own: contextlib.ExitStack) -> None:
    listening = own.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = parse_address(listening_address(listening))
    client = own.enter_context(socket.create_connection(listening.getsockname()))
    accepted = listening.accept()[0]
    listening.close()
    accepted.close()  # the side that closes first is the one that lingers
    assert client.recv(1) == b""
    client.close()
    probe(address, "listener")


def test_an_address_of_another_machine_is_named(own: contextlib.ExitStack) -> None:
    with pytest.raises(AegisError, match=r"192\.0\.2\.1:80.*does not have that address"):
        probe(parse_address("192.0.2.1:80"), "listener")


def test_a_port_that_needs_a_privilege_says_so() -> None:
    start = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if start <= 1:
        pytest.skip("every port is free to all here: sysctl net.ipv4.ip_unprivileged_port_start")
    program = (
        "import os, sys; from control.sockets import probe;"
        "from aegis.addresses import parse_address;"
        f"os.geteuid() or os.setuid({UNPRIVILEGED_UID});"
        f"probe(parse_address('127.0.0.1:{start - 1}'), 'listener')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "no permission; ports below" in result.stderr


def test_a_unix_path_without_a_file_passes(directory: Path) -> None:
    probe(parse_address(f"unix:{directory}/a.sock"), "listener")


def test_a_unix_socket_that_somebody_listens_on_is_found(
    own: contextlib.ExitStack, directory: Path
) -> None:
    other = own.enter_context(bound_socket("unix", directory))
    other.listen()
    with pytest.raises(AegisError, match="another process listens there"):
        probe(parse_address(listening_address(other)), "listener")


@pytest.mark.timeout(20)  # a connect that waits for room in the backlog would wait for ever
def test_a_unix_socket_whose_backlog_is_full_is_found(
    own: contextlib.ExitStack, directory: Path
) -> None:
    other = own.enter_context(bound_socket("unix", directory))
    other.listen(0)
    code = 0
    while not code:
        client = own.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.setblocking(False)
        code = client.connect_ex(other.getsockname())
    with pytest.raises(AegisError, match="another process listens there"):
        probe(parse_address(listening_address(other)), "listener")


def test_a_stale_unix_socket_passes_and_is_replaced(
    own: contextlib.ExitStack, directory: Path
) -> None:
    stale = bound_socket("unix", directory)
    address = parse_address(listening_address(stale))
    stale.close()
    probe(address, "listener")
    fresh = own.enter_context(open_listener(address, "listener"))
    fresh.listen()
    own.enter_context(socket.socket(socket.AF_UNIX)).connect(str(address.sockaddr))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_file_that_is_no_socket_is_never_replaced(
    directory: Path, make: Callable[[Path], None]
) -> None:
    path = directory / "precious"
    make(path)
    with pytest.raises(AegisError, match="exists and is not a socket"):
        probe(parse_address(f"unix:{path}"), "listener")
    assert path.exists()


def test_a_missing_directory_is_named(directory: Path) -> None:
    with pytest.raises(AegisError, match=r"cannot bind .*missing/a\.sock: No such file"):
        open_listener(parse_address(f"unix:{directory}/missing/a.sock"), "listener")


def test_every_slot_has_a_tcp_socket_of_its_own_and_they_share_a_unix_socket(
    own: contextlib.ExitStack, directory: Path
) -> None:
    config = config_for(f"127.0.0.1:{reserve_port(own)}", f"unix:{directory}/a.sock")
    slots = Slots({})
    own.callback(slots.close)
    slots.prepare(config, [0, 1])
    inodes = [[os.fstat(s.fileno()).st_ino for s in slots.of(i).values()] for i in (0, 1)]
    assert inodes[0][0] != inodes[1][0]
    assert inodes[0][1] == inodes[1][1]
    kept = slots.of(0)
    slots.prepare(config, [0, 1])
    assert slots.of(0) is kept, "only what a slot lacks is opened"


def test_no_socket_of_ours_blocks_whoever_shares_it(
    own: contextlib.ExitStack, directory: Path
) -> None:
    """O_NONBLOCK is shared with the workers; dup(2) by a blocking socket object would clear it."""
    slots = Slots({})
    own.callback(slots.close)
    slots.prepare(config_for(f"unix:{directory}/a.sock"), [0])
    (first,) = slots.of(0).values()
    slots.prepare(config_for(f"unix:{directory}/a.sock"), [1])
    assert not os.get_blocking(first.fileno())


def test_when_one_listener_cannot_be_opened_none_stays_open(
    own: contextlib.ExitStack, directory: Path
) -> None:
    taken = own.enter_context(socket.create_server(("127.0.0.1", 0)))
    config = config_for(f"unix:{directory}/a.sock", listening_address(taken))
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(AegisError):
        Slots({}).prepare(config, [0, 1])
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert list(directory.iterdir()) == [], "a socket file without anybody behind it"


def test_a_socket_of_systemd_serves_all_slots(own: contextlib.ExitStack) -> None:
    given = own.enter_context(open_listener(free_address(own), "systemd"))
    config = config_for(listening_address(given))
    slots = Slots({listening_address(given): given})
    own.callback(slots.close)
    slots.prepare(config, [0, 1])
    inode = os.fstat(given.fileno()).st_ino
    assert [os.fstat(s.fileno()).st_ino for i in (0, 1) for s in slots.of(i).values()] == [
        inode
    ] * 2
    slots.keep_only(set())
    assert (slots.of(0), given.fileno() >= 0) == ({}, True)


def test_what_is_not_wanted_any_more_is_closed(own: contextlib.ExitStack, directory: Path) -> None:
    config = config_for(f"127.0.0.1:{reserve_port(own)}", f"unix:{directory}/a.sock")
    slots = Slots({})
    own.callback(slots.close)
    slots.prepare(config, [0])
    slots.keep_only({config.listeners[0].bind})
    assert list(slots.of(0)) == [config.listeners[0].bind]
    assert list(directory.iterdir()) == []


class Holder:
    """A process that has inherited listening sockets, as a worker has."""

    def __init__(self, own: contextlib.ExitStack, *sockets: socket.socket) -> None:
        fds = [sock.fileno() for sock in sockets]
        self._child = own.enter_context(subprocess.Popen(["sleep", "1000"], pass_fds=fds))
        own.callback(self._child.kill)
        self.pidfd = os.pidfd_open(self._child.pid)
        own.callback(os.close, self.pidfd)

    def die(self) -> None:
        self._child.kill()
        self._child.wait()


def test_a_listening_socket_survives_its_controller_in_the_worker(
    own: contextlib.ExitStack,
) -> None:
    config = config_for(f"127.0.0.1:{reserve_port(own)}")
    sock = open_listener(parse_address(config.listeners[0].bind), "listener")
    sock.listen()
    holder = Holder(own, sock)
    fd, name = sock.fileno(), sock.getsockname()
    sock.close()
    waiting = own.enter_context(socket.create_connection(name))
    text, taken = take_over(holder.pidfd, {"front0": fd})["front0"]
    own.enter_context(taken)
    assert text == config.listeners[0].bind
    holder.die()
    taken.setblocking(True)
    accepted = own.enter_context(taken.accept()[0])
    assert accepted.getpeername() == waiting.getsockname()
    assert not os.get_inheritable(taken.fileno())


@pytest.mark.parametrize("reason", ["no such fd", "dead"])
def test_what_cannot_be_taken_over_is_left(own: contextlib.ExitStack, reason: str) -> None:
    sock = own.enter_context(open_listener(free_address(own), "listener"))
    holder = Holder(own, sock)
    if reason == "dead":
        holder.die()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    taken = take_over(holder.pidfd, {"front0": sock.fileno(), "front1": 999})
    assert set(taken) == (set() if reason == "dead" else {"front0"})
    close_all(dict(taken.values()))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_tells_its_address_as_the_configuration_does(
    own: contextlib.ExitStack, directory: Path, kind: Kind
) -> None:
    sock = own.enter_context(bound_socket(kind, directory))
    text = bound_to(sock)
    assert text == parse_address(text).text == listening_address(sock)


def test_a_clients_connection_is_not_mistaken_for_the_listener(own: contextlib.ExitStack) -> None:
    """It has the listener's local address, and fd numbers are reused at once."""
    config = config_for(f"127.0.0.1:{reserve_port(own)}")
    sock = own.enter_context(open_listener(parse_address(config.listeners[0].bind), "listener"))
    sock.listen()
    own.enter_context(socket.create_connection(sock.getsockname()))
    accepted = own.enter_context(sock.accept()[0])
    holder = Holder(own, accepted)
    assert take_over(holder.pidfd, {"front0": accepted.fileno()}) == {}


def test_a_probe_does_not_disturb_who_listens(own: contextlib.ExitStack) -> None:
    other = own.enter_context(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(AegisError):
        probe(parse_address(listening_address(other)), "listener")
    own.enter_context(socket.create_connection(other.getsockname()))
    assert select.select([other], [], [], 20)[0]

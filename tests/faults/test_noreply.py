"""memcached's noreply on a shared pipe: asked for without it, its reply seen by nobody.

The last tests compare with a real memcached: the same bytes sent straight to a server and through
Aegis to another must leave the same items, and show the client the same.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scripted import expect, expect_end, in_pieces, sharing
from tests.harness import DEADLINE_S, Rig, Upstream, listening_address, receive_all, wait_until
from tests.proxy import connect, needs

TINY: dict[str, Any] = {"slab_bytes": 64, "slabs": 4}
QUIET = b"set a 0 0 1 noreply\r\n1\r\n"
ASKED = b"set a 0 0 1\r\n1\r\n"


def set_up(upstream: Upstream) -> socket.socket:
    server = upstream.accept()
    expect(server, b"version\r\n")
    server.sendall(b"VERSION 1.6.18\r\n")
    return server


@pytest.mark.parametrize(
    "answer", [b"STORED\r\n", b"SERVER_ERROR out of memory storing object\r\n"]
)
def test_the_reply_is_thrown_away_and_others_stay_in_order(rig: Rig, answer: bytes) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(b"get x\r\n" + QUIET + QUIET + b"get y\r\n" + QUIET)
    server = set_up(upstream)
    expect(server, b"get x\r\n" + ASKED + ASKED + b"get y\r\n" + ASKED)
    other.sendall(b"get z\r\n")
    expect(server, b"get z\r\n")
    in_pieces(server, [b"END\r\n" + answer[:3], answer[3:] + answer, b"VALUE y 0 1\r\nY\r\nEND\r"])
    server.sendall(b"\n" + answer + b"VALUE z 0 1\r\nZ\r\nEND\r\n")
    expect(client, b"END\r\nVALUE y 0 1\r\nY\r\nEND\r\n")
    expect(other, b"VALUE z 0 1\r\nZ\r\nEND\r\n")
    assert proxy.figures().pools[0].pins == {}


def test_a_client_that_leaves_at_once_is_served_all_the_same(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(QUIET * 3)
    client.close()
    server = set_up(upstream)
    expect(server, ASKED * 3)
    server.sendall(b"STORED\r\n" * 3)
    other.sendall(b"mn\r\n")
    expect(server, b"mn\r\n")
    server.sendall(b"MN\r\n")
    expect(other, b"MN\r\n")


def test_a_pipe_that_is_lost_closes_the_client_without_a_word(rig: Rig) -> None:
    """An error would be read as the reply to whatever the client asks next."""
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream)
    client, other = proxy.connect(), proxy.connect()
    client.sendall(QUIET + b"get x\r\n")
    server = set_up(upstream)
    expect(server, ASKED + b"get x\r\n")
    other.sendall(b"get z\r\n")
    expect(server, b"get z\r\n")
    server.sendall(b"STO")
    server.close()
    expect_end(client)
    expect(other, b"SERVER_ERROR aegis: server_lost\r\n")


def test_a_slow_client_is_owed_its_replies_before_and_after(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream, buffer_bytes=4096)
    client = proxy.connect(receive_buffer=4096)
    client.sendall(b"get x\r\n" + QUIET + b"get y\r\n")
    server = set_up(upstream)
    expect(server, b"get x\r\n" + ASKED + b"get y\r\n")
    large = b"VALUE x 0 400000\r\n" + bytes(400_000) + b"\r\nEND\r\n"
    server.settimeout(DEADLINE_S)
    sender = threading.Thread(target=server.sendall, args=(large + b"STORED\r\nEND\r\n",))
    sender.start()
    expect(client, large + b"END\r\n")
    sender.join(DEADLINE_S)


@pytest.mark.parametrize("slabs", [{}, TINY])
def test_a_value_too_long_to_be_held_streams_without_the_word(
    rig: Rig, slabs: dict[str, Any]
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream, **slabs)
    client = proxy.connect()
    value = bytes(range(48, 58)) * 20_000
    client.sendall(
        b"set key 0 0 200000 noreply\r\n" + value + b"\r\nget key\r\n" + QUIET + b"mn\r\n"
    )
    server = set_up(upstream)
    expect(server, b"set key 0 0 200000\r\n" + value + b"\r\n")
    server.sendall(b"STORED\r\n")
    expect(server, b"get key\r\n" + ASKED + b"mn\r\n")
    server.sendall(b"END\r\nSTORED\r\nMN\r\n")
    expect(client, b"END\r\nMN\r\n")


def test_a_line_longer_than_a_slab_streams_without_the_word(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "memcached", upstream, **TINY)
    client = proxy.connect()
    line = b"delete " + b"k" * 200
    in_pieces(client, [line[:100], line[100:150], line[150:] + b" nor", b"eply\r", b"\nmn\r\n"])
    server = set_up(upstream)
    expect(server, line + b"\r\n")
    server.sendall(b"DELETED\r\n")
    expect(server, b"mn\r\n")
    server.sendall(b"MN\r\n")
    expect(client, b"MN\r\n")


# --- against the real server ----------------------------------------------------------------------

KEYS = b"get a b n s gone big tunnel\r\ngets a\r\n"
FIXTURE = (
    b"flush_all\r\nset n 5 0 2\r\n10\r\nset s 0 0 3\r\nabc\r\nset gone 0 0 1\r\nx\r\n"
    b"set tunnel 0 0 1\r\nt\r\n"
)
LONG_KEY = b"k" * 251
FLAWLESS = [
    b"set a 7 0 5 noreply\r\nhello\r\n",
    b"set a 0 -1 1 noreply\r\n1\r\n",
    b"set s 0 0 0 noreply\r\n\r\n",
    b"add a 0 0 1 noreply\r\n1\r\n",
    b"add s 0 0 1 noreply\r\n1\r\n",
    b"replace s 0 0 1 noreply\r\n1\r\n",
    b"replace a 0 0 1 noreply\r\n1\r\n",
    b"append s 0 0 2 noreply\r\nde\r\n",
    b"append a 0 0 2 noreply\r\nde\r\n",
    b"prepend s 0 0 2 noreply\r\nde\r\n",
    b"cas s 0 0 1 999999999 noreply\r\n1\r\n",
    b"cas a 0 0 1 1 noreply\r\n1\r\n",
    b"set big 0 0 1100000 noreply\r\n" + bytes(1_100_000) + b"\r\n",
    b"set big 0 0 500000 noreply\r\n" + b"v" * 500_000 + b"\r\n",
    b"delete gone noreply\r\n",
    b"delete a noreply\r\n",
    b"delete gone 0 noreply\r\n",
    b"incr n 5 noreply\r\n",
    b"decr n 50 noreply\r\n",
    b"incr a 5 noreply\r\n",
    b"incr s 5 noreply\r\n",
    b"incr n 99999999999999999999 noreply\r\n",
    b"touch gone -1 noreply\r\n",
    b"touch a 0 noreply\r\n",
    b"flush_all noreply\r\n",
    b"flush_all 0 noreply\r\n",
    b"flush_all 1000 noreply\r\n",
    b"delete gone noreply\n",
]
FLAWED = [
    b"set a 0 0 1 noreply\r\nxyz\r\n",
    b"set a 0 0 x noreply\r\n",
    b"set a 0 0 -1 noreply\r\n",
    b"set a 0 0 noreply\r\n",
    b"set " + LONG_KEY + b" 0 0 1 noreply\r\n1\r\n",
    b"set s 0 0 1 noreply \r\n1\r\n",
    b"cas s 0 0 1 x noreply\r\n1\r\n",
    b"delete gone 5 noreply\r\n",
    b"delete noreply\r\n",
    b"delete gone b c noreply\r\n",
    b"delete gone noreplY\r\n",
    b"delete " + LONG_KEY + b" noreply\r\n",
    b"incr n noreply\r\n",
    b"incr n x noreply\r\n",
    b"touch gone noreply\r\n",
    b"touch gone x noreply\r\n",
    b"flush_all x noreply\r\n",
    b"flush_all 1 2 noreply\r\n",
    b"get n noreply\r\n",
    b"verbosity 1 noreply\r\n",
]


def memcached(directory: Path) -> tuple["subprocess.Popen[bytes]", str]:
    (program,) = needs("memcached")
    ports = directory / "ports"
    user = ["-u", "root"] if os.getuid() == 0 else []
    server = subprocess.Popen(
        [program, "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-t", "1", *user],
        env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
    )
    wait_until(ports.exists, "memcached's ports")
    return server, f"127.0.0.1:{int(ports.read_text().split('TCP INET: ')[1].split()[0])}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[str]]:
    """Two servers that have stored nothing: what one assigns (cas numbers) the other does too."""
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append(memcached(tmp_path / name))
    yield [address for _, address in made]
    for server, _ in made:
        server.terminate()
        server.wait(DEADLINE_S)


def said_to(address: str, stream: bytes) -> bytes:
    """Return what comes for a whole conversation."""
    with connect(address) as client:
        client.sendall(stream)
        client.shutdown(socket.SHUT_WR)
        return receive_all(client)


def seen_at(address: str, request: bytes) -> bytes:
    """Return what a client sees of a request, sent twice, and of all items then and later."""
    said_to(address, FIXTURE)
    talk = b"mn\r\n" + request + b"mn\r\n" + request + KEYS
    return said_to(address, talk) + b"--\r\n" + said_to(address, KEYS)


@pytest.mark.timeout(300)
def test_a_real_server_does_the_same_and_the_client_sees_the_same(
    rig: Rig, servers: list[str]
) -> None:
    proxy = rig.proxy(
        servers[1],
        listener={"protocol": "memcached", "pooling": "multiplex"},
        backend={"max_connections": 2},
    )
    front = listening_address(proxy.sock)
    for request in FLAWLESS:
        direct = seen_at(servers[0], request)
        assert seen_at(front, request) == direct, request[:60]
        assert direct.startswith(b"MN\r\nMN\r\n"), "the server itself was not quiet"
    assert proxy.figures().pools[0].pins.keys() <= {"long_request"}
    for request in FLAWED:
        assert seen_at(front, request) == seen_at(servers[0], request), request[:60]
    assert proxy.figures().pools[0].pins["noreply"] > 0

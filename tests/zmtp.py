"""What a peer may say to a socket of ZeroMQ that is none, or means harm: bytes for a raw socket.

A connection begins with a greeting of 64 bytes, then commands and messages (ZMTP 3.1, RFC 37):

    0xFF, 8 bytes, 0x7F, version, mechanism (20 bytes), as server, filler ─▶ READY ─▶ frames
"""

import random
import socket
from pathlib import Path

from aegis.limits import MESSAGE_BYTES


def greeting(mechanism: bytes = b"NULL", version: bytes = b"\x03\x00") -> bytes:
    """Return how a peer of that version and mechanism begins."""
    head = b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0")
    return head.ljust(64, b"\0")


def ready(kind: bytes) -> bytes:
    """Return the command that ends a NULL handshake, of a socket of that type."""
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return b"\x04" + bytes([len(body)]) + body


def frame(body: bytes, size: int | None = None) -> bytes:
    """Return a message of one long frame; a `size` other than its own is a lie."""
    return b"\x02" + (len(body) if size is None else size).to_bytes(8, "big") + body


def attacks(peer: bytes, rng: random.Random) -> dict[str, bytes]:
    """Return what to say to a socket that expects a peer of that type, by what it is.

    What does not begin as a greeting does may be taken for messages of ZMTP 1.0, which had none.
    """
    open_door = greeting() + ready(peer)
    return {
        "nothing": b"",
        "HTTP": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 20,
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
        "chance": rng.randbytes(10_000),
        "half a greeting": greeting()[:11],
        "a greeting and no more": greeting(),
        "a mechanism that is none": greeting(b"MAGIC") + rng.randbytes(100),
        "a name and password": greeting(b"PLAIN") + b"\x04\x10\x05HELLO\x05admin\x03abc",
        "a version of the future": greeting(version=b"\xff\xff") + ready(peer),
        "a greeting and chance": greeting() + rng.randbytes(10_000),
        "a command without end": greeting() + b"\x06" + b"\xff" * 8 + b"\x05READY",
        "a socket of the wrong type": greeting() + ready(b"PAIR"),
        "a frame of 2^63 bytes": open_door + frame(b"x" * 1000, size=1 << 63),
        "a frame of nearly as much as there is": open_door + frame(b"x", size=(1 << 40)),
        "a message that is too long": open_door + frame(bytes(MESSAGE_BYTES + 1)),
        "a subscription": open_door + b"\x00\x01\x01",
        "half a message": open_door + frame(b"x" * 10, size=1000),
    }


def connect(place: Path | tuple[str, int], timeout_s: float = 20.0) -> socket.socket:
    """Connect a raw socket to a socket file or a TCP address."""
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.connect(str(place) if isinstance(place, Path) else place)  # waits for the backlog
    sock.settimeout(timeout_s)
    return sock


def attack(place: Path | tuple[str, int], said: bytes) -> None:
    """Say it and leave, without waiting for anything to be understood."""
    with connect(place) as sock:
        try:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has been cut already
            return
        while True:  # until the other side has had enough
            try:
                if not sock.recv(65536):
                    return
            except ConnectionError:
                return

"""What one check does: connect, perhaps say something, and judge the answer.

    probe ─▶ connect (connect_timeout_s) ─▶ tcp: that is enough
                └─ reply_timeout_s ─▶ ping: the framer finds a whole reply that is no error
                                      send: `expect` is in what comes
                                      http: the status is one of those wanted

Addresses are numbers, so nothing is looked up, and everything waits in the event loop only.
"""

import asyncio
import errno
import re
import socket

from aegis import limits
from aegis.addresses import Address, parse_address
from aegis.config_health import Health, parse_status
from aegis.framers.contract import ProtocolError
from aegis.framers.registry import make_framer

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
_STATUS_LINE_BYTES = 13


class CheckFailedError(Exception):
    """The server is not well; the text says why, in a word or a few."""


async def probe(address: Address, health: Health, protocol: str) -> None:
    """Check a server once.

    Args:
        address: the server's, with the port that is to be checked.
        health: how.
        protocol: for a ping, whose.

    Raises:
        CheckFailedError: it is not well.
    """
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            try:
                async with asyncio.timeout(health.connect_timeout_s):
                    await loop.sock_connect(sock, address.sockaddr)
            except TimeoutError:
                raise CheckFailedError("connect timeout") from None
            try:
                async with asyncio.timeout(health.reply_timeout_s):
                    await _talk(sock, health, protocol)
            except TimeoutError:
                raise CheckFailedError("reply timeout") from None
    except OSError as error:
        raise CheckFailedError(errno.errorcode.get(error.errno or 0, str(error))) from None


def checked_address(text: str, health: Health) -> Address:
    """Return where a server's checks go."""
    address = parse_address(text)
    if not health.port or address.is_unix:
        return address
    return parse_address(f"{address.text.rpartition(':')[0]}:{health.port}")


async def _talk(sock: socket.socket, health: Health, protocol: str) -> None:
    if health.type == "ping":
        await _ping(sock, protocol)
    elif health.type == "send":
        await _send_and_expect(sock, health.send.encode("latin-1"), health.expect.encode("latin-1"))
    elif health.type == "http":
        request = f"{health.method} {health.path} HTTP/1.1\r\nHost: {health.host}\r\n"
        await _ask(sock, f"{request}Connection: close\r\n\r\n".encode(), health.status)


async def _ping(sock: socket.socket, protocol: str) -> None:
    framer = make_framer(protocol)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, framer.ping)
    parser = framer.replies()
    left = limits.CHECK_REPLY_BYTES
    while left > 0:
        data = bytearray(await _receive(sock))
        left -= len(data)
        try:
            stop, done = parser.feed(data, 0, len(data), 1, 0)
        except ProtocolError as error:
            raise CheckFailedError(f"protocol error: {error}") from None
        if done:
            if parser.failed:
                raise CheckFailedError(f"error reply: {_shown(bytes(data[:stop]))}")
            return
    raise CheckFailedError("reply without an end")


async def _send_and_expect(sock: socket.socket, send: bytes, expect: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, send)
    said = b""
    while len(said) < limits.CHECK_REPLY_BYTES:
        part = await _receive(sock, said)
        said += part
        if expect in said:
            return
    raise CheckFailedError(f"unexpected answer: {_shown(said)}")


async def _ask(sock: socket.socket, request: bytes, wanted: str) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, request)
    said = b""
    while len(said) < _STATUS_LINE_BYTES:
        said += await _receive(sock, said)
    match = _STATUS_LINE.match(said)
    if match is None:
        raise CheckFailedError(f"not HTTP/1: {_shown(said)}")
    status = int(match[1])
    if not any(low <= status <= high for low, high in parse_status(wanted)):
        raise CheckFailedError(f"status {status}")


async def _receive(sock: socket.socket, before: bytes = b"") -> bytes:
    data = await asyncio.get_running_loop().sock_recv(sock, limits.CHECK_REPLY_BYTES)
    if not data:
        raise CheckFailedError(f"closed after {_shown(before)}" if before else "closed unanswered")
    return data


def _shown(said: bytes) -> str:
    return repr(said[:40].decode("latin-1"))

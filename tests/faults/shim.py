"""A TCP relay between a worker and its server that splits, counts and cuts.

worker ──▶ Shim ──▶ server      bytes go on in pieces of a size chosen for each connection;
                                `most` is how many connections were open at one moment
"""

import asyncio
import contextlib
import random
import socket

PIECES = (1, 3, 17, 100, 1448, *[65_536] * 15)
"""Bytes read at once; most connections are not slowed."""

ESTABLISHED = 1  # tcp_states.h; the first byte of struct tcp_info is the state


class Shim:
    """Listens on a port of the kernel's choice; `target` may be unreachable."""

    def __init__(self, rng: random.Random, target: tuple[str, int]) -> None:
        self._rng = rng
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self._near: set[socket.socket] = set()
        self._cut: list[asyncio.StreamWriter] = []
        self.target = target
        self.address = ""
        self.accepted = 0
        self.most = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=1 << 17)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_one(self) -> bool:
        """Reset a connection, both ways."""
        if not self._cut:
            return False
        writer = self._rng.choice(self._cut)
        self._near.discard(writer.get_extra_info("socket"))
        writer.transport.abort()
        return True

    @property
    def open_now(self) -> int:
        return len(self._near)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        sock = writer.get_extra_info("socket")
        self.accepted += 1
        self._near = {near for near in self._near if not _has_ended(near)}
        self._near.add(sock)
        self.most = max(self.most, len(self._near))
        self._cut.append(writer)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._near.discard(sock)
            self._cut.remove(writer)
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.target, limit=1 << 17)
        try:
            up = asyncio.ensure_future(self._pump(reader, far_writer))
            down = asyncio.ensure_future(self._pump(far_reader, writer))
            try:
                await asyncio.gather(up, down)
            finally:
                up.cancel()
                down.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await asyncio.gather(up, down)
        finally:
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = self._rng.choice(PIECES)
        while data := await reader.read(piece):
            writer.write(data)
            await writer.drain()
            if self._rng.random() < 0.02:
                piece = self._rng.choice(PIECES)
        if writer.can_write_eof():
            writer.write_eof()


def _has_ended(sock: socket.socket) -> bool:
    """Whether the worker has closed its end, although not all it sent was read yet."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED
    except OSError:
        return True

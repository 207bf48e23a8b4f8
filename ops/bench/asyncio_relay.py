"""A relay as anybody writes it with asyncio streams: what Python costs when nobody cares.

python -m ops.bench.asyncio_relay LISTEN_PORT SERVER_PORT
"""

import asyncio
import contextlib
import sys

CHUNK_BYTES = 65_536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def relay(listen_port: int, server_port: int) -> None:
    """Serve until a signal ends the process."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_writer = None
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))
        for each in filter(None, (server_writer, writer)):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", listen_port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), int(sys.argv[2])))

"""Reads a PROXY header from a client, and not a byte of what follows it."""

from socket import MSG_PEEK, socket

from aegis.limits import PEEK_BYTES
from aegis.proxy_protocol import Endpoints, HeaderParser
from workers.loop import READ
from workers.steps import Steps


def read_header(client: socket) -> Steps[Endpoints | None]:
    """Return what the header says.

    Looked at first, then consumed as far as it belongs to the header: nothing is left behind, so
    that epoll tells of more only when there is more.

    Raises:
        ProxyProtocolError: it is none.
        OSError: the connection has broken, or ended before the header did.
    """
    parser = HeaderParser()
    while not parser.done:
        try:
            data = client.recv(PEEK_BYTES, MSG_PEEK)
        except BlockingIOError:
            yield READ
            continue
        if not data:
            raise ConnectionResetError("ended in its PROXY header")
        used = parser.feed(data)
        client.recv(used)
    return parser.endpoints

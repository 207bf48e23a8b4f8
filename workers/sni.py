"""Which backend a TLS client is for, by the server name in its ClientHello.

    peek ─▶ ClientHello ─ more needed: SO_RCVLOWAT ─▶ epoll ─▶ peek …        the bytes stay where
                        └ name ─▶ Routes ─▶ backend                          they are: nothing is
                                                                             handed over
A peek alone would make epoll report the same bytes every turn. With SO_RCVLOWAT a TCP socket is
readable only when so many bytes are there, or the end is (tcp(7), tcp_stream_is_readable; Linux
since 4.20).
"""

from collections.abc import Iterable
from socket import MSG_PEEK, SO_RCVLOWAT, SOL_SOCKET, socket
from typing import Generic, TypeVar

from aegis.client_hello import MAX_HELLO_BYTES, ClientHello
from workers.loop import READ
from workers.steps import Steps

Target = TypeVar("Target")
_MAX_PEEK_BYTES = 8 * MAX_HELLO_BYTES  # a record may hold a byte, and has a head of five


def read_name(client: socket) -> Steps[str]:
    """Return the name that the client asks for, and leave all its bytes unread.

    Raises:
        OSError: the connection has broken.
    """
    hello = ClientHello()
    seen, low_water = 0, 1
    while not hello.done and seen < _MAX_PEEK_BYTES:
        try:
            data = client.recv(_MAX_PEEK_BYTES, MSG_PEEK)
        except BlockingIOError:
            yield READ
            continue
        if len(data) == seen:  # the end came instead of more
            break
        hello.feed(data[seen:])
        seen = len(data)
        if not hello.done:
            low_water = seen + hello.need
            client.setsockopt(SOL_SOCKET, SO_RCVLOWAT, low_water)
            yield READ
    if low_water > 1:
        client.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 1)
    return hello.name


class Routes(Generic[Target]):
    """Names, some of which begin with `*.`, and where who asks for them goes."""

    def __init__(self, routes: Iterable[tuple[str, Target]], default: Target) -> None:
        self._routes = {name.lower(): target for name, target in routes}
        self._default = default

    def target(self, name: str) -> Target:
        """Return where a name in lower case leads: the longest one that fits counts."""
        if name in self._routes:
            return self._routes[name]
        while name:
            name = name.partition(".")[2]
            if (found := self._routes.get(f"*.{name}")) is not None:
                return found
        return self._default

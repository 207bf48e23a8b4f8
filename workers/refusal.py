"""How a client that gets no session learns of it: by the protocol's error, by a close, or not.

    error   say it ─▶ shutdown ─▶ read and discard until the client closes, or LINGER_S ─▶ close
    close   close: a FIN, or a reset if the client has said something already
    drop    forget the connection, so that the kernel says nothing

To drop is HAProxy's `silent-drop`: with CAP_NET_ADMIN a socket in repair mode is closed without a
packet (tcp_close in net/ipv4/tcp.c); without it the reset gets a time to live of one hop, which the
first router ends. Either way nothing of it is left here, while keeping the client waiting would
cost an fd for each, just when there are too many. A client on the same network sees the reset; one
that goes on talking is reset by the kernel, which knows no such connection.
"""

import contextlib
import socket
from typing import Final

from workers.tcp import reset_on_close

_TCP_REPAIR: Final = 19  # linux/tcp.h; not in the socket module


def vanish(client: socket.socket) -> None:
    """Prepare a socket so that the peer hears nothing of its close."""
    if client.family == socket.AF_UNIX:
        return
    try:
        client.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except PermissionError:
        reset_on_close(client)
        with contextlib.suppress(OSError):
            if client.family == socket.AF_INET:
                client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            else:
                client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)

"""A TLS handshake as steps: what costs CPU has its turn, so that others have theirs."""

import ssl

from workers.steps import TURN, Steps
from workers.tls import DONE, TlsSocket


def shake_hands(sock: TlsSocket, waits: int) -> Steps[None]:
    """Wait for what the handshake waits for, and go on with it, until it is done.

    Raises:
        ssl.SSLError: it has failed.
        OSError: the connection is broken.
    """
    while waits != DONE:
        yield waits
        yield TURN
        waits = sock.handshake()


def reason_of(error: ssl.SSLError) -> str:
    """Return why a handshake failed, in OpenSSL's fixed words."""
    if isinstance(error, ssl.SSLEOFError):
        return "EOF"
    return error.reason or "UNKNOWN"

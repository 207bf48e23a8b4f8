"""A framer for `prefixed`: four bytes of length, big-endian, then the body; one reply a request."""

from aegis.framers.contract import ProtocolError
from aegis.framers.sized import SizedFramer

MAX_BODY_BYTES = 64 << 20


def frame(body: bytes) -> bytes:
    """Write a frame."""
    return len(body).to_bytes(4, "big") + body


class Prefixed(SizedFramer):
    """The framer; the configuration says `protocol = "prefixed"`."""

    name = "prefixed"
    head_bytes = 4
    ping = frame(b"")

    def frame_bytes(self, head: bytes) -> int:
        """Return how long the frame is that begins with this head."""
        body_bytes = int.from_bytes(head, "big")
        if body_bytes > MAX_BODY_BYTES:
            raise ProtocolError(f"a body of more than {MAX_BODY_BYTES} bytes")
        return 4 + body_bytes

    def error(self, why: str) -> bytes:
        """Return what a client reads when the proxy cannot serve its request."""
        return frame(b"error: " + why.encode())

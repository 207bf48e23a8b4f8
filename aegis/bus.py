"""The ZeroMQ sockets of the bus, made one way everywhere, and messages over them.

Endpoints are `ipc://` sockets in the runtime directory, which is mode 0700. Sends never wait: a
peer that is slow or gone costs a dropped message, which the next one makes up for.

    commands   PUB  binds controller │ SUB    worker
    reports    PULL binds controller │ PUSH   worker
    requests   ROUTER     controller │ REQ    aegis-ctl
    telemetry  PULL binds exporter   │ PUSH   worker, controller
    sessions   PULL binds exporter   │ PUSH   worker
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from aegis.errors import BusError
from aegis.limits import (
    MESSAGE_BYTES,
    REPORTS_HWM,
    REQUEST_TIMEOUT_S,
    SEND_HWM,
    SESSION_LOG_HWM,
)
from aegis.messages import Reply, Request, SocketName

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a foreign message may raise: wrong types, bad UTF-8, nesting without end."""

_encode = msgspec.msgpack.Encoder().encode
_decode_reply: Callable[[bytes], Reply] = msgspec.msgpack.Decoder(Reply).decode


def endpoint(runtime_dir: Path, name: SocketName) -> str:
    """Return where the socket of that name is bound."""
    return f"ipc://{runtime_dir}/{name}.ipc"


def bind(context: zmq.Context[Any], kind: int, runtime_dir: Path, name: SocketName) -> Any:
    """Make a bound socket.

    Raises:
        BusError: the endpoint cannot be bound.
    """
    sock = _socket(context, kind)
    if name == "sessions":
        sock.setsockopt(zmq.RCVHWM, SESSION_LOG_HWM)
    try:
        sock.bind(endpoint(runtime_dir, name))
    except zmq.ZMQError as error:
        raise BusError(f"{runtime_dir}/{name}.ipc: {error.strerror}") from None
    return sock


def connect(context: zmq.Context[Any], kind: int, runtime_dir: Path, name: SocketName) -> Any:
    """Make a connected socket; ZeroMQ connects, and reconnects, in the background."""
    sock = _socket(context, kind)
    if kind == zmq.SUB:
        sock.subscribe(b"")
    elif kind == zmq.PUSH:  # without a peer it would keep them all, and hand a new one old news
        sock.setsockopt(zmq.SNDHWM, SESSION_LOG_HWM if name == "sessions" else REPORTS_HWM)
    sock.connect(endpoint(runtime_dir, name))
    return sock


def _socket(context: zmq.Context[Any], kind: int) -> Any:
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
    sock.setsockopt(zmq.SNDHWM, SEND_HWM)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)  # ms; a restarted peer is found again within a heartbeat
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    return sock


def send(sock: Any, message: msgspec.Struct) -> bool:
    """Send without waiting; False when there is no room or no peer."""
    try:
        sock.send(_encode(message), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def ask(runtime_dir: Path, request: Request, timeout_s: float = REQUEST_TIMEOUT_S) -> Reply:
    """Send one request to the controller and wait for its reply.

    Raises:
        BusError: no reply in time, or one that makes no sense.
    """
    context = zmq.Context()
    try:
        sock = connect(context, zmq.REQ, runtime_dir, "requests")
        sock.send(_encode(request))
        if not sock.poll(timeout_s * 1000):
            raise BusError(f"the controller in {runtime_dir} did not answer within {timeout_s:g} s")
        try:
            return _decode_reply(sock.recv())
        except UNREADABLE as error:
            raise BusError(f"the controller in {runtime_dir} answered nonsense: {error}") from None
    finally:
        context.destroy(linger=0)

"""The ZeroMQ sockets of the bus, made one way everywhere, and messages over them.

Endpoints are `ipc://` sockets in the runtime directory, which is mode 0700, or `tcp://` with CURVE
(curve.py) where `[bus]` says so. Sends never wait: a peer that is slow or gone costs a dropped
message, which the next one makes up for.

    commands   PUB  binds controller │ SUB    worker
    reports    PULL binds controller │ PUSH   worker
    requests   ROUTER     controller │ REQ    aegis-ctl
    telemetry  PULL binds exporter   │ PUSH   worker, controller
    sessions   PULL binds exporter   │ PUSH   worker
"""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import zmq

from aegis import curve
from aegis.config_bus import LOCAL, Bus
from aegis.errors import AegisError, BusError
from aegis.limits import (
    BUS_PROBE_S,
    HANDSHAKE_S,
    MESSAGE_BYTES,
    REPORTS_HWM,
    REQUEST_TIMEOUT_S,
    SEND_HWM,
    SESSION_LOG_HWM,
)
from aegis.messages import Reply, Request, SocketName

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a foreign message may raise: wrong types, bad UTF-8, nesting without end."""

encode = msgspec.msgpack.Encoder().encode
_decode_reply: Callable[[bytes], Reply] = msgspec.msgpack.Decoder(Reply).decode


def endpoint(runtime_dir: Path, name: SocketName, conf: Bus = LOCAL) -> str:
    """Return where the socket of that name is bound."""
    elsewhere = {"requests": conf.requests, "telemetry": conf.telemetry, "sessions": conf.sessions}
    return elsewhere.get(name) or f"ipc://{runtime_dir}/{name}.ipc"


def bind(
    context: zmq.Context[Any], kind: int, runtime_dir: Path, name: SocketName, conf: Bus = LOCAL
) -> Any:
    """Make a bound socket; over TCP the context needs a `curve.Gate` before it.

    Raises:
        AegisError: the endpoint cannot be bound, or the keys cannot be used.
    """
    where = endpoint(runtime_dir, name, conf)
    sock = _socket(context, kind, where)
    if name == "sessions":
        sock.setsockopt(zmq.RCVHWM, SESSION_LOG_HWM)
    try:
        if _is_tcp(where):
            curve.serve(sock, Path(conf.keys), name)
        sock.bind(where)
    except zmq.ZMQError as error:
        sock.close()
        raise BusError(f"{where.removeprefix('ipc://')}: {error.strerror}") from None
    except AegisError:
        sock.close()
        raise
    return sock


def connect(
    context: zmq.Context[Any], kind: int, runtime_dir: Path, name: SocketName, conf: Bus = LOCAL
) -> Any:
    """Make a connected socket; ZeroMQ connects, and reconnects, in the background.

    Raises:
        AegisError: over TCP, the keys cannot be used.
    """
    where = endpoint(runtime_dir, name, conf)
    sock = _socket(context, kind, where)
    if kind == zmq.SUB:
        sock.subscribe(b"")
    elif kind == zmq.PUSH:  # without a peer it would keep them all, and hand a new one old news
        sock.setsockopt(zmq.SNDHWM, SESSION_LOG_HWM if name == "sessions" else REPORTS_HWM)
    try:
        if _is_tcp(where):
            curve.call(sock, Path(conf.keys), name)
    except AegisError:
        sock.close()
        raise
    sock.connect(where)
    return sock


def _is_tcp(where: str) -> bool:
    return where.startswith("tcp://")


def _socket(context: zmq.Context[Any], kind: int, where: str) -> Any:
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
    sock.setsockopt(zmq.SNDHWM, SEND_HWM)
    sock.setsockopt(zmq.RECONNECT_IVL, 50)  # ms; a restarted peer is found again within a heartbeat
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    sock.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
    if _is_tcp(where):
        sock.setsockopt(zmq.IPV6, 1)
        # Without it TCP notices after a quarter of an hour that the other machine is gone.
        sock.setsockopt(zmq.HEARTBEAT_IVL, int(BUS_PROBE_S * 1000))
        sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(2 * BUS_PROBE_S * 1000))
    return sock


def watch(context: zmq.Context[Any], sock: Any, events: int) -> Any:
    """Return a socket that tells of events on another one, until `unwatch`.

    libzmq sends an event from its I/O thread and waits for room (socket_base.cpp, monitor_event): a
    full or a closed other end would stop all that thread does. So there is always room.
    """
    where = f"inproc://events-{id(sock)}"
    sock.monitor(where, events)
    watcher = context.socket(zmq.PAIR)
    watcher.setsockopt(zmq.RCVHWM, 0)
    watcher.connect(where)
    return watcher


def unwatch(sock: Any, watcher: Any) -> None:
    """Have no more events told; before either socket is closed."""
    sock.monitor(None, 0)
    watcher.close(linger=0)


def send(sock: Any, message: msgspec.Struct) -> bool:
    """Send without waiting; False when there is no room or no peer, or it is too long.

    Who receives a message of more than MESSAGE_BYTES would cut the connection.
    """
    data = encode(message)
    if len(data) > MESSAGE_BYTES:
        return False
    try:
        sock.send(data, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def ask(
    runtime_dir: Path, request: Request, timeout_s: float = REQUEST_TIMEOUT_S, conf: Bus = LOCAL
) -> Reply:
    """Send one request to the controller and wait for its reply.

    On one machine the request says until when anybody waits for it: a controller that was stopped
    meanwhile does not do later what the user has been told was not done.

    Raises:
        AegisError: no reply in time, or one that makes no sense; over TCP also that the controller
            does not know our key.
    """
    whose = f"at {conf.requests}" if conf.requests else f"in {runtime_dir}"
    until = [] if conf.requests else [encode(monotonic() + timeout_s)]
    context = zmq.Context()
    try:
        sock = connect(context, zmq.REQ, runtime_dir, "requests", conf)
        refusals = watch(context, sock, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        sock.send_multipart([*until, encode(request)])
        poller = zmq.Poller()
        for each in (sock, refusals):
            poller.register(each, zmq.POLLIN)
        ready = dict(poller.poll(int(timeout_s * 1000)))
        unwatch(sock, refusals)
        if refusals in ready:
            raise BusError(f"the controller {whose} does not know the key in {conf.keys}")
        if sock not in ready:
            raise BusError(f"the controller {whose} did not answer within {timeout_s:g} s")
        try:
            return _decode_reply(sock.recv_multipart()[-1])
        except UNREADABLE as error:
            raise BusError(f"the controller {whose} answered nonsense: {error}") from None
    finally:
        context.destroy(linger=0)

"""What stands behind listeners: the backends, their servers, and where servers are found.

A server is an address as text, or a table that says more of it; `servers_of` makes tables of both,
with the address as all processes write it.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aegis import limits
from aegis.addresses import parse_address
from aegis.config_health import Health, OutlierDetection
from aegis.config_tls import BackendTls
from aegis.config_types import (
    Keepalive,
    Name,
    PositiveTimeout,
    ResolverAddress,
    ServerAddress,
    ServerName,
    Timeout,
)

_DISCOVER_ALLOWED = '"" (nowhere), "dns:HOST:PORT", "srv:NAME" or "file:/absolute/path"'
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


def parse_discover(text: str) -> tuple[Literal["dns", "srv", "file"], str, int]:
    """Return the kind, the host, name or path, and for `dns` the port.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    kind, _, rest = text.partition(":")
    if kind == "file" and rest.startswith("/") and rest.isprintable():
        return "file", rest, 0
    if kind == "srv" and _HOST.fullmatch(rest):
        return "srv", rest, 0
    host, _, port = rest.rpartition(":")
    if kind == "dns" and _HOST.fullmatch(host) and port.isdecimal() and 0 < int(port) < 65_536:
        return "dns", host, int(port)
    raise ValueError(_DISCOVER_ALLOWED)


def _check_discover(text: str) -> None:
    if text:
        parse_discover(text)


Discover = Annotated[str, Meta(extra={"allowed": _DISCOVER_ALLOWED, "parse": _check_discover})]


class Dns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How names of servers are looked up."""

    resolvers: Annotated[
        tuple[ResolverAddress, ...],
        Meta(
            description="Name servers, asked in this order; without it, those of this machine "
            "(`/etc/resolv.conf`).",
        ),
    ] = ()
    timeout_s: Annotated[
        PositiveTimeout, Meta(description="How long one look-up may take in all.")
    ] = 5.0


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One server of a backend."""

    address: Annotated[ServerAddress, Meta(description="Where it is.")]
    name: Annotated[
        ServerName,
        Meta(description="What else it is called; unique in the backend. Empty: its address."),
    ] = ""
    weight: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_WEIGHT,
            description="Its part of new sessions beside the other servers'; 0: none.",
        ),
    ] = 1
    backup: Annotated[
        bool,
        Meta(description="Whether it gets sessions only while no other server is usable."),
    ] = False
    max_connections: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_CONNECTIONS,
            description="Connections to it, over all workers; sessions go to another server, or "
            "wait their turn. 0 = no limit.",
        ),
    ] = 0


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A named group of servers that hold the same data."""

    name: Annotated[Name, Meta(description="Unique among backends; what listeners refer to.")]
    servers: Annotated[
        tuple[ServerAddress | Server, ...],
        Meta(
            description="The servers: addresses, or tables. With `discover`, what there is until "
            "that has answered, and may be left out.",
            extra={"min_length": 1},  # where it is written; it travels to workers without
            extra_json_schema={"minItems": 1},
        ),
    ] = ()
    discover: Annotated[
        Discover,
        Meta(
            description="Where the servers are found instead: the addresses of a DNS name, SRV "
            "records, or a file that is watched."
        ),
    ] = ""
    balance: Annotated[
        Literal[
            "round_robin", "roundrobin", "least_conn", "leastconn", "random", "first", "source"
        ],
        Meta(
            description="Which server a session gets, by weight: the next in turn; the one with "
            "the fewest connections of this worker; the better of two at random; the first that "
            "has room; one for each client's address."
        ),
    ] = "round_robin"
    connect_timeout_s: Annotated[
        PositiveTimeout, Meta(description="How long one attempt to connect to a server may take.")
    ] = 5.0
    connect_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=limits.CONNECT_ATTEMPTS,
            description="Attempts in all, over the servers, before the client is closed.",
        ),
    ] = 3
    max_connections: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_CONNECTIONS,
            description="Connections to the servers, over all workers; more clients wait their "
            "turn. With fewer than workers, a share has to move between workers, which takes some "
            "hundred milliseconds: so few are best served with fewer `workers`. 0 = no limit.",
        ),
    ] = 0
    queue_timeout_s: Annotated[
        PositiveTimeout, Meta(description="How long a client may wait for a connection.")
    ] = 5.0
    queue_max: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_QUEUE,
            description="Clients that may wait for a pipe in each worker; more are refused.",
        ),
    ] = 1_000
    reply_timeout_s: Annotated[
        Timeout,
        Meta(
            description="A pipe that is shared ends when it owes a reply and its server has been "
            "silent for so long; who waits for it gets the protocol's error. 0 = never."
        ),
    ] = 0.0
    pool_min: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_CONNECTIONS,
            description="Pipes kept open ahead of need, over all workers, for each protocol; "
            "for `warm` listeners spare connections, and at least 1.",
        ),
    ] = 0
    max_idle_s: Annotated[
        Timeout,
        Meta(
            description="A pipe beyond `pool_min` that nobody used for so long is closed, and so "
            "is a spare connection of a `warm` listener, which is replaced; 0 = never."
        ),
    ] = 60.0
    max_lifetime_s: Annotated[
        Timeout,
        Meta(
            description="A pipe is replaced after about so long, at a moment when it owes "
            "nothing; 0 = never."
        ),
    ] = 3600.0
    server_fin_timeout_s: Annotated[
        Timeout,
        Meta(
            description="Once the client has closed its half, a server may stay silent so long, "
            "and so long may it take to read what was sent before a close; 0 = for ever."
        ),
    ] = 300.0
    keepalive_s: Annotated[
        Keepalive,
        Meta(description="Silence before TCP keepalive probes a server (`TCP_KEEPIDLE`); 0 = off."),
    ] = 60
    slow_start_s: Annotated[
        Timeout,
        Meta(
            description="A server that comes back, or is added, gets its full weight only after "
            "so long, and ever more of it until then."
        ),
    ] = 0.0
    on_marked_down: Annotated[
        Literal["none", "shutdown-sessions"],
        Meta(description="What a server's sessions suffer when it goes down: nothing, or a reset."),
    ] = "none"
    panic_threshold_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="With fewer servers healthy than this, health is ignored, so that the few "
            "are not overrun; backups do not count. 0 = never.",
        ),
    ] = 0
    send_proxy: Annotated[
        Literal["off", "v1", "v2"],
        Meta(
            description="Whether each connection to a server begins with a PROXY header, of this "
            "version, that says who the client is."
        ),
    ] = "off"
    tls: Annotated[
        BackendTls | None,
        Meta(description="TLS that is spoken to the servers; without it, none is."),
    ] = None
    health: Annotated[
        Health | None, Meta(description="How the servers are checked; without it, they are not.")
    ] = None
    outlier_detection: Annotated[
        OutlierDetection | None,
        Meta(description="When clients' failures take a server out; without it, they do not."),
    ] = None


def servers_of(servers: tuple[str | Server, ...]) -> tuple[Server, ...]:
    """Return tables, each with the canonical address."""
    tables = [each if isinstance(each, Server) else Server(address=each) for each in servers]
    return tuple(
        msgspec.structs.replace(each, address=parse_address(each.address).text) for each in tables
    )

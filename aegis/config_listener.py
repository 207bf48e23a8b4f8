"""Where clients connect: an address, who may come and do how much, and which servers they meet."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aegis import limits
from aegis.access import NETWORK_FORMS, RULE_FORMS, parse_network, parse_rule
from aegis.config_tls import ListenerTls, is_host_name
from aegis.config_types import BindAddress, Keepalive, Name, Pooling, Protocol, Timeout

_SNI_NAMES = 'a host name in ASCII such as "db1.example.org", or "*." and one'


def _parse_sni_name(text: str) -> None:
    if not is_host_name(text.removeprefix("*.")):
        raise ValueError(_SNI_NAMES)


AccessRule = Annotated[str, Meta(extra={"allowed": RULE_FORMS, "parse": parse_rule})]
Network = Annotated[str, Meta(extra={"allowed": NETWORK_FORMS, "parse": parse_network})]
SniName = Annotated[str, Meta(extra={"allowed": _SNI_NAMES, "parse": _parse_sni_name})]
SessionLimit = Annotated[int, Meta(ge=0, le=limits.MAX_SESSIONS)]
Bandwidth = Annotated[int, Meta(ge=0, le=limits.MAX_BYTES_PER_S)]


class SniRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which backend serves the TLS clients that ask for a name."""

    name: Annotated[
        SniName,
        Meta(description="Name of the server; `*.example.org` is any name that ends so."),
    ]
    backend: Annotated[str, Meta(description="Name of the backend that serves these clients.")]


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An address that accepts clients, and how these meet the servers of a backend."""

    name: Annotated[Name, Meta(description="Unique among listeners; a label of its metrics.")]
    bind: Annotated[BindAddress, Meta(description="Address that accepts clients.")]
    backend: Annotated[str, Meta(description="Name of the backend that serves the clients.")]
    protocol: Annotated[
        Protocol,
        Meta(
            description="What the clients speak; `raw` is any protocol, unread; other packages "
            "may [bring more](framers.md)."
        ),
    ] = "raw"
    pooling: Annotated[
        Pooling,
        Meta(
            description="How clients share connections to servers; `off` gives each client its own."
        ),
    ] = "off"
    backlog: Annotated[
        int,
        Meta(
            ge=1,
            le=limits.MAX_BACKLOG,
            description="Connections the kernel queues for each worker until it accepts them; "
            "`net.core.somaxconn` caps it.",
        ),
    ] = 4096
    access: Annotated[
        tuple[AccessRule, ...],
        Meta(
            description="Who may come: the first rule that matches the client's address decides; "
            "if none does, it may."
        ),
    ] = ()
    proxy_protocol: Annotated[
        Literal["off", "required"],
        Meta(
            description="Whether each client begins with a PROXY header, of version 1 or 2, that "
            "says its address."
        ),
    ] = "off"
    trusted: Annotated[
        tuple[Network, ...],
        Meta(description="Whose PROXY header is believed; all others are refused."),
    ] = ()
    sni: Annotated[
        tuple[SniRoute, ...],
        Meta(
            description="Backends by the name that a TLS client asks for, which is read without "
            "ending TLS; `backend` serves the others.",
            extra={"allowed": 'an array of tables `{ name = "…", backend = "…" }`'},
        ),
    ] = ()
    tls: Annotated[
        ListenerTls | None, Meta(description="TLS of clients, ended here; without it, none is.")
    ] = None
    max_sessions: Annotated[
        SessionLimit, Meta(description="Sessions at once, over all workers; 0 = no limit.")
    ] = 0
    max_sessions_per_client: Annotated[
        SessionLimit,
        Meta(description="Sessions at once of one address (of IPv6 one /64); 0 = no limit."),
    ] = 0
    accept_rate_per_client: Annotated[
        float,
        Meta(
            ge=0,
            le=limits.MAX_ACCEPT_RATE,
            description="Sessions that one address (of IPv6 one /64) may begin in a second, in the "
            "long run; 0 = no limit.",
        ),
    ] = 0.0
    accept_burst_per_client: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_SESSIONS,
            description="Sessions that it may begin at once before that rate counts; 0 = those of "
            "one second, at least 1.",
        ),
    ] = 0
    refusal: Annotated[
        Literal["error", "close", "drop"],
        Meta(
            description="How who is refused learns it: by the protocol's error, by a close, or not "
            "at all."
        ),
    ] = "error"
    max_frame_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_FRAME_BYTES,
            description="The largest request, if pipes are shared; 0 = no limit.",
        ),
    ] = 0
    max_pipelined: Annotated[
        int,
        Meta(
            ge=1,
            le=limits.MAX_PIPELINED,
            description="Replies that a client may be owed, if pipes are shared, before it is "
            "read no further; what has come in one read goes on whole.",
        ),
    ] = limits.MAX_PIPELINED
    upload_bytes_per_s: Annotated[
        Bandwidth,
        Meta(description="What a session may send to its server, in the long run; 0 = no limit."),
    ] = 0
    download_bytes_per_s: Annotated[
        Bandwidth,
        Meta(description="What a session may send to its client, in the long run; 0 = no limit."),
    ] = 0
    first_byte_timeout_s: Annotated[
        Timeout,
        Meta(
            description="A client that has sent nothing for so long is refused; PROXY header and "
            "TLS handshake have to be complete by then, too. 0 = never, and 30 s for these two."
        ),
    ] = 0.0
    idle_timeout_s: Annotated[
        Timeout,
        Meta(
            description="A session in which no byte moved either way for so long ends; 0 = never."
        ),
    ] = 3600.0
    client_fin_timeout_s: Annotated[
        Timeout,
        Meta(
            description="Once the server has closed its half, a client may stay silent so long; "
            "0 = for ever."
        ),
    ] = 30.0
    keepalive_s: Annotated[
        Keepalive,
        Meta(description="Silence before TCP keepalive probes a client (`TCP_KEEPIDLE`); 0 = off."),
    ] = 60

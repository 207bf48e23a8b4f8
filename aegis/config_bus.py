"""`[bus]`: which sockets of the bus other machines may reach, and with whose keys.

Commands and reports stay on the machine, because workers inherit the controller's sockets. Requests
over TCP come beside those of the runtime directory; telemetry and sessions go one way or the other.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from aegis.addresses import TCP_FORMS, Address, parse_server_address, parse_tcp_address

SCHEME = "tcp://"
_WHERE = f'"" (a socket in the runtime directory) or "{SCHEME}" and '
_BOUND_ALLOWED = _WHERE + TCP_FORMS
_REACHED_ALLOWED = f'{_WHERE}"IPv4:port", "[IPv6]:port" or "localhost:port"'
_KEYS_ALLOWED = '"" (none) or an absolute path'


def parse_endpoint(text: str) -> Address | None:
    """Return the TCP address of an endpoint that is bound; None for none.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    if not text:
        return None
    if not text.startswith(SCHEME):
        raise ValueError(_BOUND_ALLOWED)
    return parse_tcp_address(text.removeprefix(SCHEME))


def parse_reached_endpoint(text: str) -> Address | None:
    """Return the same of one that others connect to by this very text, so of one address.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    address = parse_endpoint(text)
    if address is not None:
        parse_server_address(address.text)
    return address


def _parse_keys(text: str) -> None:
    if (text and not text.startswith("/")) or "\0" in text:
        raise ValueError(_KEYS_ALLOWED)


BoundEndpoint = Annotated[str, Meta(extra={"allowed": _BOUND_ALLOWED, "parse": parse_endpoint})]
ReachedEndpoint = Annotated[
    str, Meta(extra={"allowed": _REACHED_ALLOWED, "parse": parse_reached_endpoint})
]
Keys = Annotated[str, Meta(extra={"allowed": _KEYS_ALLOWED, "parse": _parse_keys})]


class Bus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What Aegis' processes say to each other, where they are on several machines."""

    requests: Annotated[
        BoundEndpoint,
        Meta(description="Where `aegis-ctl` of other machines reaches the controller as well."),
    ] = ""
    telemetry: Annotated[
        ReachedEndpoint,
        Meta(description="Where the exporter hears the workers, if it is on another machine."),
    ] = ""
    sessions: Annotated[
        ReachedEndpoint,
        Meta(description="Where it hears of sessions for the session log."),
    ] = ""
    keys: Annotated[
        Keys,
        Meta(description="Directory of CURVE keys, which TCP needs: `aegis-ctl keys DIR`."),
    ] = ""


LOCAL = Bus()
"""All of it in the runtime directory."""

"""Who may come: rules over client addresses, of which the first that matches decides.

    "allow 10.0.0.0/8"  "deny 10.9.0.0/16"  "deny all"          none matches: allowed

Compiled to one table for each prefix length that occurs, so that a look costs as many dictionary
look-ups as there are lengths, however many rules there are. An IPv4 address that is mapped into
IPv6 never comes here: sockets are IPV6_V6ONLY (ipv6(7)), and PROXY headers are read so.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, NamedTuple

NETWORK_FORMS: Final = (
    'a network such as "10.0.0.0/8" or "fd00::/8", an address, or "unix:" for clients of a '
    "unix socket"
)
RULE_FORMS: Final = (
    '"allow" or "deny", a space, and a network such as "10.0.0.0/8" or "fd00::/8", an address, '
    '"unix:" for clients of a unix socket, or "all"'
)
UNIX: Final = ""
"""In place of the host of a client that came through a unix socket."""


class Rule(NamedTuple):
    """One rule; `network` is None for clients of a unix socket."""

    allowed: bool
    network: IPv4Network | IPv6Network | None


def parse_network(text: str) -> IPv4Network | IPv6Network | None:
    """Parse what a user wrote as a network; None is "unix:".

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    if text == "unix:":
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(NETWORK_FORMS) from None
    if "%" in text:
        raise ValueError("a network has no interface after %")
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f'the address has bits behind its prefix; the network is "{network}"')
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("an IPv4 address is written as such, not mapped into IPv6")
    return network


def parse_rule(text: str) -> list[Rule]:
    """Parse an access rule; "all" is more than one.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    verdict, _, what = text.partition(" ")
    if verdict not in {"allow", "deny"} or not what:
        raise ValueError(RULE_FORMS)
    networks = ("0.0.0.0/0", "::/0", "unix:") if what == "all" else (what,)
    return [Rule(verdict == "allow", parse_network(each)) for each in networks]


def number_of(host: str) -> tuple[int, int]:
    """Return the width in bits of a literal address, and its value."""
    if ":" not in host:
        return 32, int.from_bytes(inet_pton(AF_INET, host), "big")
    return 128, int.from_bytes(inet_pton(AF_INET6, host.partition("%")[0]), "big")


def site_of(host: str) -> bytes:
    """Return what counts as one client: an IPv4 address, or the /64 of one of IPv6."""
    width, number = number_of(host)
    return number.to_bytes(4, "big") if width == 32 else (number >> 64).to_bytes(8, "big")


class AccessList:
    """Rules in their order."""

    __slots__ = ("_rules", "_tables", "_unix")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._unix = next((rule.allowed for rule in self._rules if rule.network is None), True)
        tables: dict[int, dict[int, dict[int, int]]] = {32: {}, 128: {}}
        for rank, (_, network) in enumerate(self._rules):
            if network is not None:
                width = network.max_prefixlen
                table = tables[width].setdefault(width - network.prefixlen, {})
                prefix = int(network.network_address) >> (width - network.prefixlen)
                table.setdefault(prefix, rank)  # the first of two that are the same
        self._tables = {width: list(by_shift.items()) for width, by_shift in tables.items()}

    def allows(self, host: str) -> bool:
        """Whether a client with this literal address, or UNIX, may come."""
        if host == UNIX:
            return self._unix
        width, number = number_of(host)
        last = len(self._rules)
        first = min(
            (t.get(number >> shift, last) for shift, t in self._tables[width]), default=last
        )
        return first == last or self._rules[first].allowed


def access_list(rules: Iterable[str]) -> AccessList:
    """Compile access rules as a configuration has them."""
    return AccessList(rule for text in rules for rule in parse_rule(text))


def only(networks: Iterable[str]) -> AccessList:
    """Allow these networks and nobody else."""
    allowed = [Rule(True, parse_network(text)) for text in networks]
    return AccessList([*allowed, *parse_rule("deny all")])

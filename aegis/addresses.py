"""Addresses as a user writes them, and what bind(2) and connect(2) take.

Text becomes an `Address` here and nowhere else, without asking the network: a host name is refused
(only `localhost` is known), because what it resolves to may change while the proxy runs.

Facts used:
- A unix path takes 107 bytes and a final NUL (`sun_path`). Source: unix(7).
- IPv6 sockets are bound with IPV6_V6ONLY: `[::]:80` and `0.0.0.0:80` never meet. Source: ipv6(7).
- A link-local address means one machine per link, so it needs the link. Source: RFC 4007, 6.
- 0.0.0.0 and [::] accept what is sent to any local address, all of 127.0.0.0/8 and ::1 included.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

TCP_FORMS = '"IPv4:port", "[IPv6]:port", "*:port" or "localhost:port"'
ADDRESS_FORMS = '"IPv4:port", "[IPv6]:port", "*:port", "localhost:port" or "unix:/absolute/path"'
RESOLVER_FORMS = '"IPv4:port" or "[IPv6]:port"'
SERVER_FORMS = '"IPv4:port", "[IPv6]:port", "localhost:port" or "unix:/absolute/path"'
MAX_UNIX_PATH_BYTES = 107

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_DOTTED_DIGITS = re.compile(r"[0-9]+(\.[0-9]+)*")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%.*)?")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to bind or connect; `text` is canonical, so equal addresses have equal texts."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | str
    text: str

    @property
    def is_unix(self) -> bool:
        """Whether this is a path in the file system rather than an IP address and a port."""
        return self.family == socket.AF_UNIX

    @property
    def is_wildcard(self) -> bool:
        """Whether a socket bound here accepts connections to every local address."""
        return self.sockaddr[0] in {"0.0.0.0", "::"} and not self.is_unix

    @property
    def is_loopback(self) -> bool:
        """Whether this is an IP address that cannot be on another machine."""
        if self.family == socket.AF_INET:
            return IPv4Address(self.sockaddr[0]).is_loopback
        return self.family == socket.AF_INET6 and IPv6Address(self.sockaddr[0]).is_loopback

    def overlaps(self, other: "Address") -> bool:
        """Whether two sockets bound here and there would compete for connections."""
        if self.is_unix or self.family != other.family or self.sockaddr[1] != other.sockaddr[1]:
            return self == other
        return self.is_wildcard or other.is_wildcard or self == other

    def certainly_reaches(self, bound: "Address") -> bool:
        """Whether connecting here must arrive at a socket that is bound to `bound`."""
        return self == bound or (bound.is_wildcard and self.is_loopback and self.overlaps(bound))


def parse_address(text: str) -> Address:
    """Parse what a user wrote as an address.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    host, colon, port_text = text.rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        return _no_port(text)
    if not _PORT.fullmatch(port_text) or int(port_text) > 65_535:
        raise ValueError("the port must be a number from 1 to 65535")
    if not host:
        raise ValueError(
            f'the address before the port is missing; "*:{port_text}" is every IPv4 address'
        )
    port = int(port_text)
    if host.startswith("["):
        return _ipv6(host[1:-1], port)
    if _BARE_IPV6.fullmatch(host):
        raise ValueError('an IPv6 address stands in brackets, such as "[::1]:8081"')
    return _ipv4(host, port)


def parse_tcp_address(text: str) -> Address:
    """Parse an address that must be one of TCP, as HTTP clients of the exporter need.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    address = parse_address(text)
    if address.is_unix:
        raise ValueError("a TCP address is needed here, not a unix socket")
    return address


def parse_server_address(text: str) -> Address:
    """Parse an address to connect to.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    address = parse_address(text)
    if address.is_wildcard:
        raise ValueError("a server is one address; a wildcard is only for listening")
    return address


def parse_resolver_address(text: str) -> Address:
    """Parse the address of a name server, which is asked over UDP and TCP.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    address = parse_server_address(text)
    if address.is_unix:
        raise ValueError("a name server is an IP address and a port, not a unix socket")
    return address


def _no_port(text: str) -> Address:
    if _PORT.fullmatch(text):
        raise ValueError(f'the port alone is not enough; "*:{text}" is every IPv4 address')
    if any(form.fullmatch(text) for form in (_DOTTED_DIGITS, _HOST_NAME, _BRACKETS)):
        raise ValueError('the port is missing; an address with one is "127.0.0.1:8081"')
    raise ValueError(ADDRESS_FORMS)


def _ipv4(host: str, port: int) -> Address:
    literal = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)
    try:
        ip = IPv4Address(literal)
    except ValueError:
        if _DOTTED_DIGITS.fullmatch(host):
            raise ValueError(
                "an IPv4 address is four numbers from 0 to 255 without leading zeros"
            ) from None
        if _HOST_NAME.fullmatch(host):
            raise ValueError("a host name is not allowed; write its IP address") from None
        raise ValueError(ADDRESS_FORMS) from None
    if ip.is_multicast or int(ip) == 0xFFFFFFFF:
        raise ValueError("TCP needs the address of one machine, not multicast or broadcast")
    return Address(socket.AF_INET, (str(ip), port), f"{ip}:{port}")


def _ipv6(host: str, port: int) -> Address:
    try:
        ip = IPv6Address(host)
    except ValueError:
        raise ValueError('the brackets must hold an IPv6 address, such as "[::1]:8081"') from None
    zone, bare = ip.scope_id, IPv6Address(int(ip))
    if bare.is_multicast:
        raise ValueError("TCP needs the address of one machine, not multicast or broadcast")
    if bare.ipv4_mapped is not None:
        raise ValueError(f'an IPv4 address is written as such: "{bare.ipv4_mapped}:{port}"')
    if bare.is_link_local and zone is None:
        raise ValueError(
            f'a link-local address needs its interface, such as "[{bare}%eth0]:{port}"'
        )
    if zone is None:
        return Address(socket.AF_INET6, (str(bare), port, 0, 0), f"[{bare}]:{port}")
    if not bare.is_link_local:
        raise ValueError("only a link-local address (fe80::/10) takes an interface after %")
    try:
        index = socket.if_nametoindex(zone)
    except (OSError, ValueError):
        raise ValueError("this machine has no network interface of the name after %") from None
    return Address(socket.AF_INET6, (str(bare), port, 0, index), f"[{bare}%{zone}]:{port}")


def _unix(path: str) -> Address:
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or {"", ".", ".."} & set(parts[1:]) or not path.isprintable():
        raise ValueError(
            'a unix socket is "unix:" and an absolute path without "." or ".." and empty parts'
        )
    if (size := len(path.encode())) > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"a unix socket's path takes at most {MAX_UNIX_PATH_BYTES} bytes; this has {size}"
        )
    return Address(socket.AF_UNIX, path, f"unix:{path}")

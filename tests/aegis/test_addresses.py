"""Addresses: every accepted form, every refusal with its text, and which two would compete."""

import errno
import socket
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegis.addresses import (
    ADDRESS_FORMS,
    MAX_UNIX_PATH_BYTES,
    parse_address,
    parse_server_address,
    parse_tcp_address,
)

LO = socket.if_nametoindex("lo")
PORT = "the port must be a number from 1 to 65535"
IPV4 = "an IPv4 address is four numbers from 0 to 255 without leading zeros"
IPV6 = 'the brackets must hold an IPv6 address, such as "[::1]:8081"'
NO_PORT = 'the port is missing; an address with one is "127.0.0.1:8081"'
HOST = "a host name is not allowed; write its IP address"
GROUP = "TCP needs the address of one machine, not multicast or broadcast"
UNIX = 'a unix socket is "unix:" and an absolute path without "." or ".." and empty parts'


@pytest.mark.parametrize(
    ("text", "family", "sockaddr", "canonical"),
    [
        ("127.0.0.1:8081", socket.AF_INET, ("127.0.0.1", 8081), "127.0.0.1:8081"),
        ("localhost:1", socket.AF_INET, ("127.0.0.1", 1), "127.0.0.1:1"),
        ("*:65535", socket.AF_INET, ("0.0.0.0", 65535), "0.0.0.0:65535"),
        ("[::1]:80", socket.AF_INET6, ("::1", 80, 0, 0), "[::1]:80"),
        ("[0:0::0:1]:80", socket.AF_INET6, ("::1", 80, 0, 0), "[::1]:80"),
        ("[::]:80", socket.AF_INET6, ("::", 80, 0, 0), "[::]:80"),
        ("[FE80::1%lo]:80", socket.AF_INET6, ("fe80::1", 80, 0, LO), "[fe80::1%lo]:80"),
        ("unix:/run/a.sock", socket.AF_UNIX, "/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a:1", socket.AF_UNIX, "/run/a:1", "unix:/run/a:1"),
        ("unix:/" + "é" * 53, socket.AF_UNIX, "/" + "é" * 53, "unix:/" + "é" * 53),
    ],
)
def test_an_address_is_parsed_to_what_the_socket_calls_take(
    text: str, family: socket.AddressFamily, sockaddr: object, canonical: str
) -> None:
    address = parse_address(text)
    assert (address.family, address.sockaddr, address.text) == (family, sockaddr, canonical)
    assert parse_address(canonical) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ADDRESS_FORMS),
        (" 127.0.0.1:80", ADDRESS_FORMS),
        ("http://127.0.0.1:80", ADDRESS_FORMS),
        (":8081", 'the address before the port is missing; "*:8081" is every IPv4 address'),
        ("127.0.0.1", NO_PORT),
        ("localhost", NO_PORT),
        ("8081", 'the port alone is not enough; "*:8081" is every IPv4 address'),
        ("[::1]", NO_PORT),
        (":0", PORT),
        ("[::1", ADDRESS_FORMS),
        ("127.0.0.1:", PORT),
        ("127.0.0.1:0", PORT),
        ("127.0.0.1:080", PORT),
        ("127.0.0.1:+80", PORT),
        ("127.0.0.1:80\n", PORT),
        ("127.0.0.1:٨٠", PORT),
        ("127.0.0.1:65536", PORT),
        ("[::1]:99999", PORT),
        ("127.0.0.256:80", IPV4),
        ("127.0.0.01:80", IPV4),
        ("127.1:80", IPV4),
        ("example.com:80", HOST),
        ("db_1.internal.:80", HOST),
        ("Localhost:80", HOST),
        ("a b:80", ADDRESS_FORMS),
        ("::1", 'an IPv6 address stands in brackets, such as "[::1]:8081"'),
        ("::1:80", 'an IPv6 address stands in brackets, such as "[::1]:8081"'),
        ("[]:80", IPV6),
        ("[127.0.0.1]:80", IPV6),
        ("[fe80::1%]:80", IPV6),
        ("224.0.0.1:80", GROUP),
        ("255.255.255.255:80", GROUP),
        ("[ff02::1]:80", GROUP),
        ("[::ffff:10.0.0.1]:80", 'an IPv4 address is written as such: "10.0.0.1:80"'),
        (
            "[fe80::1]:80",
            'a link-local address needs its interface, such as "[fe80::1%eth0]:80"',
        ),
        ("[fe80::1%nil0]:80", "this machine has no network interface of the name after %"),
        ("[::1%lo]:80", "only a link-local address (fe80::/10) takes an interface after %"),
        ("unix:", UNIX),
        ("unix:/", UNIX),
        ("unix:run/a", UNIX),
        ("unix:@name", UNIX),
        ("unix://run/a", UNIX),
        ("unix:/run/../a", UNIX),
        ("unix:/run/./a", UNIX),
        ("unix:/run/", UNIX),
        ("unix:/run/a\0b", UNIX),
        ("unix:/" + "a" * 107, "a unix socket's path takes at most 107 bytes; this has 108"),
        ("unix:/" + "é" * 54, "a unix socket's path takes at most 107 bytes; this has 109"),
    ],
)
def test_a_refused_address_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        parse_address(text)
    assert str(caught.value) == message


def test_the_longest_unix_path_can_be_bound_and_a_longer_one_cannot() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        longest = f"{directory}/".ljust(MAX_UNIX_PATH_BYTES, "x")
        address = parse_address(f"unix:{longest}")
        with socket.socket(address.family) as sock:
            sock.bind(address.sockaddr)
        with socket.socket(address.family) as sock, pytest.raises(OSError, match="too long"):
            sock.bind(longest + "x")


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:1", "[fe80::1%lo]:1", "*:1", "[::]:1"])
def test_the_kernel_takes_every_tcp_sockaddr(text: str) -> None:
    address = parse_address(text)
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        # Whether someone answers does not matter; EINVAL or a TypeError would.
        assert sock.connect_ex(address.sockaddr) not in {errno.EINVAL, errno.EAFNOSUPPORT}


def test_metrics_take_no_unix_socket() -> None:
    with pytest.raises(ValueError, match=r"^a TCP address is needed here, not a unix socket$"):
        parse_tcp_address("unix:/run/a")
    assert parse_tcp_address("*:1") == parse_address("*:1")


@pytest.mark.parametrize("text", ["*:80", "0.0.0.0:80", "[::]:80"])
def test_a_server_is_no_wildcard(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^a server is one address; a wildcard is only for listening$"
    ):
        parse_server_address(text)


def test_a_server_may_be_a_unix_socket() -> None:
    assert parse_server_address("unix:/run/a").is_unix


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "localhost:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("*:80", "127.0.0.1:80", True),
        ("*:80", "0.0.0.0:80", True),
        ("*:80", "127.0.0.1:81", False),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "[fe80::1%lo]:80", True),
        ("[::]:80", "*:80", False),
        ("[::1]:80", "127.0.0.1:80", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "*:80", False),
    ],
)
def test_overlap_is_seen_from_both_sides(one: str, other: str, overlap: bool) -> None:
    assert parse_address(one).overlaps(parse_address(other)) is overlap
    assert parse_address(other).overlaps(parse_address(one)) is overlap


@pytest.mark.parametrize(
    ("server", "bound", "reaches"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.2:80", "*:80", True),
        ("[::1]:80", "[::]:80", True),
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("unix:/a", "unix:/a", True),
        ("10.0.0.1:80", "*:80", False),  # another machine's, as far as the text can tell
        ("[::1]:80", "*:80", False),
        ("127.0.0.1:81", "*:80", False),
        ("unix:/a", "*:80", False),
    ],
)
def test_a_server_that_must_be_the_listener_is_recognised(
    server: str, bound: str, reaches: bool
) -> None:
    assert parse_address(server).certainly_reaches(parse_address(bound)) is reaches


# Other tests keep the machine busy; what takes long here is not a defect.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ADDRESS_LIKE = st.lists(
    st.sampled_from([*"0123456789.:[]%*/@a ", "unix:", "localhost", "127.0.0.1", "fe80::1", ":80"])
).map("".join)


@UNHURRIED
@given(st.one_of(st.text(), ADDRESS_LIKE, ADDRESS_LIKE.map("unix:/{}".format)))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as error:
        message = str(error)
        kind = type(error)
    else:
        assert parse_address(address.text) == address
        return
    assert kind is ValueError
    assert message.isprintable()
    assert len(message) < 120


@UNHURRIED
@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_an_ipv6_address_survives_in_its_canonical_form(ip: object, port: int) -> None:
    try:
        address = parse_address(f"[{ip}]:{port}")
    except ValueError:
        return
    assert address.text == f"[{ip}]:{port}"

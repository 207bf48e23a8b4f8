"""The first rule that matches decides, as if every rule were tried in order."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.access import UNIX, access_list, only, parse_network, parse_rule


def in_order(rules: list[str], host: str) -> bool:
    """What AccessList compiles, as the documentation says it."""
    for rule in rules:
        verdict, what = rule.split()
        if what == "all":
            return verdict == "allow"
        if UNIX in {host, what.removeprefix("unix:")}:
            matches = host == what.removeprefix("unix:")
        else:
            matches = ip_address(host) in ip_network(what)
        if matches:
            return verdict == "allow"
    return True


# Few bits, so that rules meet.
ADDRESSES = st.one_of(
    st.builds(lambda a, b: f"10.{a}.0.{b}", st.integers(0, 3), st.integers(0, 3)),
    st.builds(lambda a, b: f"fd00:{a:x}::{b:x}", st.integers(0, 3), st.integers(0, 3)),
)
NETWORKS = st.one_of(
    st.just("all"),
    st.just("unix:"),
    st.builds(
        lambda host, cut: str(
            ip_network(f"{host}/{min(cut, 32) if '.' in host else cut * 4}", strict=False)
        ),
        ADDRESSES,
        st.integers(0, 32),
    ),
)
RULES = st.lists(
    st.builds(
        lambda verdict, what: f"{verdict} {what}", st.sampled_from(["allow", "deny"]), NETWORKS
    ),
    max_size=8,
)


@given(rules=RULES, hosts=st.lists(st.one_of(ADDRESSES, st.just(UNIX)), min_size=1))
def test_the_first_rule_that_matches_decides(rules: list[str], hosts: list[str]) -> None:
    compiled = access_list(rules)
    assert [compiled.allows(host) for host in hosts] == [in_order(rules, host) for host in hosts]


def test_without_rules_everybody_may_come() -> None:
    assert all(access_list([]).allows(host) for host in ("10.0.0.1", "::1", UNIX))


def test_a_zone_does_not_hide_an_address() -> None:
    assert not access_list(["deny fe80::/10"]).allows("fe80::1%eth0")


def test_only_the_networks_named_are_trusted() -> None:
    trusted = only(["10.0.0.0/8", "::1"])
    assert [trusted.allows(host) for host in ("10.1.2.3", "::1")] == [True, True]
    assert not any(trusted.allows(host) for host in ("11.0.0.0", "::2", UNIX))
    assert only(["unix:"]).allows(UNIX)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1/8", 'the network is "10.0.0.0/8"'),
        ("fd00::1/8", 'the network is "fd00::/8"'),
        ("::ffff:10.0.0.0/104", "IPv4 address is written as such"),
        ("10.0.0.0/33", "a network such as"),
        ("10.0.0", "a network such as"),
        ("010.0.0.1", "a network such as"),
        ("localhost", "a network such as"),
        ("fe80::1%eth0", "no interface after %"),
        ("", "a network such as"),
    ],
)
def test_a_network_that_is_none_says_what_is_one(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_network(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "allow", "allow ", "permit all", "Allow all", "deny  all"]
)
def test_a_rule_that_is_none_says_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"allow|a network such as"):
        parse_rule(text)

"""The rules of a configuration that are about servers: who they are, and how they are watched.

As in config_checks.py, each rule skips what it cannot judge.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

import msgspec

from aegis.addresses import Address, parse_address
from aegis.config_backend import Backend
from aegis.config_health import Health
from aegis.config_problems import Problems, one_of, show_value
from aegis.config_table import Table, allowed
from aegis.framers.contract import Framer
from aegis.framers.entry_points import FramerError
from aegis.framers.registry import make_framer

_OF_TYPE = {
    "protocol": "ping",
    "send": "send",
    "expect": "send",
    "method": "http",
    "path": "http",
    "host": "http",
    "status": "http",
}
"""Keys of `health` that only one type of check looks at."""


class _Server(NamedTuple):
    path: str
    """Of its address."""
    text: str
    address: Address
    name: str
    name_path: str


def check_servers(config: Table, problems: Problems) -> None:
    """Note every broken rule about servers, backend by backend."""
    for i, backend in enumerate(config.get("backend", [])):
        path = f"backend[{i}]"
        servers = list(_servers_of(path, backend.get("servers", [])))
        used_by = {
            f"listener[{j}]": listener
            for j, listener in enumerate(config.get("listener", []))
            if backend.get("name") is not None and listener.get("backend") == backend["name"]
        }
        _there_are_servers(path, backend, problems)
        check_unique(servers, problems)
        _no_listener_serves_itself(servers, used_by, problems)
        _source_needs_addresses(path, backend, used_by, problems)
        if backend.get("health"):
            _checks_can_be_made(f"{path}.health", backend["health"], used_by, problems)
            _unix_servers_have_no_port(f"{path}.health", backend["health"], servers, problems)
        if backend.get("outlier_detection"):
            _ejections_grow(f"{path}.outlier_detection", backend["outlier_detection"], problems)


def check_server_list(servers: list[Any], problems: Problems) -> None:
    """Note what is wrong between the servers of a list that stands alone, in a file of its own."""
    check_unique(list(_servers_of("", servers)), problems)


def check_unique(servers: list[_Server], problems: Problems) -> None:
    """Note servers that are the same, or are called the same."""
    first: dict[Address, str] = {}
    names: dict[str, str] = {server.address.text: server.path for server in servers}
    for server in servers:
        if server.address in first:
            why = f"each server once; see {first[server.address]}"
            problems.about_value(server.path, server.text, why)
        first.setdefault(server.address, server.path)
        if server.name and server.name != server.address.text:
            if server.name in names:
                why = f"each server has its own name; see {names[server.name]}"
                problems.about_value(server.name_path, server.name, why)
            names.setdefault(server.name, server.name_path)


def _servers_of(path: str, servers: list[Any]) -> Iterator[_Server]:
    for j, server in enumerate(servers):
        where = f"{path}.servers[{j}]".lstrip(".")
        if isinstance(server, str):
            yield _Server(where, server, parse_address(server), "", "")
        elif isinstance(server, dict) and "address" in server:
            text = server["address"]
            name = server.get("name", "")
            yield _Server(f"{where}.address", text, parse_address(text), name, f"{where}.name")


def _there_are_servers(path: str, backend: Table, problems: Problems) -> None:
    if not backend.get("servers", ["wrong"]) and backend.get("discover") == "":
        what = allowed(get_type_hints(Backend, include_extras=True)["servers"], "servers")
        problems.about_key(f"{path}.servers", f"missing; {what}, unless there is `discover`")


def _no_listener_serves_itself(
    servers: list[_Server], used_by: dict[str, Table], problems: Problems
) -> None:
    for where, listener in used_by.items():
        if "bind" not in listener:
            continue
        bound = parse_address(listener["bind"])
        for server in servers:
            if server.address.certainly_reaches(bound):
                problems.about_value(
                    server.path,
                    server.text,
                    f"a server other than the proxy itself; {where}, which this backend "
                    f"serves, is bound to {show_value(listener['bind'])}",
                )


def _source_needs_addresses(
    path: str, backend: Table, used_by: dict[str, Table], problems: Problems
) -> None:
    if backend.get("balance") != "source":
        return
    for where, listener in used_by.items():
        if listener.get("pooling", "off") != "off":
            why = f"{where} shares connections, so that none is one client's: `pooling` must be off"
        elif listener.get("bind", "").startswith("unix:"):
            why = f"clients of {where}, a unix socket, have no address"
        else:
            continue
        problems.about_value(f"{path}.balance", "source", why)


def _checks_can_be_made(
    path: str, health: Table, used_by: dict[str, Table], problems: Problems
) -> None:
    kind = health.get("type")
    defaults = msgspec.to_builtins(Health())
    for key, needed in _OF_TYPE.items():
        value = health.get(key, defaults[key])
        if kind is not None and value != defaults[key] and kind != needed:
            problems.about_value(f"{path}.{key}", value, f'only for `type` "{needed}"')
    if kind != "ping":
        return
    spoken = {each["protocol"] for each in used_by.values() if each.get("protocol", "raw") != "raw"}
    wanted = {health["protocol"]} if health.get("protocol") else spoken
    if len(wanted) != 1:
        found = one_of(sorted(wanted), "and") if wanted else "only raw"
        problems.about_value(
            f"{path}.protocol", "", f"must name one: the backend's listeners speak {found}"
        )
        return
    (protocol,) = wanted
    framer = _framer(protocol)
    if framer is None:
        if health.get("protocol"):
            problems.about_value(f"{path}.protocol", protocol, "no protocol with a framer")
    elif not framer.ping:
        problems.about_value(f"{path}.type", "ping", f'protocol "{protocol}" has no ping')


def _framer(protocol: str) -> Framer | None:
    try:
        return make_framer(protocol)
    except FramerError:  # for a listener's there is a problem already
        return None


def _unix_servers_have_no_port(
    path: str, health: Table, servers: list[_Server], problems: Problems
) -> None:
    for server in servers:
        if health.get("port") and server.address.is_unix:
            why = f"{server.path} is a unix socket, which has none"
            problems.about_value(f"{path}.port", health["port"], why)


def _ejections_grow(path: str, detection: Table, problems: Problems) -> None:
    base, most = detection.get("base_ejection_s"), detection.get("max_ejection_s")
    if base is not None and most is not None and most < base:
        problems.about_value(
            f"{path}.max_ejection_s", most, f"at least base_ejection_s, which is {base:g}"
        )

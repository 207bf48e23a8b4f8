"""The rules that tie fields of a configuration together, checked on what is valid of it.

Each rule skips what it cannot judge: a table that lacks a field has had its own line already.
"""

from collections.abc import Iterator
from typing import Any

from aegis.addresses import Address, parse_address
from aegis.config_bus import SCHEME
from aegis.config_listener_checks import backends_of, check_doors
from aegis.config_problems import Problems, one_of, show_value, suggestion
from aegis.config_server_checks import check_servers
from aegis.config_table import Table
from aegis.framers import BUILT_POOLINGS, POOLINGS
from aegis.framers.entry_points import FramerError, installed_framers, load_framer
from aegis.limits import MAX_SLAB_MEMORY_BYTES

_ENDPOINTS = ("requests", "telemetry", "sessions")
_PERHAPS_ELSEWHERE = {"bus.telemetry", "bus.sessions"}
"""Bound by the exporter, which may be on a machine where no listener is."""


def check_rules(config: Table, problems: Problems) -> None:
    """Note every broken rule of a configuration, as `read_table` returned it."""
    _slabs_fit_in_memory(config, problems)
    _a_group_comes_with_a_user(config, problems)
    for kind in ("listener", "backend"):
        _names_are_unique(kind, config, problems)
    _backends_exist(config, problems)
    _protocols_support_poolings(config, problems)
    _warm_listeners_have_spares(config, problems)
    _binds_do_not_overlap(config, problems)
    _the_bus_over_tcp_has_keys(config, problems)
    _the_session_log_is_where_the_exporter_is(config, problems)
    check_servers(config, problems)
    check_doors(config, problems)


def _slabs_fit_in_memory(config: Table, problems: Problems) -> None:
    if "slab_bytes" not in config or "slabs" not in config:
        return
    slab_bytes, slabs = config["slab_bytes"], config["slabs"]
    if slab_bytes * slabs > MAX_SLAB_MEMORY_BYTES:
        problems.about_value(
            "slabs",
            slabs,
            f"times slab_bytes = {slab_bytes} makes {slab_bytes * slabs} bytes in each worker; "
            f"at most {MAX_SLAB_MEMORY_BYTES}",
        )


def _a_group_comes_with_a_user(config: Table, problems: Problems) -> None:
    if config.get("group") and not config.get("user"):
        problems.about_value("group", config["group"], "needs `user` as well")


def _names_are_unique(kind: str, config: Table, problems: Problems) -> None:
    first: dict[str, str] = {}
    for path, name in _column(config, kind, "name"):
        if name in first:
            problems.about_value(path, name, f"each {kind} has its own name; see {first[name]}")
        first.setdefault(name, path)


def _backends_exist(config: Table, problems: Problems) -> None:
    backends = config.get("backend")
    names = [name for _, name in _column(config, "backend", "name")]
    if backends is None or len(names) < len(backends):
        return  # the name that is missing here may be the one that is wrong there
    for i, listener in enumerate(config.get("listener", [])):
        for key, name in backends_of(listener):
            if name not in names:
                near = suggestion(name, names) or ";"
                why = f"no such backend{near} known backends: {one_of(names, 'and')}"
                problems.about_value(f"listener[{i}].{key}", name, why)


def _protocols_support_poolings(config: Table, problems: Problems) -> None:
    for i, listener in enumerate(config.get("listener", [])):
        protocol, pooling = listener.get("protocol"), listener.get("pooling")
        supported: tuple[str, ...] = ()
        if protocol is not None:
            supported = _poolings_of(protocol, f"listener[{i}].protocol", problems)
        if pooling is None:
            continue
        path = f"listener[{i}].pooling"
        if supported and pooling not in supported:
            words = one_of(supported, "and")
            problems.about_value(path, pooling, f'protocol "{protocol}" supports {words}')
        elif pooling not in BUILT_POOLINGS:
            problems.about_value(path, pooling, f"known poolings: {one_of(BUILT_POOLINGS, 'and')}")


def _poolings_of(protocol: str, path: str, problems: Problems) -> tuple[str, ...]:
    """Return what a protocol supports; nothing, and a problem, if nobody speaks it."""
    if protocol in POOLINGS:
        return POOLINGS[protocol]
    installed = installed_framers()
    if protocol not in installed:
        known = f"known protocols: {one_of(POOLINGS, 'and')}"
        names = sorted(set(installed) - set(POOLINGS))
        others = f"; by entry points: {one_of(names, 'and')}" if names else ""
        problems.about_value(path, protocol, known + others)
        return ()
    try:
        offered = load_framer(installed[protocol]).poolings
    except FramerError as error:
        problems.about_value(path, protocol, str(error))
        return ()
    return tuple(word for word in BUILT_POOLINGS if word == "off" or word in offered)


def _warm_listeners_have_spares(config: Table, problems: Problems) -> None:
    warm = {
        name: f"listener[{i}]"
        for i, listener in enumerate(config.get("listener", []))
        if listener.get("pooling") == "warm"
        for _, name in backends_of(listener)
    }
    for i, backend in enumerate(config.get("backend", [])):
        name, pool_min = backend.get("name"), backend.get("pool_min", 0)
        if name in warm and pool_min == 0:
            problems.about_value(
                f"backend[{i}].pool_min",
                pool_min,
                f'at least 1: {warm[name]} is "warm" and takes connections opened ahead',
            )


def _binds_do_not_overlap(config: Table, problems: Problems) -> None:
    taken: list[tuple[str, str, Address]] = []
    keys = [("metrics", "bind"), *(("bus", key) for key in _ENDPOINTS)]
    single = [(f"{table}.{key}", config.get(table, {}).get(key)) for table, key in keys]
    ours = [(path, text) for path, text in single if text]
    for path, text in [*ours, *_column(config, "listener", "bind")]:
        address = parse_address(text.removeprefix(SCHEME))
        for other_path, other_text, other in taken:
            elsewhere = {path, other_path} & _PERHAPS_ELSEWHERE
            if address == other or (address.overlaps(other) and not elsewhere):
                owner = f"{other_path} is {show_value(other_text)}"
                problems.about_value(path, text, f"needs an address of its own; {owner}")
                break
        taken.append((path, text, address))


def _the_bus_over_tcp_has_keys(config: Table, problems: Problems) -> None:
    bus = config.get("bus", {})
    if bus.get("keys", True):
        return
    for key in _ENDPOINTS:
        if bus.get(key):
            text = "TCP needs `keys` as well: `aegis-ctl keys DIR` makes some"
            problems.about_value(f"bus.{key}", bus[key], text)


def _the_session_log_is_where_the_exporter_is(config: Table, problems: Problems) -> None:
    bus, log = config.get("bus", {}), config.get("log", {}).get("sessions")
    if not log:
        return
    if not config.get("metrics", {}).get("bind", True):
        problems.about_value("log.sessions", log, "needs metrics.bind: the exporter writes it")
    if "telemetry" not in bus or "sessions" not in bus:
        return
    if bool(bus["telemetry"]) != bool(bus["sessions"]):
        text = "needs to be TCP where bus.telemetry is: the exporter writes the session log"
        problems.about_value("bus.sessions", bus["sessions"], text)


def _column(config: Table, kind: str, key: str) -> Iterator[tuple[str, Any]]:
    for i, table in enumerate(config.get(kind, [])):
        if key in table:
            yield f"{kind}[{i}].{key}", table[key]

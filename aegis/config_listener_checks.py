"""The rules of a configuration that are about who comes to a listener, and what is done with them.

As in config_checks.py, each rule skips what it cannot judge.
"""

from collections.abc import Iterator

from msgspec import UNSET

from aegis.config_problems import Problems, show_value
from aegis.config_table import Table

_SHARING = ("session", "multiplex")
_NOT_SHARING = ("off", "warm")


def backends_of(listener: Table) -> Iterator[tuple[str, str]]:
    """Return (key below the listener, name) of every backend that its clients may meet."""
    if "backend" in listener:
        yield "backend", listener["backend"]
    for i, route in enumerate(listener.get("sni", [])):
        if "backend" in route:
            yield f"sni[{i}].backend", route["backend"]


def check_doors(config: Table, problems: Problems) -> None:
    """Note every broken rule of this kind."""
    for i, listener in enumerate(config.get("listener", [])):
        path = f"listener[{i}]"
        _headers_come_from_the_trusted(path, listener, problems)
        _names_are_read_where_they_can_be(path, listener, problems)
        _clients_have_addresses(path, listener, problems)
        _bursts_have_a_rate(path, listener, problems)
        _limits_suit_the_pooling(path, listener, problems)
    for i, backend in enumerate(config.get("backend", [])):
        _headers_go_where_clients_do_not_share(f"backend[{i}]", backend, config, problems)
        if backend.get("tls"):
            _certificates_have_keys(f"backend[{i}].tls", backend["tls"], problems)
            _servers_have_names(f"backend[{i}]", backend, problems)


def _is_unix(listener: Table) -> bool:
    return str(listener.get("bind", "")).startswith("unix:")


def _headers_come_from_the_trusted(path: str, listener: Table, problems: Problems) -> None:
    required, trusted = listener.get("proxy_protocol") == "required", listener.get("trusted")
    if trusted is None or UNSET in trusted:
        return
    if required and not trusted:
        why = "needs `trusted`, the networks of the proxies whose header is believed"
        problems.about_value(f"{path}.proxy_protocol", "required", why)
    elif required and _is_unix(listener) and "unix:" not in trusted:
        why = '"unix:" must be among them: the clients of a unix socket have no other address'
        problems.about_value(f"{path}.trusted", trusted, why)
    elif trusted and listener.get("proxy_protocol") == "off":
        why = 'only with proxy_protocol = "required"'
        problems.about_value(f"{path}.trusted", trusted, why)


def _names_are_read_where_they_can_be(path: str, listener: Table, problems: Problems) -> None:
    routes = listener.get("sni")
    if not routes:
        return
    pooling = listener.get("pooling", "off")
    if pooling not in _NOT_SHARING:
        why = 'TLS that is not ended cannot be shared: `pooling` must be "off" or "warm"'
    elif listener.get("tls"):
        why = "TLS is ended here: `sni` is for who does not end it"
    elif _is_unix(listener):
        why = "only for TCP: what a unix socket holds cannot be looked at and left there"
    else:
        why = ""
    if why:
        problems.about_value(f"{path}.sni", routes, why)
    first: dict[str, int] = {}
    for i, route in enumerate(routes):
        name = route.get("name", "").lower()
        if name and first.setdefault(name, i) != i:
            why = f"each name once; see {path}.sni[{first[name]}]"
            problems.about_value(f"{path}.sni[{i}].name", route["name"], why)


def _clients_have_addresses(path: str, listener: Table, problems: Problems) -> None:
    if not _is_unix(listener) or listener.get("proxy_protocol") != "off":
        return
    for key in ("max_sessions_per_client", "accept_rate_per_client"):
        if listener.get(key):
            why = "the clients of a unix socket have no address; 0 is allowed"
            problems.about_value(f"{path}.{key}", listener[key], why)


def _bursts_have_a_rate(path: str, listener: Table, problems: Problems) -> None:
    burst = listener.get("accept_burst_per_client")
    if burst and listener.get("accept_rate_per_client") == 0:
        why = "needs `accept_rate_per_client`"
        problems.about_value(f"{path}.accept_burst_per_client", burst, why)


def _limits_suit_the_pooling(path: str, listener: Table, problems: Problems) -> None:
    pooling = listener.get("pooling")
    if pooling in _SHARING:
        keys = {"upload_bytes_per_s": 0, "download_bytes_per_s": 0}
        why = 'with `pooling` "off" or "warm": a pipe that is shared is slowed down for all'
    elif pooling in _NOT_SHARING:
        keys = {"max_frame_bytes": 0}
        why = 'with `pooling` "session" or "multiplex": elsewhere no requests are told apart'
    else:
        return
    for key, default in keys.items():
        if listener.get(key, default) != default:
            problems.about_value(f"{path}.{key}", listener[key], f"only {why}")


def _headers_go_where_clients_do_not_share(
    path: str, backend: Table, config: Table, problems: Problems
) -> None:
    version = backend.get("send_proxy", "off")
    if version == "off":
        return
    for i, listener in enumerate(config.get("listener", [])):
        names = [name for _, name in backends_of(listener)]
        pooling = listener.get("pooling", "off")
        if backend.get("name") in names and pooling != "off":
            why = (
                "the header says who the client is for as long as the connection lasts; "
                f"listener[{i}].pooling = {show_value(pooling)} must be off"
            )
            problems.about_value(f"{path}.send_proxy", version, why)


def _certificates_have_keys(path: str, tls: Table, problems: Problems) -> None:
    certificate, key = tls.get("certificate"), tls.get("key")
    if certificate and key == "":
        problems.about_value(f"{path}.certificate", certificate, "needs `key` as well")
    elif key and certificate == "":
        problems.about_value(f"{path}.key", key, "needs `certificate` as well")


def _servers_have_names(path: str, backend: Table, problems: Problems) -> None:
    tls = backend["tls"]
    if tls.get("server_name") != "" or not tls.get("verify"):
        return
    for server in backend.get("servers", []):
        address = server.get("address", "") if isinstance(server, dict) else server
        if isinstance(address, str) and address.startswith("unix:"):
            why = f"needed to verify {show_value(address)}, which has no IP address"
            problems.about_value(f"{path}.tls.server_name", "", why)
            return

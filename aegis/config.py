"""What a configuration is: frozen structs, one field per TOML key, each with its range and meaning.

These structs, here and in config_listener.py, config_backend.py, config_health.py and
config_tls.py, are the one place that knows the keys. The reader (config_table.py), the JSON Schema
and the tables of docs/configuration.md (config_schema.py) are driven by them, so a new key is a new
field and a line in ops/aegis.toml. A `Config` that came out of `load_config` (config_file.py) is
valid; one built by hand is checked by nobody.

The controller sends a `Config` to its workers as msgpack; `config_digest` tells two of them apart.
"""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from aegis import limits
from aegis.config_backend import Backend, Dns
from aegis.config_bus import LOCAL, Bus
from aegis.config_listener import Listener
from aegis.config_types import Account, LogFile, MetricsAddress, Timeout
from aegis.logs import LogFormat


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the exporter answers, if there is to be one."""

    bind: Annotated[
        MetricsAddress,
        Meta(
            description="TCP address of the exporter: `/metrics` and the HUD at `/`. "
            '"" = none, and workers send no telemetry.'
        ),
    ] = "127.0.0.1:8082"


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is written about events, and about each session when it has closed."""

    format: Annotated[
        LogFormat,
        Meta(description="How events go to standard error: lines of text, or JSON objects."),
    ] = "text"
    sessions: Annotated[
        LogFile,
        Meta(description="File of the session log, which the exporter writes."),
    ] = ""
    sessions_format: Annotated[
        Literal["tcplog", "json"],
        Meta(description="How a session is written: HAProxy's tcplog line, or a JSON object."),
    ] = "tcplog"
    sessions_sample: Annotated[
        int,
        Meta(
            ge=1,
            le=limits.MAX_SAMPLE,
            description="One in so many sessions of each worker is written; 1 = all.",
        ),
    ] = 1


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One whole proxy: its workers, where it listens and what stands behind it."""

    workers: Annotated[
        Annotated[int, Meta(ge=1, le=limits.MAX_WORKERS)] | Literal["auto"],
        Meta(description='Worker processes; "auto" = one per core this process may use.'),
    ] = "auto"
    drain_timeout_s: Annotated[
        Timeout,
        Meta(description="How long `drain` and `stop` let sessions finish; 0 = cut at once."),
    ] = 30.0
    lame_duck_s: Annotated[
        Timeout,
        Meta(
            description="How long `drain` and `stop` go on accepting while `/readyz` says no "
            "already, so that load balancers turn away first."
        ),
    ] = 0.0
    close_spread_s: Annotated[
        Timeout,
        Meta(
            description="A worker that drains closes its clients that are between two requests "
            "spread over so long, and over half of what is left to the deadline at most."
        ),
    ] = 2.0
    hard_stop_s: Annotated[
        Timeout,
        Meta(
            description="How long a worker that was replaced (reload, upgrade, scale) lets its "
            "sessions go on before it cuts them."
        ),
    ] = 3600.0
    max_sessions: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_SESSIONS,
            description="Sessions at once, over all listeners and workers; 0 = no limit.",
        ),
    ] = 0
    user: Annotated[
        Account,
        Meta(description="Account that every process becomes when root starts Aegis."),
    ] = ""
    group: Annotated[
        Account, Meta(description='Group that comes with it; "" = the account\'s own.')
    ] = ""
    slab_bytes: Annotated[
        int,
        Meta(
            ge=limits.MIN_SLAB_BYTES,
            le=limits.MAX_SLAB_BYTES,
            description="Size of one buffer; the most that is read at once.",
        ),
    ] = 65_536
    slabs: Annotated[
        int,
        Meta(
            ge=limits.MIN_SLABS,
            le=limits.MAX_SLABS,
            description="Buffers of each worker, allocated once; with none free, reading waits.",
        ),
    ] = 256
    kernel_pipes: Annotated[
        int,
        Meta(
            ge=0,
            le=limits.MAX_KERNEL_PIPES,
            description="Pipes of 512 KiB in each worker, through which splice(2) moves what flows "
            "that carry a lot carry; with none free, and with slabs below 64 KiB, they copy.",
        ),
    ] = 16
    metrics: Annotated[Metrics, Meta(description="The exporter.")] = Metrics()
    log: Annotated[Log, Meta(description="Events and sessions.")] = Log()
    bus: Annotated[Bus, Meta(description="Processes on other machines.")] = LOCAL
    dns: Annotated[Dns, Meta(description="How names of servers are looked up.")] = Dns()
    listeners: Annotated[
        tuple[Listener, ...], Meta(min_length=1, description="Where clients connect.")
    ] = msgspec.field(name="listener")
    backends: Annotated[
        tuple[Backend, ...], Meta(min_length=1, description="What serves them.")
    ] = msgspec.field(name="backend")

    def worker_count(self, cores: int) -> int:
        """Return how many workers are asked for where so many cores are usable."""
        return cores if self.workers == "auto" else self.workers


def unix_paths(config: Config) -> tuple[str, ...]:
    """Return the socket files of the unix listeners."""
    binds = (listener.bind for listener in config.listeners)
    return tuple(bind.removeprefix("unix:") for bind in binds if bind.startswith("unix:"))


def config_digest(config: Config) -> str:
    """Return 16 hex digits that equal configurations share and others do not."""
    encoded = msgspec.json.encode(_canonical(msgspec.to_builtins(config)), order="deterministic")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def worker_digest(config: Config) -> str:
    """Return the digest of what a worker goes by: where it differs, workers are replaced.

    Which servers there are, and how they do, workers are told by command.
    """
    backends = [
        msgspec.structs.replace(
            backend,
            servers=(),
            discover="",
            slow_start_s=0.0,
            on_marked_down="none",
            panic_threshold_percent=0,
            health=None,
            outlier_detection=None,
        )
        for backend in config.backends
    ]
    return config_digest(
        msgspec.structs.replace(
            config,
            workers="auto",
            metrics=Metrics() if config.metrics.bind else config.metrics,
            bus=msgspec.structs.replace(config.bus, requests=""),
            lame_duck_s=0.0,
            hard_stop_s=0.0,
            dns=Dns(),
            backends=tuple(backends),
        )
    )


def _canonical(value: Any) -> Any:
    # 30, 30.0 and 0.0, -0.0 are equal numbers of different texts.
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _canonical(item) for key, item in value.items()}
        case list() | tuple():
            return [_canonical(item) for item in value]
    return value

"""Who is compared: each with one worker on one core, as its own documentation says it runs fastest.

A peer is a row here: what it serves, how it is started, and what was set for speed and on whose
word. docs/benchmarks.md prints that word. The texts of the configurations are in peer_configs.py.
"""

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aegis.framers import POOLINGS
from ops.bench import peer_configs
from ops.bench.processes import free_port
from ops.bench.servers import Family


class Place(NamedTuple):
    """Where a peer is to listen, and what is behind it."""

    directory: Path
    family: Family
    port: int
    server_port: int


class Peer(NamedTuple):
    """A way from the load to the server."""

    name: str
    families: frozenset[Family]
    command: Callable[[Place], list[str]] | None
    """Writes the configuration, returns what to run; None = no proxy."""
    program: str | None = None
    """What must be installed; None = nothing."""
    package: str = ""
    """How to get it."""
    version: tuple[str, ...] = ()
    """Arguments that make the program tell its version."""
    settings: str = ""
    """What was set for speed, and who says so."""


_ANY: frozenset[Family] = frozenset({"resp", "http", "stream"})
_STREAM: frozenset[Family] = frozenset({"stream"})
_RESP: frozenset[Family] = frozenset({"resp"})
_FRAMERS: dict[Family, str] = {"resp": "resp", "http": "http1"}
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def find(program: str) -> str | None:
    """Return where a program is: beside this Python, in PATH, or where only root looks."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]
    return shutil.which(program, path=os.pathsep.join(places))


def _found(program: str) -> str:
    return find(program) or program


def aegis(pooling: str, workers: int = 1) -> Peer:
    """Return an Aegis whose clients get their connections so."""
    # `off` and `warm` relay bytes unread; the others need the framer of the family's protocol.
    framed = pooling not in {"off", "warm"}

    def command(place: Place) -> list[str]:
        protocol = _FRAMERS[place.family] if framed else "raw"
        config = place.directory / "aegis.toml"
        config.write_text(
            peer_configs.aegis(place.port, place.server_port, protocol, pooling, workers)
        )
        arguments = ["--config", str(config), "--runtime-dir", str(place.directory / "run")]
        return [sys.executable, "-P", "-m", "control.main", *arguments, "--no-exporter"]

    if framed:
        serves = {family for family, name in _FRAMERS.items() if pooling in POOLINGS[name]}
    else:
        serves = set(_ANY) if pooling in POOLINGS["raw"] else set()
    return Peer(
        f"aegis-{pooling}",
        frozenset(serves),
        command,
        settings={
            "warm": "`pool_min = 32`: so many connections are opened ahead",
            "multiplex": "`max_connections = 32`, as in `ops/aegis.toml`; none for HTTP",
            "session": "`queue_max = 10000`, for thousands that connect at once",
        }.get(pooling, "the defaults"),
    )


def _configured(
    text: Callable[[int, int], str], file_name: str, command: Callable[[str, Place], list[str]]
) -> Callable[[Place], list[str]]:
    def write_and_run(place: Place) -> list[str]:
        config = place.directory / file_name
        config.write_text(text(place.port, place.server_port))
        return command(str(config), place)

    return write_and_run


def _haproxy(
    name: str, families: frozenset[Family], text: Callable[[int, int], str], settings: str
) -> Peer:
    def run(config: str, _: Place) -> list[str]:
        return [_found("haproxy"), "-db", "-f", config]

    command = _configured(text, "haproxy.cfg", run)
    package = "apt-get install haproxy"
    return Peer(name, families, command, "haproxy", package, ("-v",), settings)


def _nginx(
    name: str, families: frozenset[Family], text: Callable[[int, int], str], settings: str
) -> Peer:
    def run(config: str, place: Place) -> list[str]:
        return [_found("nginx"), "-p", str(place.directory), "-c", config]

    command = _configured(text, "nginx.conf", run)
    package = "apt-get install nginx-light libnginx-mod-stream"
    return Peer(name, families, command, "nginx", package, ("-v",), settings)


def _envoy(config: str, _: Place) -> list[str]:
    quiet = ["--log-level", "error", "--disable-hot-restart"]
    return [_found("envoy"), "--config-path", config, "--concurrency", "1", *quiet]


def _nutcracker(config: str, place: Place) -> list[str]:
    stats = ["--stats-addr", "127.0.0.1", "--stats-port", str(free_port())]
    output = ["--output", str(place.directory / "nutcracker.log")]
    return [_found("nutcracker"), "--conf-file", config, "--mbuf-size", "512", *stats, *output]


def _floor(place: Place) -> list[str]:
    source = Path(__file__).with_name("floor.c")
    program = place.directory / "floor"
    build = f"{_found('cc')} -O2 {source} -o {program}"
    return ["sh", "-c", f"{build} && exec {program} {place.port} {place.server_port}"]


_ENVOY_SETTINGS = (
    "`--concurrency 1`, circuit breakers out of the way, all statistics rejected, no access log "
    "(Envoy FAQ, best practices for benchmarking)"
)

PEERS: tuple[Peer, ...] = (
    Peer("direct", _ANY, None, settings="no proxy: what load and server can do"),
    *(peer for peer in map(aegis, ("off", "warm", "session", "multiplex")) if peer.families),
    _haproxy(
        "haproxy",
        _ANY,
        peer_configs.haproxy,
        "`mode tcp`, `nbthread 1` on the pinned core, no log, `option splice-auto` "
        "(configuration manual: kernel acceleration for transfers, with its own heuristics), "
        "`tune.bufsize` as it is (the manual strongly recommends not to change it)",
    ),
    _haproxy(
        "haproxy-256k",
        _STREAM,
        partial(peer_configs.haproxy, buffer_bytes=262_144),
        "as haproxy, with `tune.bufsize 262144` against the manual's advice: bulk costs less",
    ),
    _nginx(
        "nginx",
        _ANY,
        peer_configs.nginx,
        "`stream`, `worker_processes 1`, `reuseport`, `multi_accept on`, no log "
        "(its tuning guide), `proxy_buffer_size` as it is",
    ),
    _nginx(
        "nginx-1m",
        _STREAM,
        partial(peer_configs.nginx, buffer_size="1m"),
        "as nginx, with `proxy_buffer_size 1m`: bulk costs less, each session holds more",
    ),
    Peer(
        "envoy-tcp",
        _ANY,
        _configured(peer_configs.envoy_tcp, "envoy.json", _envoy),
        "envoy",
        "pip install -e '.[bench]'",
        ("--version",),
        "`tcp_proxy`, " + _ENVOY_SETTINGS,
    ),
    Peer(
        "envoy-redis",
        _RESP,
        _configured(peer_configs.envoy_redis, "envoy.json", _envoy),
        "envoy",
        "pip install -e '.[bench]'",
        ("--version",),
        "`redis_proxy`, " + _ENVOY_SETTINGS,
    ),
    Peer(
        "twemproxy",
        _RESP,
        _configured(peer_configs.twemproxy, "nutcracker.yml", _nutcracker),
        "nutcracker",
        "apt-get install nutcracker",
        ("--version",),
        "`preconnect`, one server connection, `--mbuf-size 512` "
        "(notes/recommendation.md: 512 or 1K for many clients)",
    ),
    Peer(
        "asyncio",
        _ANY,
        lambda place: [
            *(sys.executable, "-m", "ops.bench.asyncio_relay"),
            *(str(place.port), str(place.server_port)),
        ],
        settings="`ops/bench/asyncio_relay.py`: streams, as anybody writes it",
    ),
    Peer(
        "floor",
        _ANY,
        _floor,
        "cc",
        "apt-get install gcc libc6-dev",
        ("--version",),
        "`ops/bench/floor.c`: the least a relay can do, in C; a limit, not a proxy",
    ),
)

BY_NAME = {peer.name: peer for peer in PEERS}


def missing(peer: Peer) -> str | None:
    """Return why a peer cannot take part on this machine, None if it can."""
    if peer.program and find(peer.program) is None:
        return f"{peer.program} is not installed: {peer.package}"
    if peer.program == "nginx" and not NGINX_STREAM.exists():
        return f"nginx has no stream module: {peer.package}"
    return None

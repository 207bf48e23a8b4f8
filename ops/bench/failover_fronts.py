"""The proxies of a failover bench, configured alike, and what each knows of its servers.

    checks      the protocol's ping every INTER_S, at most as long for an answer; 2 failures take a
                server out, 2 successes bring it back, its sessions are reset when it goes
    connects    3 attempts, each on another server
    discovery   the addresses of a name, asked for every second
    one thread  so that clients are spread evenly and counts can be compared

Sources: HAProxy's configuration manual 2.6 (option redispatch, on-marked-down, server-template,
resolvers), Envoy's API v3 (tcp_proxy.max_connect_attempts, HealthCheck, common_lb_config,
STRICT_DNS).
"""

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aegis import bus
from aegis.messages import (
    SetServer,
    StatusRequest,
)
from aegis.status_messages import (
    Status,
)
from ops.bench.failover_servers import PING, Node, wait_for
from ops.bench.peers import find
from ops.bench.processes import PROXY_CPU, free_port, running

INTER_S = 0.5
TIMES = 2
ATTEMPTS = 3
NAME = "servers.test"


class Front(ABC):
    """A proxy; `dns` is the name server to find the servers by, or 0: they are told."""

    name: str
    patience_s = INTER_S
    """How long the answer to a check may take."""

    def __init__(self, protocol: str, nodes: list[Node], directory: Path, dns: int) -> None:
        self.protocol = protocol
        self.nodes = nodes
        self.dns = dns
        self.port = free_port()
        self.directory = directory / self.name
        self.directory.mkdir()

    @contextlib.contextmanager
    def run(self) -> Iterator["Front"]:
        """Run it until the context ends."""
        with running(self.command(), PROXY_CPU, self.directory / "log"):
            wait_for(self._accepts, f"{self.name} accepts")
            yield self

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def is_up(self, node: Node) -> bool:
        """Whether it holds a server for one that may have sessions."""
        return self.states().get(node.host, False)

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration, return how to run it."""

    @abstractmethod
    def states(self) -> dict[str, bool]:
        """Return host → whether it may have sessions, of every server it knows."""

    @abstractmethod
    def drain(self, node: Node) -> None:
        """Give a server no new sessions."""

    @abstractmethod
    def ready(self, node: Node) -> None:
        """Undo that."""


class Aegis(Front):
    """Aegis with pooling `off`, like the others."""

    name = "aegis"
    pooling = "off"

    def command(self) -> list[str]:
        """See `Front`."""
        servers = f"servers = {json.dumps([node.address for node in self.nodes])}"
        if self.dns:
            servers = f'discover = "dns:{NAME}:{self.nodes[0].port}"'
        config = self.directory / "aegis.toml"
        config.write_text(
            f"""
            workers = 1
            drain_timeout_s = 0
            [dns]
            resolvers = ["127.0.0.1:{self.dns or 53}"]
            [[listener]]
            name = "bench"
            bind = "127.0.0.1:{self.port}"
            backend = "bench"
            protocol = "{self.protocol}"
            pooling = "{self.pooling}"
            [[backend]]
            name = "bench"
            {servers}
            connect_attempts = {ATTEMPTS}
            on_marked_down = "shutdown-sessions"
            [backend.health]
            type = "ping"
            inter_s = {INTER_S}
            rise = {TIMES}
            fall = {TIMES}
            connect_timeout_s = {self.patience_s}
            reply_timeout_s = {self.patience_s}
            jitter_percent = 0
            """
        )
        arguments = ["--config", str(config), "--runtime-dir", str(self.directory / "run")]
        return [sys.executable, "-P", "-m", "control.main", *arguments, "--no-exporter"]

    def states(self) -> dict[str, bool]:
        """See `Front`."""
        reply = bus.ask(self.directory / "run", StatusRequest(), 5.0)
        assert isinstance(reply, Status)
        servers = reply.backends[0].servers
        return {s.address.rpartition(":")[0]: s.health == "up" and not s.drained for s in servers}

    def drain(self, node: Node) -> None:
        """See `Front`."""
        bus.ask(self.directory / "run", SetServer(f"bench/{node.address}", admin="drain"), 5.0)

    def ready(self, node: Node) -> None:
        """See `Front`."""
        bus.ask(self.directory / "run", SetServer(f"bench/{node.address}", admin="ready"), 5.0)


class SharingAegis(Aegis):
    """Aegis with pipes that clients share: what no layer-4 peer does."""

    name = "aegis-multiplex"
    pooling = "multiplex"


class HAProxy(Front):
    """HAProxy in tcp mode."""

    name = "haproxy"

    def command(self) -> list[str]:
        """See `Front`."""
        ask, answer = (text.decode().strip() for text in PING[self.protocol])
        end = r"\r\n" if self.protocol == "resp" else r"\n"
        servers = "\n".join(f"    server {node.name} {node.address} check" for node in self.nodes)
        if self.dns:
            where = f"{NAME}:{self.nodes[0].port}"
            servers = f"    server-template server- 8 {where} check resolvers local init-addr none"
        milliseconds = int(INTER_S * 1000)
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"""
global
    nbthread 1
    stats socket {self.directory}/stats level admin
resolvers local
    nameserver ns 127.0.0.1:{self.dns or 53}
    timeout resolve 1s
    timeout retry 500ms
    hold valid 1s
    hold obsolete 0s
    accepted_payload_size 8192
defaults
    mode tcp
    retries {ATTEMPTS - 1}
    option redispatch 1
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout check {int(self.patience_s * 1000)}ms
    default-server inter {milliseconds}ms fall {TIMES} rise {TIMES} on-marked-down shutdown-sessions
    default-server resolve-prefer ipv4
listen bench
    bind 127.0.0.1:{self.port}
    balance roundrobin
    option tcp-check
    tcp-check connect
    tcp-check send {ask}{end}
    tcp-check expect string {answer}
{servers}
"""
        )
        return [find("haproxy") or "haproxy", "-db", "-f", str(config)]

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(FileNotFoundError):
            sock.connect(str(self.directory / "stats"))
            sock.sendall(command.encode() + b"\n")
            with sock.makefile() as reply:
                return reply.read()
        return ""

    def _rows(self) -> list[dict[str, str]]:
        lines = self._say("show servers state bench").splitlines()
        names = next((line.lstrip("# ").split() for line in lines if line.startswith("#")), [])
        return [dict(zip(names, line.split(), strict=False)) for line in lines[2:] if line]

    def states(self) -> dict[str, bool]:
        """See `Front`."""
        # Operational state 2 is running; any administrative bit takes it out.
        return {
            row["srv_addr"]: row["srv_op_state"] == "2" and row["srv_admin_state"] == "0"
            for row in self._rows()
            if row.get("srv_addr", "-") != "-"
        }

    def drain(self, node: Node) -> None:
        """See `Front`."""
        self._say(f"set server bench/{node.name} state drain")

    def ready(self, node: Node) -> None:
        """See `Front`."""
        self._say(f"set server bench/{node.name} state ready")


class Envoy(Front):
    """Envoy's tcp_proxy; servers that are told come from a file that is watched (EDS)."""

    name = "envoy"

    def command(self) -> list[str]:
        """See `Front`."""
        self._admin = free_port()
        self._draining: set[str] = set()
        self._write_endpoints()
        config = self.directory / "envoy.json"
        config.write_text(json.dumps(self._bootstrap()))
        quiet = ["--log-level", "error", "--disable-hot-restart", "--concurrency", "1"]
        return [find("envoy") or "envoy", "--config-path", str(config), *quiet]

    def _bootstrap(self) -> dict[str, Any]:
        proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
        relay = {
            "@type": proxy,
            "stat_prefix": "bench",
            "cluster": "bench",
            "max_connect_attempts": ATTEMPTS,
            "idle_timeout": "3600s",
        }
        listener = {
            "name": "bench",
            "address": _address("127.0.0.1", self.port),
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": relay}]}
            ],
        }
        return {
            "node": {"id": "bench", "cluster": "bench"},
            "admin": {"address": _address("127.0.0.1", self._admin)},
            "static_resources": {"listeners": [listener], "clusters": [self._cluster()]},
        }

    def _cluster(self) -> dict[str, Any]:
        ask, answer = PING[self.protocol]
        cluster: dict[str, Any] = {
            "name": "bench",
            "connect_timeout": "5s",
            "lb_policy": "ROUND_ROBIN",
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "close_connections_on_host_health_failure": True,
            "ignore_health_on_host_removal": True,
            "health_checks": [
                {
                    "timeout": f"{self.patience_s}s",
                    "interval": f"{INTER_S}s",
                    "no_traffic_interval": f"{INTER_S}s",
                    "unhealthy_threshold": TIMES,
                    "healthy_threshold": TIMES,
                    "tcp_health_check": {
                        "send": {"text": ask.hex()},
                        "receive": [{"text": answer.hex()}],
                    },
                }
            ],
        }
        if not self.dns:
            source = {"path_config_source": {"path": str(self._endpoints)}}
            eds = {"eds_config": source | {"resource_api_version": "V3"}}
            return cluster | {"type": "EDS", "eds_cluster_config": eds}
        resolver = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3"
        ask_there = {
            "@type": f"{resolver}.CaresDnsResolverConfig",
            "resolvers": [_address("127.0.0.1", self.dns)],
        }
        endpoint = {"endpoint": {"address": _address(NAME, self.nodes[0].port)}}
        return cluster | {
            "type": "STRICT_DNS",
            "dns_refresh_rate": "1s",
            "dns_lookup_family": "V4_ONLY",
            "typed_dns_resolver_config": {
                "name": "envoy.network.dns_resolver.cares",
                "typed_config": ask_there,
            },
            "load_assignment": {
                "cluster_name": "bench",
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        }

    @property
    def _endpoints(self) -> Path:
        return self.directory / "endpoints.json"

    def _write_endpoints(self) -> None:
        """Write the file of servers and move it into place, which is what Envoy looks for."""
        endpoints = [
            {
                "endpoint": {"address": _address(node.host, node.port)},
                "health_status": "DRAINING" if node.host in self._draining else "UNKNOWN",
            }
            for node in self.nodes
        ]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "bench",
            "endpoints": [{"lb_endpoints": endpoints}],
        }
        new = self.directory / "endpoints.new"
        new.write_text(json.dumps({"resources": [assignment]}))
        new.replace(self._endpoints)

    def states(self) -> dict[str, bool]:
        """See `Front`."""
        url = f"http://127.0.0.1:{self._admin}/clusters?format=json"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                clusters = json.load(reply)["cluster_statuses"]
        except OSError:
            return {}
        hosts = clusters[0].get("host_statuses", [])
        return {
            host["address"]["socket_address"]["address"]: host["health_status"]
            == {"eds_health_status": "HEALTHY"}
            for host in hosts
        }

    def drain(self, node: Node) -> None:
        """See `Front`."""
        self._draining.add(node.host)
        self._write_endpoints()

    def ready(self, node: Node) -> None:
        """See `Front`."""
        self._draining.discard(node.host)
        self._write_endpoints()


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


FRONTS: tuple[type[Front], ...] = (Aegis, SharingAegis, HAProxy, Envoy)


def missing(front: type[Front]) -> str:
    """Return why a proxy cannot take part; empty when it can."""
    program = {"haproxy": "haproxy", "envoy": "envoy"}.get(front.name)
    return f"{program} is not installed" if program and find(program) is None else ""


def version(front: type[Front]) -> str:
    """Return what a proxy says of its version."""
    if front.name.startswith("aegis"):
        return "this one"
    flag = "-v" if front is HAProxy else "--version"
    said = subprocess.run(
        [find(front.name) or front.name, flag], capture_output=True, text=True, check=False
    ).stdout
    return next((line.strip() for line in said.splitlines() if line.strip()), "")[:80]

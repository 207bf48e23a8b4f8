"""The configuration of each proxy: listen on one port of loopback, relay to another."""

import json
import resource
from typing import Any

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
MAX_PIPES = 200
NO_LIMIT = 1_000_000_000


def _sessions() -> int:
    # Two fds a session, and some for the proxy's own.
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2


def aegis(port: int, server_port: int, protocol: str, pooling: str, workers: int = 1) -> str:
    """Return a configuration."""
    # HTTP has one request at a time on a connection, so a limit would make clients wait.
    few = "max_connections = 32" if protocol != "http1" else ""
    limit = {
        "warm": "pool_min = 32",
        "multiplex": few,
        "session": "queue_max = 10000",  # thousands connect at once and wait for pipes to open
    }.get(pooling, "")
    return f"""
workers = {workers}
drain_timeout_s = 0
[[listener]]
name = "bench"
bind = "{LOOPBACK}:{port}"
backend = "bench"
protocol = "{protocol}"
pooling = "{pooling}"
[[backend]]
name = "bench"
servers = ["{LOOPBACK}:{server_port}"]
{limit}
"""


def haproxy(port: int, server_port: int, buffer_bytes: int = 16_384) -> str:
    """Return a configuration in tcp mode with one thread; a pipe has two fds, as a session has."""
    return f"""
global
    nbthread 1
    tune.bufsize {buffer_bytes}
    maxconn {_sessions() - MAX_PIPES}
    maxpipes {MAX_PIPES}
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind {LOOPBACK}:{port} backlog {BACKLOG}
    server one {LOOPBACK}:{server_port}
"""


def nginx(port: int, server_port: int, buffer_size: str = "16k") -> str:
    """Return a configuration of the stream module with one worker."""
    return f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1;
daemon off;
error_log stderr error;
pid nginx.pid;
events {{
    worker_connections {2 * _sessions()};
    multi_accept on;
}}
stream {{
    server {{
        listen {LOOPBACK}:{port} reuseport backlog={BACKLOG};
        proxy_pass {LOOPBACK}:{server_port};
        proxy_buffer_size {buffer_size};
        proxy_timeout 1h;
    }}
}}
"""


def envoy_tcp(port: int, server_port: int) -> str:
    """Return a bootstrap whose listener relays bytes."""
    return _envoy(
        port,
        server_port,
        "envoy.filters.network.tcp_proxy",
        {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": "bench",
        },
    )


def envoy_redis(port: int, server_port: int) -> str:
    """Return a bootstrap whose listener shares connections, request by request."""
    kind = "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"
    return _envoy(
        port,
        server_port,
        "envoy.filters.network.redis_proxy",
        {
            "@type": f"type.googleapis.com/{kind}",
            "stat_prefix": "bench",
            "settings": {"op_timeout": "30s"},
            "prefix_routes": {"catch_all_route": {"cluster": "bench"}},
        },
    )


def _envoy(port: int, server_port: int, filter_name: str, filter_config: dict[str, Any]) -> str:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": LOOPBACK, "port_value": number}}

    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    cluster = {
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, NO_LIMIT)]},
        "load_assignment": {
            "cluster_name": "bench",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server_port)}}]}],
        },
    }
    listener = {
        "name": "bench",
        "address": address(port),
        "tcp_backlog_size": BACKLOG,
        "filter_chains": [{"filters": [{"name": filter_name, "typed_config": filter_config}]}],
    }
    return json.dumps(
        {
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
            "stats_config": {"stats_matcher": {"reject_all": True}},
        }
    )


def twemproxy(port: int, server_port: int) -> str:
    """Return a pool of one redis."""
    return f"""
bench:
  listen: {LOOPBACK}:{port}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  preconnect: true
  backlog: {BACKLOG}
  servers:
   - {LOOPBACK}:{server_port}:1
"""

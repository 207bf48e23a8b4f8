"""Rows about what stands behind and inside: pool, servers, buffers, processes."""

from ops.grafana.panels import Panel, Query, Row
from ops.grafana.promql import ALL, now, quantile, quantiles, rate

POOL = Row(
    "Pool: why are clients waiting?",
    [
        Panel(
            "Pipes",
            "By state. All alone or active while clients wait: raise max_connections, see pins.",
            [
                Query(
                    now("aegis_pipes", "backend, protocol, pipe"),
                    "{{backend}} {{protocol}} {{pipe}}",
                )
            ],
            "short",
            8,
            stacked=True,
        ),
        Panel(
            "Clients waiting, connections busy",
            "By backend.",
            [
                Query(now("aegis_backend_waiting", "backend"), "{{backend}} waiting"),
                Query(now("aegis_backend_busy", "backend"), "{{backend}} busy"),
            ],
            "short",
            8,
        ),
        Panel(
            "Time that clients waited",
            "For a connection, those who got one: median, p99 and p99.9.",
            quantiles("aegis_backend_wait_seconds", "backend"),
            "s",
            8,
        ),
        Panel(
            "A pipe was ready",
            "Share of the times that a client needed one. Low: pool_min, or more connections.",
            [
                Query(
                    f"{rate('aegis_pool_hits_total', 'backend')} / "
                    f"({rate('aegis_pool_hits_total', 'backend')} + "
                    f"{rate('aegis_pool_misses_total', 'backend')} > 0)",
                    "{{backend}}",
                )
            ],
            "percentunit",
            8,
            maximum=1,
        ),
        Panel(
            "Longest wait",
            "How long the client that waits longest has waited, by backend.",
            [
                Query(
                    f"max by (backend) (aegis_backend_longest_wait_seconds{{{ALL}}})",
                    "{{backend}}",
                )
            ],
            "s",
            8,
        ),
        Panel(
            "Turned away",
            "Clients that waited in vain, or found the queue full.",
            [
                Query(
                    rate("aegis_sessions_closed_total", "listener, reason", 'reason=~"queue_.*"'),
                    "{{listener}} {{reason}}",
                )
            ],
            "ops",
            8,
        ),
        Panel(
            "Pins, by reason",
            "Clients that got a pipe of their own for a while, and for what.",
            [Query(rate("aegis_pins_total", "backend, pin"), "{{backend}} {{pin}}")],
            "ops",
            8,
            stacked=True,
        ),
        Panel(
            "Requests in flight",
            "Replies that servers owe. Growing while requests do not: servers get slower.",
            [
                Query(
                    now("aegis_requests_in_flight", "backend, protocol"),
                    "{{backend}} {{protocol}}",
                )
            ],
            "short",
            8,
            stacked=True,
        ),
        Panel(
            "Bytes that break the protocol",
            "A client's: it is closed. A server's: its pipe is, and nobody gets them.",
            [
                Query(
                    rate("aegis_framer_errors_total", "backend, protocol, from, kind"),
                    "{{backend}} {{protocol}}: {{from}} {{kind}}",
                )
            ],
            "ops",
            8,
        ),
        Panel(
            "Pipes opened",
            "Many, with as many sessions as before: servers close them, or they are poisoned.",
            [
                Query(
                    rate("aegis_pipes_opened_total", "backend, protocol"),
                    "{{backend}} {{protocol}}",
                )
            ],
            "ops",
            8,
        ),
        Panel(
            "Pipes lost",
            "server_lost: the server ended it. unexpected: bytes nobody was owed; nobody got them.",
            [Query(rate("aegis_pipes_lost_total", "backend, loss"), "{{backend}} {{loss}}")],
            "ops",
            8,
        ),
    ],
)
_SERVER, _NAME = "instance, backend, server", "{{instance}} {{backend}}/{{server}}"
SERVERS = Row(
    "Servers: is it the database?",
    [
        Panel(
            "Connections",
            "Open or being opened, by server.",
            [Query(now("aegis_connections", "backend, server"), "{{backend}}/{{server}}")],
            "short",
            8,
        ),
        Panel(
            "Connects per second",
            "Established, by server.",
            [Query(rate("aegis_connects_total", "backend, server"), "{{backend}}/{{server}}")],
            "ops",
            8,
        ),
        Panel(
            "Connect errors",
            "ECONNREFUSED: nothing listens. ETIMEDOUT: no answer. EADDRNOTAVAIL: no port is left.",
            [
                Query(
                    rate("aegis_connect_errors_total", "backend, server, error"),
                    "{{backend}}/{{server}} {{error}}",
                )
            ],
            "ops",
            8,
        ),
        Panel(
            "Time to connect, p99",
            "By server: one slow among others is that server, all slow is the network.",
            [
                Query(
                    quantile(0.99, "aegis_connect_seconds", "backend, server"),
                    "{{backend}}/{{server}}",
                )
            ],
            "s",
            8,
        ),
        Panel(
            "Time to a reply, p99",
            "By server, on pipes: slow while connecting is quick is the database itself.",
            [
                Query(
                    quantile(0.99, "aegis_reply_seconds", "backend, server"),
                    "{{backend}}/{{server}}",
                )
            ],
            "s",
            8,
        ),
        Panel(
            "Oldest reply that is due",
            "By server, on shared pipes. Growing evenly: it hangs, and no latency says so.",
            [
                Query(
                    f"max by (instance, backend, server) (aegis_oldest_reply_seconds{{{ALL}}})",
                    "{{backend}}/{{server}}",
                )
            ],
            "s",
            8,
        ),
        Panel(
            "Time to the first byte, p99",
            "By server, without pipes: the same for raw sessions.",
            [
                Query(
                    quantile(0.99, "aegis_first_byte_seconds", "backend, server"),
                    "{{backend}}/{{server}}",
                )
            ],
            "s",
            8,
        ),
        Panel(
            "Up",
            "1: may have sessions, by its checks and ejections. All at 0: the backend is down.",
            [Query(now("aegis_server_up", _SERVER), _NAME)],
            "short",
            6,
        ),
        Panel(
            "Weight",
            "What is left of it. 0: no new sessions, by health or an operator; rising: slow start.",
            [Query(now("aegis_server_weight", _SERVER), _NAME)],
            "short",
            6,
        ),
        Panel(
            "Failed checks",
            "By server. With Up at 1 they are fewer than fall in a row.",
            [
                Query(
                    rate("aegis_server_checks_total", "backend, server", 'result="failed"'),
                    "{{backend}}/{{server}}",
                )
            ],
            "ops",
            6,
        ),
        Panel(
            "Clients' failures",
            "connect, server_reset, server_lost, reply_timeout: what outlier detection goes by.",
            [
                Query(
                    rate("aegis_server_failures_total", "backend, server, failure"),
                    "{{backend}}/{{server}} {{failure}}",
                )
            ],
            "ops",
            6,
        ),
    ],
)
PRESSURE = Row(
    "Back-pressure and limits",
    [
        Panel(
            "Buffers in use",
            "Share of the slabs that hold bytes which somebody does not take.",
            [
                Query(
                    f"{now('aegis_slabs_used', 'instance, worker')}"
                    f" / {now('aegis_slabs', 'instance, worker')}",
                    "worker {{worker}}",
                )
            ],
            "percentunit",
            8,
            maximum=1,
        ),
        Panel(
            "Reads without a spare buffer",
            "They wait in the kernel: slow, and nothing lost.",
            [Query(rate("aegis_slab_shortages_total", "instance, worker"), "worker {{worker}}")],
            "ops",
            8,
        ),
        Panel(
            "Accept errors and pauses",
            "EMFILE and pauses: file descriptors ran out.",
            [
                Query(
                    rate("aegis_accept_errors_total", "listener, error"), "{{listener}} {{error}}"
                ),
                Query(
                    rate("aegis_accept_pauses_total", "instance, worker"),
                    "worker {{worker}} pauses",
                ),
            ],
            "ops",
            8,
        ),
    ],
)
ITSELF = Row(
    "Aegis itself: what happened at 14:03?",
    [
        Panel(
            "Workers",
            "Serving or not, by worker.",
            [
                Query(
                    f'max by (instance, worker) (aegis_worker_phase{{{ALL},phase="serving"}})',
                    "worker {{worker}}",
                )
            ],
            "none",
            8,
            "state-timeline",
            maximum=1,
            steps=[("red", None), ("green", 1)],
        ),
        Panel(
            "Deaths",
            "Of workers and of the exporter, since the controller started.",
            [
                Query(f"aegis_worker_restarts_total{{{ALL}}}", "worker {{worker}}"),
                Query(f"aegis_exporter_restarts_total{{{ALL}}}", "exporter"),
            ],
            "short",
            8,
        ),
        Panel(
            "Changes",
            "Epochs: drain, reload, a worker retired, connections moved. A worker below is behind.",
            [
                Query(f"aegis_epoch{{{ALL}}}", "{{instance}}"),
                Query(f"aegis_worker_epoch{{{ALL}}}", "{{instance}} worker {{worker}}"),
            ],
            "short",
            8,
        ),
        Panel(
            "Telemetry age",
            "Since the exporter last heard of a worker: 1 s is normal.",
            [Query(f"aegis_telemetry_age_seconds{{{ALL}}}", "worker {{worker}}")],
            "s",
            8,
        ),
        Panel(
            "Reports dropped, messages ignored",
            "Found no room or no peer; made no sense, came late, or from nobody we know.",
            [
                Query(
                    rate("aegis_bus_dropped_total", "instance, worker"), "worker {{worker}} dropped"
                ),
                Query(
                    rate("aegis_bus_errors_total", "instance, worker, why"),
                    "worker {{worker}} ignored: {{why}}",
                ),
                Query(
                    rate("aegis_bus_ignored_total", "instance, socket, why"),
                    "{{socket}} ignored: {{why}}",
                ),
            ],
            "ops",
            8,
        ),
        Panel(
            "Session log",
            "Sessions written, and those that are missing in it.",
            [
                Query(rate("aegis_session_log_written_total", "instance"), "written"),
                Query(rate("aegis_session_log_unwritten_total", "instance"), "not written"),
                Query(rate("aegis_session_log_dropped_total", "instance"), "dropped"),
            ],
            "ops",
            8,
        ),
    ],
)

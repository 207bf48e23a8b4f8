"""Rows about the clients: what they do, what they wait for, and on which core."""

from ops.grafana.panels import Panel, Query, Row
from ops.grafana.promql import ALL, FAULTS, heat, now, quantile, quantiles, rate

GLANCE = Row(
    "At a glance",
    [
        Panel(
            "Phase",
            "Of each proxy. Empty: no controller; workers serve all the same.",
            [Query(f"aegis_phase{{{ALL}}} == 1", "{{phase}}")],
            "none",
            3,
            "stat",
            shows_names=True,
        ),
        Panel(
            "Requests per second",
            "Where pipes are shared: requests sent to servers. Raw listeners count sessions only.",
            [Query(rate("aegis_requests_total", ""), "requests")],
            "ops",
            3,
            "stat",
        ),
        Panel(
            "Sessions open",
            "Clients that are connected, busy or not.",
            [Query(now("aegis_sessions_active", ""), "sessions")],
            "short",
            3,
            "stat",
        ),
        Panel(
            "From clients",
            "Bytes read from clients.",
            [Query(rate("aegis_received_bytes_total", "", 'from="client"'), "bytes")],
            "Bps",
            3,
            "stat",
        ),
        Panel(
            "From servers",
            "Bytes read from servers.",
            [Query(rate("aegis_received_bytes_total", "", 'from="server"'), "bytes")],
            "Bps",
            3,
            "stat",
        ),
        Panel(
            "p99",
            "Reply: from a request's way to a server to its end. Connect: the network's part.",
            [
                Query(quantile(0.99, "aegis_reply_seconds"), "reply"),
                Query(quantile(0.99, "aegis_connect_seconds"), "connect"),
            ],
            "s",
            3,
            "stat",
            steps=[("green", None), ("orange", 0.05), ("red", 0.25)],
        ),
        Panel(
            "Clients waiting",
            "For a connection to a server: max_connections are busy, or servers accept none.",
            [Query(now("aegis_backend_waiting", ""), "clients")],
            "short",
            3,
            "stat",
            steps=[("green", None), ("orange", 1), ("red", 50)],
        ),
        Panel(
            "Hottest core",
            "Share of the time that the busiest worker's loop is at work; 1 is all of it.",
            [Query(f"max({rate('aegis_loop_turn_seconds_sum', 'instance, worker')})", "busy")],
            "percentunit",
            3,
            "stat",
            steps=[("green", None), ("orange", 0.7), ("red", 0.9)],
        ),
    ],
    height=4,
)
TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Requests per second",
            "Sent to servers where pipes are shared, by backend and protocol.",
            [Query(rate("aegis_requests_total", "backend, protocol"), "{{backend}} {{protocol}}")],
            "ops",
            6,
            stacked=True,
        ),
        Panel(
            "Sessions per second",
            "Clients accepted, by listener.",
            [Query(rate("aegis_sessions_total", "listener"), "{{listener}}")],
            "ops",
            6,
            stacked=True,
        ),
        Panel(
            "Bandwidth",
            "Read from clients and from servers, by listener.",
            [
                Query(
                    rate("aegis_received_bytes_total", "listener, from"),
                    "{{listener}} from {{from}}",
                )
            ],
            "Bps",
            6,
        ),
        Panel(
            "Sessions open",
            "By listener. Growing while the rate does not: sessions take longer, or never end.",
            [Query(now("aegis_sessions_active", "listener"), "{{listener}}")],
            "short",
            6,
            stacked=True,
        ),
        Panel(
            "Sessions closed, by reason",
            "client_eof and server_eof are normal ends.",
            [Query(rate("aegis_sessions_closed_total", "reason"), "{{reason}}")],
            "ops",
            12,
            stacked=True,
        ),
        Panel(
            "Sessions that servers failed",
            "Share of those that closed: resets, failed connects, waits in vain, lost pipes.",
            [
                Query(
                    rate("aegis_sessions_closed_total", "listener", f'reason=~"{FAULTS}"')
                    + " / ("
                    + rate("aegis_sessions_closed_total", "listener")
                    + " > 0)",
                    "{{listener}}",
                )
            ],
            "percentunit",
            12,
        ),
    ],
)
LATENCY = Row(
    "Latency: the network and the database, or Aegis?",
    [
        Panel(
            "Time to a reply",
            "How many replies took how long, where pipes are shared; waiting for one is not in it.",
            [Query(heat("aegis_reply_seconds"), "{{le}}")],
            "s",
            12,
            "heatmap",
        ),
        Panel(
            "Time to connect to servers",
            "How many connects took how long. A second band at 1 s: lost SYNs or a full queue.",
            [Query(heat("aegis_connect_seconds"), "{{le}}")],
            "s",
            12,
            "heatmap",
        ),
        Panel(
            "Time to a reply, by backend",
            "Median, p99 and p99.9.",
            quantiles("aegis_reply_seconds", "backend"),
            "s",
            8,
        ),
        Panel(
            "Time to connect, by backend",
            "Median, p99 and p99.9.",
            quantiles("aegis_connect_seconds", "backend"),
            "s",
            8,
        ),
        Panel(
            "Time to the first byte, by backend",
            "Without pipes: from what the client said last to what the server says first.",
            quantiles("aegis_first_byte_seconds", "backend"),
            "s",
            8,
        ),
        Panel(
            "How long sessions last",
            "Median, p99 and p99.9 of those that have closed, by listener.",
            quantiles("aegis_session_seconds", "listener"),
            "s",
            8,
        ),
        Panel(
            "Turns of the loop",
            "How many took how long: what Aegis itself adds. A cell above 100 ms is a stall.",
            [Query(heat("aegis_loop_turn_seconds"), "{{le}}")],
            "s",
            8,
            "heatmap",
        ),
        Panel(
            "Longest turn of the loop",
            "In each second, by worker. High with an idle loop: the core was taken away.",
            [
                Query(
                    f"max by (instance, worker) (aegis_loop_longest_turn_seconds{{{ALL}}})",
                    "worker {{worker}}",
                )
            ],
            "s",
            8,
        ),
    ],
)
CORES = Row(
    "Per core",
    [
        Panel(
            "Busy",
            "Share of the time that a loop is at work. All high: more cores. One: look right.",
            [Query(rate("aegis_loop_turn_seconds_sum", "instance, worker"), "worker {{worker}}")],
            "percentunit",
            8,
            maximum=1,
            steps=[("green", None), ("red", 0.9)],
        ),
        Panel(
            "CPU",
            "Of a worker, user and system. Below busy: somebody else has the core at times.",
            [Query(rate("aegis_cpu_seconds_total", "instance, worker"), "worker {{worker}}")],
            "percentunit",
            8,
        ),
        Panel(
            "Memory",
            "Resident, by worker. It is flat once all slabs have been touched.",
            [Query(now("aegis_memory_bytes", "instance, worker"), "worker {{worker}}")],
            "bytes",
            8,
        ),
        Panel(
            "Sessions open",
            "By worker. The kernel spreads by hash of addresses: few clients spread badly.",
            [Query(now("aegis_sessions_active", "instance, worker"), "worker {{worker}}")],
            "short",
            8,
        ),
        Panel(
            "Sessions per second",
            "By worker.",
            [Query(rate("aegis_sessions_total", "instance, worker"), "worker {{worker}}")],
            "ops",
            8,
        ),
        Panel(
            "Bandwidth",
            "Both ways together, by worker: a few heavy sessions make one core hot.",
            [Query(rate("aegis_received_bytes_total", "instance, worker"), "worker {{worker}}")],
            "Bps",
            8,
        ),
    ],
)

"""Every fixed number of Aegis, each with its unit and its reason, asserted together at the end.

What a user may want to change is a configuration key (aegis/config.py); what stands here is not.
"""

# --- data path -------------------------------------------------------------------------------
MIN_SLAB_BYTES = 64  # tests run everything once more with slabs this small
MAX_SLAB_BYTES = 16 << 20
MIN_SLABS = 2  # one is always the loop's hot slab, the other can be parked
MAX_SLABS = 65_536
ACCEPTS_PER_TURN = 64  # a flood of connects must not hold the loop from its sessions
ROUNDS_PER_EVENT = (
    4  # reads in a row from a source that fills its slab each time; then others' turn
)
KERNEL_PIPE_BYTES = 1 << 19  # moved at once; twice as much costs others latency (row mix)
BULK_BYTES = 65_536  # less at a time is copied: splice(2) costs more than it saves
MAX_KERNEL_PIPES = 1_024
EVENTS_PER_TURN = 512  # bounds one turn's length; epoll hands out the rest next turn, round robin
ACCEPT_PAUSE_S = 0.1  # after EMFILE/ENFILE: retry this often, the listener stays readable meanwhile
TICK_S = 0.1  # granularity of timeouts: none fires early, each at most this much (and a turn) late
WHEEL_SLOTS = 512  # the wheel spans 51 s; longer timeouts are looked at once per span and re-armed
CONNECT_ATTEMPTS = 8  # a ceiling on `connect_attempts`; each costs a client its waiting time
REFUSE_SETTLE_S = 0.05  # a drain waits this long for handshakes under way before it closes the port

# --- hot pipes -------------------------------------------------------------------------------
HALVES_BYTES = 1 << 20  # what halves of requests may take in all, however small the slabs are
MAX_PIPELINED = 4_096  # replies one client may have outstanding before it is read no further
RUN_MAX = 256  # replies to one client that are passed over at once
GATHER_S = 0.0002  # while more events wait, requests are gathered so long; then they go
GATHER_MAX = 64  # replies a pipe may owe before a turn's next request goes to another pipe
MAX_OPENING = 4  # pipes being opened at once for those of one setup who will share them
LOOK_AHEAD = 64  # of those who wait, how many are looked at to see how many pipes are wanted
GROW_AFTER_S = 0.005  # every pipe has made its clients wait so long for one reply: open another
MAX_SETUP_REPLY_BYTES = 65_536  # kept until it is known not to be a refusal; HELLO's has 200
SLOW_CLIENT_S = 5.0  # a client that takes no replies may hold up others on its pipe so long
LINGER_S = 1.0  # after the last answer: how long the client may take to close
RECONNECT_MIN_S = 0.1  # after all servers have refused
RECONNECT_MAX_S = 2.0

# --- servers ---------------------------------------------------------------------------------
WEIGHT_UNIT = 100  # what a weight of 1 is to a worker, so that slow start has steps to take
FAILURES_FORGOTTEN_S = 10.0  # failures further apart than this are no row
MAX_WEIGHT = 65_535  # an SRV record's
SLOW_START_STEPS = 50  # in which a weight grows; each is a command to all workers
MAX_CHECKS = 1_000  # of `rise` and `fall`
MAX_SERVERS = 1_000  # that are found for one backend; a command that lists them all has its size
DNS_REFRESH_MIN_S = (
    1.0  # a TTL of 0 is not asked for more often; also the first wait after a failure
)
DNS_REFRESH_MAX_S = 3_600.0  # a TTL of a day would hide a new server for as long
DNS_RETRY_MAX_S = 30.0  # the wait after failures doubles up to this
FILE_LOOK_S = 1.0  # how often a file of servers is read
CHECK_REPLY_BYTES = 16_384  # of the answer to a check are read; a banner or a status line has fewer

# --- doors -----------------------------------------------------------------------------------
PRELUDE_S = 30.0  # for a PROXY header, a ClientHello or a handshake, where nothing else is said
PEEK_BYTES = 2_048  # looked at of a PROXY header at once; with its values one may be longer
SHARE_WAIT_S = 3.0  # in which a share that is free elsewhere comes: mostly milliseconds
SHARE_TURN_S = 0.1  # of fewer connections than workers one goes to who has waited so much longer
MAX_WAITING_FOR_SHARE = 1_024  # clients of each worker; more are refused at once
MAX_FAREWELLS = 256  # clients of each listener that are told why at once; more are just closed

# --- TLS -------------------------------------------------------------------------------------
TLS_RECORD_BYTES = 18_437  # the longest record: header, 16 KiB, and what TLS 1.2 may add to it
HANDSHAKES_PER_TURN = 4  # steps of them; with RSA one costs a millisecond, and the others wait
GOODBYE_S = 30.0  # how long a peer that takes no bytes may keep close_notify from being sent

# --- lifecycle -------------------------------------------------------------------------------
HEARTBEAT_S = 1.0  # commands, reports and telemetry are repeated this often
STALE_S = 3.0  # three heartbeats missed: what was last said is no longer believed
WORKER_START_DEADLINE_S = 20.0  # from spawn to `serving`; a slow disk may take seconds to import
KILL_AFTER_S = 5.0  # from a worker's deadline to SIGKILL
BACKOFF_MIN_S = 0.1  # before the second replacement in a row; the first is at once
BACKOFF_MAX_S = 10.0
HUNG_AFTER_S = 15.0  # missed heartbeats of a worker that served; then it gets a successor
HUNG_KILL_S = 5.0  # and, unless it speaks again, its end: its sessions hang as well
STEER_SETTLE_S = 1.0  # new connections go elsewhere by then, handshakes under way have ended
CUTS_LISTED = 32  # sessions that a deadline ended and `status` lists, of each worker
FEW_FDS = 4_096  # fewer allowed fds than this are worth a warning at start
UPGRADE_PATIENCE_S = 20.0  # a worker that is being started must be known before its parent execs
STABLE_AFTER_S = 10.0  # a worker that served this long starts with a clean record when it dies
FLAPPING_DEATHS = 5  # so many deaths in FLAPPING_WINDOW_S and the slot is called flapping
FLAPPING_WINDOW_S = 60.0

# --- bus -------------------------------------------------------------------------------------
MESSAGE_BYTES = 1 << 20  # a larger one is dropped by ZeroMQ itself (ZMQ_MAXMSGSIZE)
SEND_HWM = 1_000  # messages queued for a peer that does not read; beyond that they are dropped
REPORTS_HWM = 64  # reports and telemetry queued for a peer that is away or slow; a minute of them
HANDSHAKE_S = 5.0  # a peer that connects and says nothing is cut; ZeroMQ's own default is 30 s
BUS_PROBE_S = 2.0  # between two probes of a peer on another machine; two missed, and it is lost
DEAF_AFTER_S = 10.0  # a worker that hears no command, or cannot report, connects anew so often
RENEW_AFTER_S = 600.0  # one that cannot tell the exporter; what is queued is lost and not counted
COMPLAIN_EVERY_S = 60.0  # nonsense on the bus is counted each time and logged so often
REQUEST_TIMEOUT_S = 5.0  # the controller answers from memory; slower means it is stuck or gone

# --- exporter --------------------------------------------------------------------------------
SCRAPE_TIMEOUT_S = 10.0  # Prometheus' default; a client slower than this is cut
MAX_SCRAPERS = 128  # connections at once, a thread each; one more cuts the one that is oldest
REQUEST_BODY_BYTES = 1 << 20  # of a refused request, read so that the client gets to its answer
SETTLE_S = 2 * HEARTBEAT_S  # a new exporter has heard every living worker by then
FOLD_AFTER_S = 10 * STALE_S  # silence after which a dead worker's counters become one sum
HISTORY_S = 900  # what the HUD's charts and events go back, one point a second
MAX_EVENTS = 200  # of those; more in a quarter of an hour nobody reads
MAX_STREAMS = 50  # browsers that are told of every second; the next one gets a 503
STREAM_BUFFER_BYTES = 128 << 10  # kernel memory for one of them; who lets it fill up is cut
QUANTILE_WINDOW_S = 5  # p99.9 of one second of a slow database would be noise
CONNECT_WINDOW_S = 60  # hot pipes connect seldom, so a server's quantiles look back further

# --- session log -----------------------------------------------------------------------------
SESSIONS_PER_BATCH = 256  # closed sessions in one message, about 40 KiB; a fuller one goes at once
SESSION_LOG_DELAY_S = 0.5  # how long a closed session waits at most for its batch to leave
SESSION_LOG_HWM = 64  # batches queued on either side; beyond that they are dropped and counted

# --- configuration ---------------------------------------------------------------------------
MAX_WORKERS = 1_024
MAX_TIMEOUT_S = 30 * 24 * 3600.0
MAX_SAMPLE = 1_000_000  # of so many sessions one is logged
MAX_NAME_CHARS = 64  # names become label values and table cells
MAX_CONNECTIONS = 1_000_000
MAX_SESSIONS = 10_000_000
MAX_SESSIONS_LISTED = 1_000  # by `aegis-ctl sessions`; each is some 200 bytes of a report
MAX_ACCEPT_RATE = 1_000_000  # a second; more than a worker accepts
MAX_BYTES_PER_S = 1 << 40
MAX_FRAME_BYTES = 1 << 40
MAX_QUEUE = 1_000_000
MAX_BACKLOG = 65_535  # listen(2) queue; net.core.somaxconn, 4_096 by default, cuts it anyway
MAX_KEEPALIVE_S = 32_767  # MAX_TCP_KEEPIDLE of the kernel; setsockopt refuses more
MAX_SLAB_MEMORY_BYTES = 4 << 30  # slab_bytes * slabs of one worker; more is a typing error

assert MIN_SLAB_BYTES <= MAX_SLAB_BYTES
assert MIN_SLABS <= MAX_SLABS
assert TICK_S <= REFUSE_SETTLE_S * 2
assert HEARTBEAT_S < STALE_S < DEAF_AFTER_S < HUNG_AFTER_S < WORKER_START_DEADLINE_S
assert REQUEST_TIMEOUT_S < HUNG_AFTER_S  # `aegis-ctl` names a worker that does not react
assert REFUSE_SETTLE_S < STEER_SETTLE_S
assert BACKOFF_MIN_S < BACKOFF_MAX_S < FLAPPING_WINDOW_S

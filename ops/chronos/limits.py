"""Every fixed number of Chronos, each with its unit and its reason."""

# --- requests --------------------------------------------------------------------------------
MAX_LINE_BYTES = 1 << 20  # of the line protocol, without its line end; bounds a client's input
MAX_VALUE_BYTES = 1 << 20  # of a PUT; so that GET can give it back in one line of MAX_LINE_BYTES
MAX_REQUEST_LINE_BYTES = 8_000  # RFC 9112 section 3 recommends to support at least 8000 octets
MAX_HEAD_BYTES = 16 << 10  # request line and fields; also bounds the trailers of a chunked body
MAX_CHUNK_LINE_BYTES = 256  # a chunk's size and its extensions, which nobody sends
CACHED_HEADS = 256  # a benchmark sends one head a million times; at most 4 MiB are kept

# --- loop ------------------------------------------------------------------------------------
RECEIVE_BYTES = 64 << 10  # a client's share of one turn
OUTPUT_BYTES = 256 << 10  # a client's requests wait while it has this much to take (+ one reply)
EVENTS_PER_TURN = 512  # bounds one batch; epoll hands out the rest next turn
ACCEPTS_PER_TURN = 64  # a flood of connects must not hold the loop from its clients
ACCEPT_PAUSE_S = 0.1  # out of descriptors the listener stays readable: look again this often
LISTEN_BACKLOG = 4_096  # the kernel lowers it to net.core.somaxconn
LINGER_S = 2.0  # a refused client's input is read this long, so that it can read why

# --- store -----------------------------------------------------------------------------------
OPEN_TABLES = 128  # descriptors RocksDB may hold for its tables
RESERVED_FDS = OPEN_TABLES + 64  # never given to clients: a write-ahead log needs one to go on
REOPEN_S = 1.0  # after a failed commit: how often a write may try to open the database anew

assert MAX_VALUE_BYTES <= MAX_LINE_BYTES
assert MAX_REQUEST_LINE_BYTES < MAX_HEAD_BYTES
assert MAX_CHUNK_LINE_BYTES < MAX_HEAD_BYTES

"""The bounds of RESP requests and replies, each with its reason."""

MAX_INLINE_BYTES = 64 << 10
"""Of a request in one line, with its end: PROTO_INLINE_MAX_SIZE in redis/src/server.h."""
MAX_WORDS = 1 << 20
"""Of one request; Redis before 7.0 allows as many (processMultibulkBuffer, src/networking.c)."""
MAX_BULK_BYTES = 512 << 20
"""Of one word of a request: `proto-max-bulk-len` as Redis ships. Never held, only passed on."""
SMALL_BYTES = 100
"""A bulk string shorter than this has its length checked by a pattern, which has one branch for
each length; more of them make the patterns slow to compile, at 10 ms for 100."""
IN_FLIGHT = 1024
"""Requests on one pipe without a reply: more than a pipe's round trip holds, and it bounds how
many clients wait behind one slow command."""

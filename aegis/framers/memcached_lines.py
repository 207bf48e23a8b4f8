"""Judges one command line of the memcached text protocol: may it be shared, does a body follow?

Owned by `memcached_requests`, which matches the ordinary lines with a pattern of its own and comes
here for all others. The two must agree: what the patterns take, `judge` calls shared.

Sources: memcached's doc/protocol.txt; proto_text.c of 1.6.18 and proto_parser.c of 1.6.45, and what
those servers answered. The rules rest on four things that the protocol's text does not say:

- A storage command whose line the server rejects leaves its body to be read as commands. So a line
  that a server could reject before it knows the length is refused, and never sent.
- A key of more than 250 bytes in a get throws away replies that the server has ready for earlier
  requests of the connection (process_get_command → conn_release_items). So no get with one is sent.
- `noreply` and the meta flag `q` hide a reply or not, as it turns out: the replies are uncountable.
  A flawless line with `noreply` is sent without it, and the reply is thrown away.
- `b` lets a key hold CRLF, and `mg … b k` and `me … b` send back the key of an item that mg or ma
  created as it is, CRLF and all: a client would write the replies of others.
"""

import re
from typing import NamedTuple

from aegis.framers import contract
from aegis.framers.contract import ProtocolError, Verdict

MAX_KEY_BYTES = 250
"""KEY_MAX_LENGTH in memcached.h."""
MAX_LINE_BYTES = 2048
"""With its end. The server closes a connection that has sent more than that without a newline,
except in get and gets (try_read_command_ascii)."""
MAX_GET_LINE_BYTES = 1 << 20
"""Of get and gets, where the server has no limit: room for 4,000 keys of the longest kind."""
MAX_GET_KEYS = 4000
"""For the pattern: 4,000 of 251 bytes are less than MAX_GET_LINE_BYTES."""
MAX_META_FLAGS = 16
"""MFLAG_MAX_OPT_LENGTH is 20 with the command, key, length and an end mark; a meta set with more is
rejected before its length is known."""
MAX_VALUE_BYTES = 1 << 30
"""The largest `-I` the server takes: 1024 MiB."""
MAX_UINT32 = (1 << 32) - 1
MAX_INT32 = (1 << 31) - 1
MAX_UINT64 = (1 << 64) - 1

KEY = rb"[!-~\x80-\xff]{1,250}+"
META_LETTERS = b"bcCDEfFhIJklLMNOPRstTuvx"
"""Flags of 1.6.45 except q. An unknown one may mean anything tomorrow."""

STORAGE = frozenset((b"set", b"add", b"replace", b"append", b"prepend", b"cas"))
META = frozenset((b"mg", b"md", b"ma"))
KEYED = frozenset((b"get", b"gets", b"gat", b"gats", b"delete", b"incr", b"decr", b"touch"))
KEYLESS = frozenset((b"mn", b"version", b"verbosity", b"flush_all"))
"""A line of KEYED or KEYLESS brings exactly one reply whatever it says, short of noreply."""
SHARED_STATS = frozenset((b"items", b"slabs", b"sizes", b"settings", b"conns", b"reset"))
"""STAT lines of the server's own making, or RESET. cachedump and detail dump print keys as they
are, which may hold CRLF."""
ADMIN = frozenset(
    (b"watch", b"lru_crawler", b"lru", b"slabs", b"cache_memlimit", b"extstore", b"shutdown",
     b"refresh_certs")
)  # fmt: skip
"""watch and lru_crawler metadump stream; the others are rare enough to have a pipe each."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_STORE = re.compile(
    rb"(?:(?:set|add|replace|append|prepend) (?:%b) (\d{1,10}) (-?\d{1,10}) (\d{1,10})"
    rb"|cas (?:%b) (\d{1,10}) (-?\d{1,10}) (\d{1,10}) (\d{1,20})) *" % (KEY, KEY)
)
_UNHEARD = re.compile(
    rb"delete %b(?: 0)?|(?:incr|decr) %b \d{1,20}|touch %b -?\d{1,10}|flush_all(?: -?\d{1,10})?"
    % (KEY, KEY, KEY)
)
_META_SET = re.compile(
    rb"ms %b (\d{1,10})(?: [A-Za-z][!-~\x80-\xff]*+){0,%d}+ *" % (KEY, MAX_META_FLAGS)
)

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
BAD_BODY = b"CLIENT_ERROR bad data chunk\r\n"
BAD_FLAGS = b"CLIENT_ERROR options flags are too long\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
LONG_LINE = b"CLIENT_ERROR line too long\r\n"
UNKNOWN = b"ERROR\r\n"


class Ruling(NamedTuple):
    """What a command line is."""

    verdict: Verdict | None
    """None: shared, owed one reply."""
    why: str = ""
    reply: bytes = b""
    body_bytes: int = 0
    """How many follow the line, CRLF included; 0: none."""
    meta: bool = False
    """Only servers since 1.6.10 read such a meta command, and reply to it, in the form we know."""
    discard: bool = False
    """Shared when it is sent without its last word, NOREPLY_WORD; the reply is thrown away."""


NOREPLY_WORD = b" noreply"
SHARED = Ruling(None)
META_SHARED = Ruling(None, meta=True)
UNHEARD = Ruling(None, discard=True)
NOREPLY = Ruling(Verdict.TUNNEL, "noreply")
QUIET = Ruling(Verdict.TUNNEL, "quiet")
BINARY_KEY = Ruling(Verdict.TUNNEL, "binary_key")
UNKNOWN_FLAG = Ruling(Verdict.TUNNEL, "unknown_flag")
ADMINISTRATION = Ruling(Verdict.TUNNEL, "admin")
STATISTICS = Ruling(Verdict.TUNNEL, "stats")
UNKNOWN_COMMAND = Ruling(Verdict.ANSWER, "unknown_command", UNKNOWN)
KEY_TOO_LONG = Ruling(Verdict.ANSWER, "key_too_long", BAD_LINE)
TOO_MANY_FLAGS = Ruling(Verdict.ANSWER, "too_many_flags", BAD_FLAGS)
MALFORMED = Ruling(Verdict.REFUSE, "bad_line", BAD_LINE)
VALUE_TOO_LARGE = Ruling(Verdict.REFUSE, "too_large", TOO_LARGE)
LINE_TOO_LONG = Ruling(Verdict.REFUSE, "line_too_long", LONG_LINE)
BODY_UNENDED = Ruling(Verdict.REFUSE, "bad_body", BAD_BODY)
QUIT = Ruling(Verdict.REFUSE, contract.QUIT)
HTTP = Ruling(Verdict.REFUSE, "http")
BINARY = Ruling(Verdict.REFUSE, "binary")


def judge(line: bytes) -> Ruling:
    """Judge a command line, without its end."""
    if _CONTROL.search(line) or line[:1] == b" ":
        return MALFORMED  # where tokens begin and end is then each server's own view
    words = line.split()
    if not words:
        return UNKNOWN_COMMAND
    command = words[0]
    if command in STORAGE:
        return _unheard(line, command) if words[-1] == b"noreply" else _storage(line)
    if command == b"ms":
        return _flags(words[3:]) or _meta_set(line)
    if command in META:
        return _flags(words[2:]) or _keyed(words, META_SHARED)
    if command == b"me":
        return SHARED if len(words) <= 2 else BINARY_KEY
    if command in KEYED or command in KEYLESS:
        return _unheard(line, command) if words[-1] == b"noreply" else _keyed(words, SHARED)
    if command == b"quit":
        return QUIT
    if command == b"stats":
        shared = len(words) == 1 or (len(words) == 2 and words[1] in SHARED_STATS)
        return SHARED if shared else STATISTICS
    if command in ADMIN:
        return ADMINISTRATION
    if words[-1].startswith(b"HTTP/"):
        return HTTP  # the server closes as well: a browser was sent here to no good
    return UNKNOWN_COMMAND


def keys_are_sound(keys: bytes) -> bool:
    """Tell whether a part of a get's line, from word to word, may be sent."""
    return not _CONTROL.search(keys) and max(map(len, keys.split(b" "))) <= MAX_KEY_BYTES


def pass_block(data: bytearray, pos: int, end: int, left: int) -> tuple[int, int]:
    """Pass over what data[pos:end], not empty, has of a data block of which `left` bytes are due.

    Returns:
        (stop, left): where the block ends, or `end` and how many bytes are still due.

    Raises:
        ProtocolError: the block's last two bytes, which `left` counts, are not CRLF.
    """
    stop = pos + left
    if stop > end:
        if stop - end == 1 and data[end - 1] != 13:
            raise ProtocolError("a data block that does not end in CRLF")
        return end, stop - end
    if data[stop - 1] != 10 or (left > 1 and data[stop - 2] != 13):
        raise ProtocolError("a data block that does not end in CRLF")
    return stop, 0


def _keyed(words: list[bytes], sound: Ruling) -> Ruling:
    return KEY_TOO_LONG if max(map(len, words)) > MAX_KEY_BYTES else sound


def _unheard(line: bytes, command: bytes) -> Ruling:
    """Judge a line that ends in noreply: what the server would do with a flawed one it alone knows.

    memcached finds that word before it looks at the others (set_noreply_maybe), so without it the
    same is done; what is hidden then is `out_string`'s, which is all but "out of memory".
    """
    rest = line.removesuffix(NOREPLY_WORD)
    if command in STORAGE:
        ruling = _storage(rest)
        return NOREPLY if rest == line or ruling.verdict else ruling._replace(discard=True)
    return UNHEARD if _UNHEARD.fullmatch(rest) else NOREPLY


def _storage(line: bytes) -> Ruling:
    found = _STORE.fullmatch(line)
    if found is None:
        return MALFORMED
    numbers = [int(digits) for digits in found.groups() if digits is not None]
    flags, expiry, size, cas = (*numbers, 0)[:4]
    if flags > MAX_UINT32 or not -MAX_INT32 <= expiry <= MAX_INT32 or cas > MAX_UINT64:
        return MALFORMED
    if size > MAX_VALUE_BYTES:
        return VALUE_TOO_LARGE
    return Ruling(None, body_bytes=size + 2)


def _meta_set(line: bytes) -> Ruling:
    found = _META_SET.fullmatch(line)
    if found is None:
        return MALFORMED
    size = int(found[1])
    if size > MAX_VALUE_BYTES:
        return VALUE_TOO_LARGE
    return Ruling(None, body_bytes=size + 2, meta=True)


def _flags(flags: list[bytes]) -> Ruling | None:
    letters = bytes(flag[0] for flag in flags)
    if b"q" in letters:
        return QUIET
    if b"b" in letters and b"k" in letters:
        return BINARY_KEY
    if letters.strip(META_LETTERS):
        return UNKNOWN_FLAG
    return TOO_MANY_FLAGS if len(flags) > MAX_META_FLAGS else None

"""What Redis would remember of one client's connection, kept here because its pipes are shared.

    words of a request ─▶ State.judge ─▶ None: share it, one reply │ Special: answer, pin, switch …

Three kinds of memory, after clearClientConnectionState in redis/src/networking.c:
- what can be replayed on any pipe: who the client is (AUTH), the protocol (HELLO), the database
  (SELECT). It is the client's `setup`, written in one order so that equal states share pipes.
- what only labels the connection: its name and library (CLIENT SETNAME, SETINFO). Kept or dropped.
- what lives in one connection: MULTI, WATCH, ASKING, READONLY. It pins.
"""

import re
from collections.abc import Callable
from functools import partial

from aegis.framers.contract import NO_SETUP, QUIT, Setup, Special, Verdict
from aegis.framers.resp_commands import Act, Rule
from aegis.framers.simple import SimpleRequests

MAX_SETUP_BYTES = 8 << 10
"""Room for a token of some KiB as a password; every client keeps its setup."""
MAX_NAME_BYTES = 256
"""Of CLIENT SETNAME, which Redis does not limit; every client keeps its name."""

DATABASE = re.compile(rb"0|[1-9][0-9]{0,8}")  # as string2ll in src/util.c: no sign, no leading zero
NEGATIVE = re.compile(rb"-[1-9][0-9]{0,8}")
LABEL = re.compile(rb"[!-~]*")  # validateClientAttr in src/networking.c
OK = b"+OK\r\n"
NOT_A_NUMBER = b"-ERR value is not an integer or out of range\r\n"
NOT_A_DATABASE = b"-ERR DB index is out of range\r\n"
NOT_A_VERSION = b"-ERR Protocol version is not an integer or out of range\r\n"
NO_SUCH_VERSION = b"-NOPROTO unsupported protocol version\r\n"
BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"

MULTI, WATCH, READONLY, ASKING = 8, 4, 2, 1
WHY_PINNED = [""] + [
    "multi" if held & MULTI else "watch" if held & WATCH else "readonly" if held & READONLY
    else "asking"
    for held in range(1, 16)
]  # fmt: skip


def encode(*words: bytes) -> bytes:
    """Write a request."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def error(why: str) -> bytes:
    """Write an error of the proxy's; a line break in `why` would make two replies of it."""
    return b"-ERR aegis: %s\r\n" % " ".join(why.split()).encode("ascii", "replace")


def protocol_error(why: str) -> bytes:
    """Write what Redis says before it closes a connection (setProtocolError in networking.c)."""
    return b"-ERR Protocol error: %s\r\n" % printable(why.encode("ascii", "replace"))


class State(SimpleRequests):
    """One client's connection, as it believes it to be."""

    __slots__ = ("_auth", "_database", "_held", "_name", "_version", "pinned", "setup")

    setup: Setup
    pinned: str
    _auth: tuple[bytes, ...]
    _version: bytes
    _database: bytes
    _name: bytes
    _held: int

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Be as new."""
        self.setup = NO_SETUP
        self.pinned = ""
        self._auth = ()
        self._version = b"2"
        self._database = b"0"
        self._name = b""
        self._held = 0

    def judge(self, rule: Rule, words: list[bytes], end: int) -> Special | None:
        """Decide on a request that is not simply shared, and remember what it changes.

        Args:
            rule: the command's, not a container's.
            words: the request's, the command among them.
            end: where the request ends, for the Special.
        """
        act = rule.act
        if act is Act.BLOCK:
            return Special(Verdict.PIN, end, rule.why)
        if act is Act.MAY_BLOCK:
            blocks = any(word.partition(b"\0")[0].upper() == b"BLOCK" for word in words)
            return Special(Verdict.PIN, end, "blocking") if blocks else None
        if act is Act.TUNNEL:
            return Special(Verdict.TUNNEL, end, rule.why)
        if self._held & MULTI and act in QUEUED:
            # What it does it does at EXEC, if that comes to pass: unknown from here on.
            return Special(Verdict.TUNNEL, end, "state in transaction")
        return HANDLERS[act](self, words, end)

    def _hold(self, what: int) -> None:
        self._held |= what
        self.pinned = WHY_PINNED[self._held]

    def let_go(self, what: int) -> None:
        """Forget what pinned."""
        self._held &= ~what
        self.pinned = WHY_PINNED[self._held]

    # --- what lives in one connection ---------------------------------------------------------

    def _multi(self, _words: list[bytes], end: int) -> Special | None:
        # With arguments it is an error, on a pipe of its own: never worth a mistake.
        self._hold(MULTI)
        return Special(Verdict.PIN, end, "multi")

    def _leave(self, words: list[bytes], _end: int) -> Special | None:
        if len(words) == 1 and self._held & MULTI:
            self.let_go(MULTI | WATCH)
        return None

    def _watch(self, _words: list[bytes], end: int) -> Special | None:
        self._hold(WATCH)
        return Special(Verdict.PIN, end, "watch")

    def _unwatch(self, words: list[bytes], _end: int) -> Special | None:
        if len(words) == 1 and not self._held & MULTI:
            self.let_go(WATCH)
        return None

    def _asking(self, _words: list[bytes], end: int) -> Special | None:
        self._hold(ASKING)  # until the next request (resetClient in src/networking.c)
        return Special(Verdict.PIN, end, "asking")

    def _readonly(self, _words: list[bytes], end: int) -> Special | None:
        self._hold(READONLY)
        return Special(Verdict.PIN, end, "readonly")

    def _readwrite(self, words: list[bytes], _end: int) -> Special | None:
        if len(words) == 1 and not self._held & MULTI:
            self.let_go(READONLY)
        return None

    def _wait(self, _words: list[bytes], end: int) -> Special | None:
        """Refuse to wait for other clients' writes in place of this one's.

        WAIT looks at the offset its own connection has written up to (`woff` in waitCommand,
        src/replication.c): on any pipe but the one that took the write it would report replicas
        that have nothing of it. In a transaction it does not wait.
        """
        if self._held & MULTI:
            return None
        why = "WAIT needs a connection of its own, which pooling = multiplex does not give"
        return Special(Verdict.ANSWER, end, "wait", error(why))

    # --- what can be replayed -----------------------------------------------------------------

    def _select(self, words: list[bytes], end: int) -> Special | None:
        if len(words) != 2:
            return None
        if DATABASE.fullmatch(words[1]):
            return self._switch(self._auth, self._version, words[1], "select", end)
        bad = NOT_A_DATABASE if NEGATIVE.fullmatch(words[1]) else NOT_A_NUMBER
        return Special(Verdict.ANSWER, end, "select", bad)

    def _authenticate(self, words: list[bytes], end: int) -> Special | None:
        if not 2 <= len(words) <= 3:
            return None
        return self._switch(tuple(words[1:]), self._version, self._database, "auth", end)

    def _hello(self, words: list[bytes], end: int) -> Special | None:
        """HELLO [2|3 [AUTH user password] [SETNAME name]].

        One that Redis would refuse is answered here: until 7.0 it carries out the options before
        the wrong one (helloCommand in src/networking.c).
        """
        if len(words) == 1:
            return None
        version, auth, name = words[1], self._auth, self._name
        if version not in (b"2", b"3"):
            number = DATABASE.fullmatch(version) or NEGATIVE.fullmatch(version)
            return Special(
                Verdict.ANSWER, end, "hello", NO_SUCH_VERSION if number else NOT_A_VERSION
            )
        seen = set()
        at = 2
        while at < len(words):
            option = words[at].upper()
            if option == b"AUTH" and at + 2 < len(words) and option not in seen:
                auth = (words[at + 1], words[at + 2])
                at += 3
            elif option == b"SETNAME" and at + 1 < len(words) and option not in seen:
                name = words[at + 1]
                if not LABEL.fullmatch(name):
                    return Special(Verdict.ANSWER, end, "hello", BAD_NAME)
                at += 2
            else:
                why = b"-ERR Syntax error in HELLO option '%s'\r\n" % printable(words[at])
                return Special(Verdict.ANSWER, end, "hello", why)
            seen.add(option)
        if len(name) > MAX_NAME_BYTES:
            return Special(Verdict.ANSWER, end, "hello", error("the client's name is too long"))
        special = self._switch(auth, version, self._database, "hello", end)
        self._name = name
        return special

    def _reset(self, words: list[bytes], end: int) -> Special | None:
        """Forget everything, the setup too; what is pinned has to be undone by the server."""
        if len(words) != 1:
            return None
        if self._held:
            return Special(Verdict.TUNNEL, end, "reset while pinned")
        self.forget()
        return Special(Verdict.ANSWER, end, "reset", b"+RESET\r\n")

    def _switch(
        self, auth: tuple[bytes, ...], version: bytes, database: bytes, why: str, end: int
    ) -> Special | None:
        """Change the setup; a request that changes nothing is shared like any other."""
        parts = []
        if auth:  # before HELLO, which wants an authenticated connection
            parts.append(encode(b"AUTH", *auth))
        if version != b"2":
            parts.append(encode(b"HELLO", version))
        if database != b"0":
            parts.append(encode(b"SELECT", database))
        requests = b"".join(parts)
        if requests != self.setup.requests:
            if self._held:  # a switch would leave the pipe that the client is pinned to
                return Special(Verdict.TUNNEL, end, "switch while pinned")
            if len(requests) > MAX_SETUP_BYTES:
                return Special(
                    Verdict.REFUSE, end, "too_long", error("the credentials are too long")
                )
            undo = partial(
                self._be, self.setup, self._auth, self._version, self._database, self._name
            )
            setup = Setup(requests, len(parts)) if parts else NO_SETUP
            self._be(setup, auth, version, database, self._name)
            return Special(Verdict.SWITCH, end, why, undo=undo)
        return None

    def _be(
        self, setup: Setup, auth: tuple[bytes, ...], version: bytes, database: bytes, name: bytes
    ) -> None:
        """Be what Redis remembers now; a HELLO, AUTH or SELECT that it refuses changes nothing."""
        self.setup = setup
        self._auth, self._version, self._database, self._name = auth, version, database, name

    # --- what is answered ---------------------------------------------------------------------

    def _quit(self, _words: list[bytes], end: int) -> Special | None:
        return Special(Verdict.REFUSE, end, QUIT, OK)

    def _web(self, _words: list[bytes], end: int) -> Special | None:
        return Special(Verdict.REFUSE, end, "http", error("this is not an HTTP server"))

    def _set_name(self, words: list[bytes], end: int) -> Special | None:
        if len(words) != 3:
            return None
        name = words[2]
        if not LABEL.fullmatch(name):
            return Special(Verdict.ANSWER, end, "client setname", BAD_NAME)
        if len(name) > MAX_NAME_BYTES:
            reply = error("the client's name is too long")
            return Special(Verdict.ANSWER, end, "client setname", reply)
        self._name = name
        return Special(Verdict.ANSWER, end, "client setname", OK)

    def _get_name(self, words: list[bytes], end: int) -> Special | None:
        if len(words) != 2:
            return None
        name = self._name
        nothing = b"_\r\n" if self._version == b"3" else b"$-1\r\n"
        reply = b"$%d\r\n%s\r\n" % (len(name), name) if name else nothing
        return Special(Verdict.ANSWER, end, "client getname", reply)

    def _set_info(self, words: list[bytes], end: int) -> Special | None:
        if len(words) != 4:
            return None
        attribute, value = words[2], words[3]
        if attribute.lower() not in (b"lib-name", b"lib-ver"):
            reply = b"-ERR Unrecognized option '%s'\r\n" % printable(attribute)
        elif not LABEL.fullmatch(value):
            reply = b"-ERR %s cannot contain spaces, newlines or special characters.\r\n"
            reply %= attribute
        else:
            reply = OK
        return Special(Verdict.ANSWER, end, "client setinfo", reply)

    def _notify(self, words: list[bytes], end: int) -> Special | None:
        """Say what a Redis says that has no such notifications, as all of the open source."""
        why = b"-ERR unknown subcommand '%s'. Try CLIENT HELP.\r\n" % printable(words[1])
        return Special(Verdict.ANSWER, end, "client maint_notifications", why)


def printable(word: bytes) -> bytes:
    """Return the word as an error may quote it."""
    return re.sub(rb"[^ -~]", b"?", word[:64])


QUEUED = {
    Act.SELECT, Act.AUTH, Act.HELLO, Act.SET_NAME, Act.GET_NAME, Act.SET_INFO, Act.NOTIFY,
}  # fmt: skip
"""What is remembered here, and in a transaction not carried out when it comes."""

HANDLERS: dict[Act, Callable[[State, list[bytes], int], Special | None]] = {
    Act.MULTI: State._multi,
    Act.LEAVE: State._leave,
    Act.WATCH: State._watch,
    Act.UNWATCH: State._unwatch,
    Act.ASKING: State._asking,
    Act.READONLY: State._readonly,
    Act.READWRITE: State._readwrite,
    Act.SELECT: State._select,
    Act.AUTH: State._authenticate,
    Act.HELLO: State._hello,
    Act.RESET: State._reset,
    Act.QUIT: State._quit,
    Act.WAIT: State._wait,
    Act.WEB: State._web,
    Act.SET_NAME: State._set_name,
    Act.GET_NAME: State._get_name,
    Act.SET_INFO: State._set_info,
    Act.NOTIFY: State._notify,
}

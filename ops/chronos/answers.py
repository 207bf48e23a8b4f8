"""What a request gets: reads at once, writes staged with their reply staked on the commit.

Each function appends exactly one reply to `replies` and tells whether the connection ends with it.
"""

from ops.chronos.http_head import Action, Head
from ops.chronos.http_reader import Request
from ops.chronos.http_reply import CONTINUE, done, page, reply, value_reply
from ops.chronos.lines import Command, Verb
from ops.chronos.store import Failure, Store, StoreError

LINE_BREAK = b"ERR value holds a line break; read it over HTTP\n"


def answer_command(command: Command, store: Store, replies: list[bytes]) -> bool:
    """Answer one line."""
    verb, key, value = command
    if verb is Verb.GET:
        replies.append(read_line(key, store, replies))
    elif verb is Verb.SET or verb is Verb.DEL:
        store.put(key, value if verb is Verb.SET else None)
        store.stake(replies, line_failure)
        replies.append(b"OK\n")
    elif verb is Verb.PING:
        replies.append(b"PONG\n")
    elif verb is Verb.COMPACT:
        store.compact(replies, line_failure)
        replies.append(b"OK_COMPACTED\n")
    else:
        replies.append(value + b"\n")
        return verb is Verb.OVERLONG
    return False


def answer_request(request: Request, store: Store, replies: list[bytes]) -> bool:
    """Answer one HTTP request."""
    head, body = request
    action = head.action
    if action is Action.PAGE:
        replies.append(page(head.connection, head.bodiless))
    elif action is Action.READ:
        replies.append(read_value(head, store, replies))
    elif action is Action.WRITE or action is Action.DELETE:
        store.put(head.key, body if action is Action.WRITE else None)
        store.stake(replies, http_failure(head))
        replies.append(done(head.connection))
    elif action is Action.CONTINUE:
        replies.append(CONTINUE)
    else:
        replies.append(reply(head, head.status, f"{head.detail}\n".encode()))
    return head.closes


def read_line(key: bytes, store: Store, replies: list[bytes]) -> bytes:
    """Return GET's reply; one that shows a staged value is staked like the write it shows."""
    try:
        value = store.get(key)
    except StoreError as error:
        return line_failure(error.why)
    if store.is_staged(key):
        store.stake(replies, line_failure)
    if value is None:
        return b"NULL\n"
    return LINE_BREAK if b"\n" in value or b"\r" in value else value + b"\n"


def read_value(head: Head, store: Store, replies: list[bytes]) -> bytes:
    """Return the reply to GET or HEAD of a key; staked like `read_line`'s."""
    try:
        value = store.get(head.key)
    except StoreError as error:
        return http_failure(head)(error.why)
    if store.is_staged(head.key):
        store.stake(replies, http_failure(head))
    return reply(head, 404, b"no such key\n") if value is None else value_reply(head, value)


def line_failure(why: bytes) -> bytes:
    """Return the line protocol's error."""
    return b"ERR %s\n" % why


def http_failure(head: Head) -> Failure:
    """Return what makes a 500 for this request."""
    return lambda why: reply(head, 500, why + b"\n")

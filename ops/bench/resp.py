"""As much of RESP as a bench needs: one command on a connection of its own, errors told apart."""

import re
import socket

from ops.bench.failure import MeasurementError

TIMEOUT_S = 20.0


def encode(*words: bytes) -> bytes:
    """Return a command."""
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


def ask(port: int, *words: bytes) -> bytes:
    """Send a command; return a bulk string's value or a status line.

    Raises:
        MeasurementError: the server answered with an error or with what it should not.
        OSError: there is no connection, or it ended.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
        sock.sendall(encode(*words))
        with sock.makefile("rb") as replies:
            line = replies.readline()
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError("the connection ended before the reply")
            if line[:1] == b"+":
                return line[1:-2]
            if line[:1] != b"$" or line[1:2] == b"-":
                raise MeasurementError(f"{words[0].decode()} was answered with {line!r}")
            size = int(line[1:])
            value = replies.read(size + 2)
            if len(value) != size + 2:
                raise ConnectionResetError("the connection ended within the reply")
            return value[:-2]


class Counts(dict[str, int]):
    """What a redis-server has counted: `calls.get`, `failed.get`, `hits`; 0 if never."""

    def __missing__(self, key: str) -> int:
        return 0

    @classmethod
    def of(cls, port: int) -> "Counts":
        """Ask the server."""
        text = ask(port, b"INFO", b"everything").decode()
        counts = cls()
        for name, calls, rejected, failed in re.findall(
            r"^cmdstat_(\S+?):calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)",
            text,
            re.MULTILINE,
        ):
            counts[f"calls.{name}"] = int(calls)
            counts[f"failed.{name}"] = int(rejected) + int(failed)
        found = re.search(r"^keyspace_hits:(\d+)", text, re.MULTILINE)
        counts["hits"] = int(found[1]) if found else 0
        return counts

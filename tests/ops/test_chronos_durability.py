"""What Chronos has acknowledged is there: after kill -9, after a full disk, and in what order."""

import os
import random
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.ops.test_chronos_process import (
    DEADLINE_S,
    Chronos,
    read_exactly,
    running,
)

ROUNDS = 6
CLIENTS = 4
WINDOW = 50  # commands a storming client has on the way
FILE_BYTES = 256 << 10  # RLIMIT_FSIZE of a server whose disk is to be full


class Storm(threading.Thread):
    """A client that pipelines SETs until the server dies, and counts what was acknowledged."""

    def __init__(self, chronos: Chronos, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.sock = chronos.connect()
        self.name = name
        self.rng = random.Random(seed)
        self.acknowledged = 0
        self.trouble = b""

    def key(self, number: int) -> bytes:
        return f"{self.name}-{number}".encode()

    def run(self) -> None:
        sent = 0
        pending = b""
        with self.sock:
            try:
                while True:
                    lines = []
                    while sent < self.acknowledged + WINDOW:
                        padding = b"x" * self.rng.randrange(300)
                        lines.append(b"SET %s %d %s\n" % (self.key(sent), sent, padding))
                        lines.append(b"SET %s-last %d\n" % (self.name.encode(), sent))
                        sent += 1
                    self.sock.sendall(b"".join(lines))
                    received = self.sock.recv(65536)
                    if not received:
                        return
                    pending += received
                    done = len(pending) // len(b"OK\nOK\n")
                    if pending[: done * 6] != b"OK\nOK\n" * done:
                        self.trouble = pending
                        return
                    pending = pending[done * 6 :]
                    self.acknowledged += done
            except OSError:
                return  # the server was killed, as it should be


def read_back(chronos: Chronos, storm: Storm) -> None:
    """Assert that everything a storm was told is stored is there."""
    assert storm.trouble == b""
    with chronos.connect() as sock, sock.makefile("rb") as replies:
        for number in range(storm.acknowledged):
            sock.sendall(b"GET %s\n" % storm.key(number))
            assert replies.readline().split(b" ")[0] == b"%d" % number, storm.key(number)
        sock.sendall(b"GET %s-last\n" % storm.name.encode())
        last = replies.readline().strip()
        assert storm.acknowledged == 0 or int(last) >= storm.acknowledged - 1


def test_kill_9_under_a_storm_of_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = int(os.environ.get("AEGIS_SEED") or random.randrange(1 << 32))
    print(f"AEGIS_SEED={seed}")
    rng = random.Random(seed)
    storms: list[Storm] = []
    for round_number in range(ROUNDS):
        with running(tmp_path / "db") as chronos:
            for storm in storms[-CLIENTS:]:
                read_back(chronos, storm)
            now = [
                Storm(chronos, f"r{round_number}c{i}", rng.randrange(1 << 32))
                for i in range(CLIENTS)
            ]
            storms += now
            for storm in now:
                storm.start()
            enough = rng.randrange(1, 4000)
            deadline = time.monotonic() + DEADLINE_S
            while sum(storm.acknowledged for storm in now) < enough:
                assert time.monotonic() < deadline
                now[0].join(0.001)
            assert chronos.end(signal.SIGKILL) == -signal.SIGKILL
            for storm in now:
                storm.join(DEADLINE_S)
                assert not storm.is_alive()
    with running(tmp_path / "db") as chronos:
        for storm in storms:
            read_back(chronos, storm)
        assert chronos.ask(b"COMPACT\nGET r0c0-0\n").startswith(b"OK_COMPACTED\n0 ")


def test_the_writes_of_one_packet_are_one_write_to_the_log(tmp_path: Path) -> None:
    with running(tmp_path / "db") as chronos, chronos.connect() as sock:
        sock.sendall(b"PING\n")
        read_exactly(sock, 5)
        before = chronos.file_writes()
        sent = b"".join(b"SET k%d v\n" % i for i in range(1000))
        sock.sendall(sent)
        assert read_exactly(sock, 3000) == b"OK\n" * 1000
        # The kernel may hand the packet over in a few pieces, each with its own commit.
        assert 0 < chronos.file_writes() - before < 50


def test_a_batch_is_synced_once(tmp_path: Path) -> None:
    from ops.chronos.store import Store, default_options  # noqa: PLC0415 - needs rocksdict

    options = default_options()
    options.enable_statistics()
    store = Store(tmp_path / "db", options)
    try:
        for _ in range(3):
            for i in range(100):
                store.put(b"%d" % i, b"v")
            store.commit()
        store.commit()  # nothing is staged: nothing to sync
        statistics = options.get_statistics() or ""
    finally:
        store.close()
    assert "rocksdb.wal.synced COUNT : 3\n" in statistics


def limit_files(chronos: Chronos, size_bytes: int) -> None:
    """Make every write beyond this size of a file fail in the server, as a full disk does."""
    hard = resource.prlimit(chronos.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(chronos.process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def fill(sock: socket.socket) -> int:
    """SET until it is refused; return how many were taken."""
    for number in range(1000):
        sock.sendall(b"SET fill%d %s\n" % (number, b"x" * 8192))
        with sock.makefile("rb") as replies:
            reply = replies.readline()
        if reply != b"OK\n":
            assert reply.startswith(b"ERR "), reply
            return number
    pytest.fail("the limit on file sizes had no effect")


def until_ok(chronos: Chronos, sent: bytes) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while chronos.ask(sent) != b"OK\n":
        assert time.monotonic() < deadline, chronos.stderr.read_text()


def test_a_failed_commit_is_told_to_all_its_writers_and_the_server_recovers(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "db") as chronos, chronos.connect() as sock:
        assert chronos.ask(b"SET old value\n") == b"OK\n"
        limit_files(chronos, FILE_BYTES)
        taken = fill(sock)
        assert taken > 0
        replies = chronos.ask(b"PING\nGET old\nSET new v\nGET new\nDEL old\nGET old\nPING\n")
        lines = replies.splitlines()
        assert [lines[i] for i in (0, 1, 6)] == [b"PONG", b"value", b"PONG"]
        # A read that saw a write which failed must not tell of it.
        assert all(lines[i].startswith(b"ERR ") for i in (2, 3, 4, 5)), lines
        put = b"PUT /kv/new HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv"
        assert chronos.ask(put).startswith(b"HTTP/1.1 500 ")
        assert chronos.ask(b"GET old\nGET new\nGET fill0\n").startswith(b"value\nNULL\nx")
        limit_files(chronos, resource.RLIM_INFINITY)
        until_ok(chronos, b"SET new v\n")
        assert chronos.ask(b"GET new\nGET old\n") == b"v\nvalue\n"
        chronos.end(signal.SIGKILL)
    with running(tmp_path / "db") as chronos:
        assert chronos.ask(b"GET new\nGET old\n") == b"v\nvalue\n"
        for number in range(taken):
            assert chronos.ask(b"GET fill%d\n" % number) == b"x" * 8192 + b"\n"


def test_reads_are_served_while_the_database_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    with running(tmp_path / "db") as chronos, chronos.connect() as sock:
        assert chronos.ask(b"SET old value\n") == b"OK\n"
        limit_files(chronos, FILE_BYTES)
        fill(sock)
        limit_files(chronos, 4096)  # too little for the table that opening would write
        deadline = time.monotonic() + DEADLINE_S
        refused = chronos.ask(b"SET new v\n")
        while (now := chronos.ask(b"SET new v\n")) == refused:  # then it has tried to open
            assert chronos.ask(b"GET old\nPING\n") == b"value\nPONG\n"
            assert time.monotonic() < deadline
        assert refused.startswith(b"ERR ")
        assert now.startswith(b"ERR ")
        assert chronos.ask(b"GET old\nPING\n") == b"value\nPONG\n"
        limit_files(chronos, resource.RLIM_INFINITY)
        until_ok(chronos, b"SET new v\n")
        assert chronos.end(signal.SIGTERM) == 0

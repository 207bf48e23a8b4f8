"""The session log's writer: lines, a file that is renamed, slow, full or missing; and HAProxy's
own lines beside ours."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import zmq

from aegis import bus
from aegis.config import Log
from aegis.session_records import TERMINATIONS, SessionBatch, SessionRecord
from control.exporter.session_lines import json_line, tcplog_line
from control.exporter.session_log import SessionLog
from tests.end_to_end.echo import Echo, ask
from tests.harness import wait_until
from tests.proxy import connect, needs, refuses, reserve_port

RECORD = SessionRecord(
    "10.0.1.2:33313", "fnt", 100.25, "queue_timeout", "bck", "10.0.0.5:6379",
    queue_ms=1, connect_ms=2, total_ms=5007, client_bytes=110, server_bytes=212, requests=3,
    retries=4, worker_sessions=9, listener_sessions=8, backend_connections=7,
    server_connections=6, queued_behind=5,
)  # fmt: skip
BATCH = SessionBatch(1, 1_700_000_000.0, [RECORD])


class Writer:
    """A writer and a worker's end of the bus."""

    def __init__(self, directory: Path, conf: Log) -> None:
        self._context = zmq.Context()
        self.log = SessionLog(directory, conf)
        self.socket = bus.connect(self._context, zmq.PUSH, directory, "sessions")
        self.log.start()

    def tell(self, batch: SessionBatch = BATCH) -> bool:
        return bus.send(self.socket, batch)

    def close(self) -> None:
        self.log.stop()
        self._context.destroy(linger=0)


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="aegis-") as name:  # a unix socket's path has 107 bytes
        yield Path(name)


@contextlib.contextmanager
def writing(directory: Path, path: Path, **conf: Any) -> Iterator[Writer]:
    with contextlib.closing(Writer(directory, Log(sessions=str(path), **conf))) as writer:
        yield writer


def lines(path: Path, count: int) -> list[str]:
    """Return the file's lines once there are so many."""

    def look() -> list[str]:
        found = path.read_text().splitlines() if path.exists() else []
        return found if len(found) >= count else []

    found = wait_until(look, f"{count} lines in {path}")
    assert len(found) == count
    return found


def test_a_tcplog_line_has_haproxys_fields_in_their_order() -> None:
    assert tcplog_line(BATCH, RECORD) == (
        "10.0.1.2:33313 [14/Nov/2023:22:15:00.250] fnt bck/10.0.0.5:6379 1/2/5007 212 sQ "
        "9/8/7/6/4 0/5 up=110 requests=3 worker=1 reason=queue_timeout"
    )


def test_a_session_without_a_server_is_told_as_haproxy_does() -> None:
    line = tcplog_line(BATCH, SessionRecord("unix", "fnt", 0.0, "refused", "bck"))
    assert " bck/<NOSRV> -1/-1/0 0 PC " in line


def test_what_would_end_a_field_or_the_line_is_percent_encoded() -> None:
    record = msgspec.structs.replace(
        RECORD, server="/run/my db\n%\x85\u2028.sock", client="fe80::1%e 0", listener="a\tb"
    )
    line = tcplog_line(BATCH, record)
    assert line.startswith("fe80::1%25e%200 [14/Nov/2023:22:15:00.250] a%09b ")
    assert " bck//run/my%20db%0A%25%C2%85%E2%80%A8.sock 1/2/5007 " in line
    assert len(line.split()) == len(tcplog_line(BATCH, RECORD).split())
    assert line.isprintable()


def test_the_document_has_every_reason_under_its_code() -> None:
    document = Path(__file__).parents[2] / "docs" / "observability.md"
    rows = [line.split("|") for line in document.read_text().splitlines() if "`: a" not in line]
    told = {
        (reason, codes[at])
        for cells in rows
        if len(cells) == 4 and (codes := re.findall(r"`(..)`", cells[1]))
        for at, group in enumerate(cells[2].split(";"))
        for reason in re.findall(r"`(\w+)`", group)
    }
    plain = {(reason, code) for reason, code in TERMINATIONS.items() if code != "--"}
    assert plain <= told


def test_a_json_line_has_every_field() -> None:
    line = json.loads(json_line(BATCH, RECORD))
    assert set(line) == {"time", "worker", "termination", *RECORD.__struct_fields__} - {"began"}
    assert (line["time"], line["worker"]) == ("2023-11-14T22:15:00.250Z", 1)
    assert (line["termination"], line["client_bytes"], line["total_ms"]) == ("sQ", 110, 5007)


TCPLOG = re.compile(
    r"(?P<client>\S+):(?P<port>\d+) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] "
    r"(?P<listener>\S+) (?P<backend>[^/]+)/(?P<server>\S+) -?\d+/-?\d+/\+?\d+ (?P<bytes>\d+) "
    r"(?P<code>[A-Za-z-]{2}) \d+/\d+/\d+/\d+/\d+ \d+/\d+"
)
"""The fields of `option tcplog` as HAProxy's manual, 8.2.2, lists them."""


def test_haproxy_itself_writes_lines_of_the_same_form() -> None:
    (haproxy,) = needs("haproxy")
    with Echo() as echo, contextlib.ExitStack() as own:
        port = reserve_port(own)
        config = Path(own.enter_context(TemporaryDirectory()), "haproxy.cfg")
        config.write_text(
            "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n"
            " option tcplog\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n"
            f"listen fnt\n bind 127.0.0.1:{port}\n server s1 {echo.address}\n"
        )
        child = own.enter_context(
            subprocess.Popen(
                [haproxy, "-f", config],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        own.callback(child.kill)
        wait_until(lambda: not refuses(f"127.0.0.1:{port}"), "haproxy listens")
        with connect(f"127.0.0.1:{port}") as client:
            assert ask(client) == b"ping"
        assert child.stdout is not None
        found = [TCPLOG.fullmatch(line.strip()) for line in (child.stdout.readline() for _ in "12")]
    assert all(found), "the probe and the client"
    ours = TCPLOG.match(tcplog_line(BATCH, RECORD))
    assert ours is not None
    assert ours.groupdict() == {
        "client": "10.0.1.2", "port": "33313", "listener": "fnt", "backend": "bck",
        "server": "10.0.0.5:6379", "bytes": "212", "code": "sQ",
    }  # fmt: skip


def test_sessions_are_written_in_the_configured_format(directory: Path) -> None:
    file = directory / "sessions.log"
    with writing(directory, file, sessions_format="json") as writer:
        assert writer.tell(SessionBatch(0, 0.0, [RECORD, RECORD]))
        assert [json.loads(line)["listener"] for line in lines(file, 2)] == ["fnt", "fnt"]
        wait_until(lambda: writer.log.counts == (2, 0), "both are counted")
    assert file.stat().st_mode & 0o077 == 0o040, "clients' addresses are not for everybody"


def test_a_renamed_file_is_written_until_the_log_is_reopened(directory: Path) -> None:
    file, old = directory / "sessions.log", directory / "sessions.log.1"
    with writing(directory, file) as writer:
        writer.tell()
        lines(file, 1)
        file.rename(old)
        writer.tell()
        lines(old, 2)
        writer.log.reopen()
        wait_until(file.exists, "a new file")
        writer.tell()
        lines(file, 1)
        lines(old, 2)


def test_a_missing_directory_costs_sessions_and_is_found_when_it_comes(directory: Path) -> None:
    later = directory / "later"
    with writing(directory, later / "sessions.log") as writer:
        writer.tell()
        wait_until(lambda: writer.log.counts == (0, 1), "it is counted")
        later.mkdir()
        writer.tell()
        lines(later / "sessions.log", 1)
        wait_until(lambda: writer.log.counts == (1, 1), "both are counted")


def test_a_full_disk_is_counted() -> None:
    with TemporaryDirectory(prefix="aegis-") as name, writing(Path(name), Path("/dev/full")) as w:
        w.tell()
        w.tell()
        wait_until(lambda: w.log.counts == (0, 2), "both are counted")


def test_a_reader_that_hangs_holds_back_the_thread_alone(directory: Path) -> None:
    """A fifo stands for a disk that takes nothing: its writer waits in write(2)."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with writing(directory, fifo) as writer:
            full, sent = SessionBatch(0, 0.0, [RECORD] * 256), 0

            def refused() -> bool:
                nonlocal sent
                told = writer.tell(full)
                sent += told
                return not told

            wait_until(refused, "the queues are full: what is sent is refused")
            assert writer.log.counts.unwritten == 0
            os.close(reader)  # the writer's write(2) ends with EPIPE
            wait_until(lambda: sum(writer.log.counts) == 256 * sent, "it goes on")
    finally:
        with contextlib.suppress(OSError):  # closed above
            os.close(reader)


def test_nonsense_is_ignored(directory: Path) -> None:
    file = directory / "sessions.log"
    with writing(directory, file) as writer:
        writer.socket.send(b"\xff\x00 no message")
        writer.tell()
        lines(file, 1)


@pytest.mark.parametrize("form", ["tcplog", "json"])
@pytest.mark.parametrize("instant", [1e300, 1e15, float("inf"), float("nan")])
def test_a_time_that_no_calendar_has_is_nonsense_too(
    instant: float, form: str, directory: Path
) -> None:
    path = directory / "log"
    with writing(directory, path, sessions_format=form) as writer:
        assert writer.tell(SessionBatch(1, instant, [RECORD]))
        assert writer.tell()
        assert lines(path, 1)
        assert writer.log.inbox.ignored["malformed"] == 1


def test_the_socket_is_bound_again_when_its_file_goes(directory: Path) -> None:
    file = directory / "sessions.log"
    with writing(directory, file):
        (directory / "sessions.ipc").unlink()
        wait_until((directory / "sessions.ipc").exists, "it is there again")
        context = zmq.Context()
        late = bus.connect(context, zmq.PUSH, directory, "sessions")
        try:
            assert bus.send(late, BATCH)
            lines(file, 1)
        finally:
            context.destroy(linger=0)

"""Events on standard error: text, JSON, and what the journal wants of both."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aegis.logs import JournalFormatter, JsonFormatter, is_journal

SAY = """
import logging
from aegis.logs import configure_logging
configure_logging("CONFIGURED")
log = logging.getLogger("control.seat")
log.info("%s: started pid %d", "worker 0", 7, extra={"event": "started", "seat": "worker 0"})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it failed")
"""


def said(configured: str = "text", **environment: str) -> list[str]:
    """Return what a process with that configuration says."""
    clean = {k: v for k, v in os.environ.items() if k not in {"JOURNAL_STREAM", "AEGIS_LOG_FORMAT"}}
    return subprocess.run(
        [sys.executable, "-c", SAY.replace("CONFIGURED", configured)],
        env=clean | environment,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr.splitlines()


def said_to_the_journal(directory: Path, configured: str) -> list[str]:
    """Do as systemd does: name the device and the inode of standard error."""
    journal = directory / "journal"
    with journal.open("w") as stderr:
        info = os.fstat(stderr.fileno())
        subprocess.run(
            [sys.executable, "-c", SAY.replace("CONFIGURED", configured)],
            env=os.environ | {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"},
            stderr=stderr,
            check=True,
        )
    return journal.read_text().splitlines()


def test_text_has_time_level_name_pid_and_message() -> None:
    first = said()[0]
    assert first.split()[2:4] == ["INFO", first.split()[3]]
    assert first.split()[3].startswith("control.seat[")
    assert first.endswith("] worker 0: started pid 7")


def test_json_is_one_object_a_line_with_the_fields_of_the_event() -> None:
    first, second = (json.loads(line) for line in said("json"))
    assert first["time"].endswith("Z")
    assert (first["level"], first["logger"]) == ("info", "control.seat")
    assert first["message"] == "worker 0: started pid 7"
    assert (first["event"], first["seat"]) == ("started", "worker 0")
    assert second["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_the_environment_outranks_the_configuration() -> None:
    assert all(line.startswith("{") for line in said("text", AEGIS_LOG_FORMAT="json"))
    assert not said("json", AEGIS_LOG_FORMAT="text")[0].startswith("{")


def test_the_journal_gets_priorities_and_no_time(tmp_path: Path) -> None:
    lines = said_to_the_journal(tmp_path, "text")
    assert lines[0].startswith("<6>INFO control.seat[")
    assert all(line.startswith("<3>") for line in lines[1:]), "each line is an entry of its own"
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"


def test_the_journal_gets_json_without_time(tmp_path: Path) -> None:
    first, second = said_to_the_journal(tmp_path, "json")
    assert "time" not in json.loads(first.removeprefix("<6>"))
    assert json.loads(second.removeprefix("<3>"))["level"] == "error"


def test_a_stream_that_was_redirected_is_not_the_journal() -> None:
    first = said(JOURNAL_STREAM="9:12345")[0]
    assert not first.startswith("<")


def test_a_stream_without_a_file_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "9:12345")
    assert not is_journal(io.StringIO())


def test_what_json_does_not_know_is_written_as_text() -> None:
    record = logging.makeLogRecord({"msg": "m", "levelno": 50, "where": Path("/etc")})
    line = JournalFormatter(JsonFormatter(with_time=False)).format(record)
    assert line.startswith("<2>")
    assert json.loads(line.removeprefix("<2>"))["where"] == "/etc"

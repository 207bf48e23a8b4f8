"""The session log of a whole proxy: as the clients count, reopened, and never in the way."""

import json
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.echo import Echo, Load, ask, works
from tests.end_to_end.test_exporter_killed import exporter_pid, scrape
from tests.end_to_end.test_worker_killed import has_died
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect


def logging(proxies: Proxies, echo: Echo, *, file: Path | None = None) -> tuple[Aegis, Path]:
    """Start a proxy with a session log in JSON; returns it and the file."""
    aegis = proxies.new(echo.address)
    file = file or aegis.directory / "sessions.log"
    aegis.configure(echo.address, log={"sessions": str(file), "sessions_format": "json"})
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    return aegis, file


def logged(file: Path) -> list[dict[str, Any]]:
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def test_every_session_is_logged_with_the_bytes_that_its_client_counts(
    proxies: Proxies, echo: Echo
) -> None:
    aegis, file = logging(proxies, echo)
    sent: Counter[str] = Counter()
    for number in range(40):
        with connect(aegis.address) as client:
            assert ask(client, b"x" * (number + 1)) == b"x" * (number + 1)
            host, port = client.getsockname()
            sent[f"{host}:{port}"] += number + 1
    wait_until(lambda: len(logged(file)) == 40, "all sessions are logged")
    told = logged(file)
    assert {line["client"]: line["client_bytes"] for line in told} == sent
    assert {line["client"]: line["server_bytes"] for line in told} == sent
    assert {line["termination"] for line in told} == {"--"}
    assert {line["server"] for line in told} == {echo.address}
    wait_until(lambda: "aegis_session_log_written_total 40.0" in scrape(aegis), "and counted")


@pytest.mark.parametrize("to", ["controller", "exporter", "everyone"])
def test_sigusr1_reopens_the_file(proxies: Proxies, echo: Echo, to: str) -> None:
    aegis, file = logging(proxies, echo)
    with connect(aegis.address) as client:
        assert works(client)
    wait_until(lambda: len(logged(file)) == 1, "the first session")
    file.rename(file.with_suffix(".1"))
    pids = aegis.pids()
    found = {
        "controller": [aegis.controller],
        "exporter": [exporter_pid(aegis)],
        "everyone": [process.pid for process in aegis.processes()],
    }
    for pid in found[to]:
        aegis.kill(pid, signal.SIGUSR1)
    wait_until(file.exists, "a new file")
    with connect(aegis.address) as client:
        assert works(client)
    wait_until(lambda: len(logged(file)) == 1, "the next session is in the new file")
    assert len(logged(file.with_suffix(".1"))) == 1
    assert aegis.pids() == pids


def test_a_writer_that_hangs_or_is_dead_slows_no_session(proxies: Proxies, echo: Echo) -> None:
    directory = proxies.directory / "fifos"
    directory.mkdir()
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # it never reads
    try:
        aegis, _ = logging(proxies, echo, file=fifo)
        with Load(aegis.address) as load:
            wait_until(lambda: len(load.attempts) > 500, "sessions go on: the file takes 64 KiB")
            wait_until(lambda: scrape(aegis), "so does the exporter, which may still be starting")
            aegis.kill(exporter_pid(aegis), signal.SIGSTOP)
            served = len(load.attempts)
            wait_until(lambda: len(load.attempts) > served + 500, "sessions go on")
        assert load.broken == []
        assert [attempt for attempt in load.attempts if attempt.refused] == []
        aegis.done("stop")
        assert aegis.left_over() == []
    finally:
        os.close(reader)


def test_events_are_json_by_flag_or_by_configuration(proxies: Proxies, echo: Echo) -> None:
    by_key, by_flag = proxies.new(echo.address), proxies.new(echo.address)
    by_key.configure(echo.address, log={"format": "json"})
    by_key.done("start", "--detach", "--config", str(by_key.config_file))
    by_flag.done("start", "--detach", "--config", str(by_flag.config_file), "--log-format", "json")
    for aegis in (by_key, by_flag):
        victim = aegis.pids()[0]
        aegis.kill(victim)
        wait_until(partial(has_died, aegis, 0, 1), "its death is noticed")
        aegis.done("stop")
        events = [json.loads(line) for line in aegis.log().splitlines()]
        died = [event for event in events if event.get("event") == "died"]
        assert [(event["seat"], event["how"], event["level"]) for event in died] == [
            ("worker 0", f"pid {victim} killed by SIGKILL", "error")
        ]
        loggers = {event["logger"] for event in events}
        assert {"control.seat", "control.exporter.main", "workers.worker"} <= loggers


def test_a_log_format_that_is_none_is_a_usage_error(proxies: Proxies) -> None:
    result = proxies.new("127.0.0.1:9").ctl("start", "--log-format", "xml")
    assert result.returncode == 2
    assert "text or json" in result.stderr

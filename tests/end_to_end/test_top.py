"""`aegis-ctl top` on a running proxy: once for scripts, and live in a terminal of its own."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from select import select

import pytest

from tests.end_to_end.echo import Echo, Load
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import CTL, Aegis, Proxies


@pytest.fixture
def aegis(proxies: Proxies, echo: Echo) -> Iterator[Aegis]:
    started = proxies.new(echo.address)
    started.start("--config", str(started.config_file))
    with Load(started.address, clients=2):
        yield started


class Terminal:
    """A pseudo-terminal with aegis-ctl top in it."""

    def __init__(self, aegis: Aegis, *options: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(30, 120)
        environment = {k: v for k, v in aegis.environment.items() if k != "COLUMNS"}
        self.child = subprocess.Popen(
            [CTL, "top", "--interval", "0.2", *options],
            env=environment | {"TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.said = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def says(self, text: str) -> bool:
        """Whether it has written the text since the last `forget`."""
        if select([self._master], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):  # EIO: it has ended
                self.said += os.read(self._master, 65536).decode(errors="replace")
        return text in self.said

    def forget(self) -> None:
        self.said = ""

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)


@contextlib.contextmanager
def top(aegis: Aegis, *options: str) -> Iterator[Terminal]:
    with contextlib.closing(Terminal(aegis, *options)) as terminal:
        wait_until(lambda: terminal.says("q quit"), "it shows something")
        yield terminal


def test_once_prints_the_rates_of_a_running_load(aegis: Aegis) -> None:
    def look() -> list[str]:
        lines = aegis.done("top", "--once", "--sort", "rate").splitlines()
        return lines if " 0 new/s" not in lines[0] else []

    lines = wait_until(look, "a rate")
    assert lines[0].startswith("aegis serving · ")
    assert any(line.startswith("front ") for line in lines)
    assert "\x1b" not in "".join(lines), "no colours in a pipe"


def test_live_it_sorts_follows_the_terminals_size_and_ends_with_q(aegis: Aegis) -> None:
    with top(aegis) as terminal:
        wait_until(lambda: terminal.says("memory"), "a wide table")
        terminal.press("s")
        wait_until(lambda: terminal.says("by load"), "another order")
        terminal.resize(30, 60)
        terminal.forget()
        wait_until(lambda: terminal.says("sessions"), "it goes on")
        terminal.forget()
        wait_until(lambda: terminal.says("by load"), "a whole screen")
        assert "memory" not in terminal.said
        terminal.press("q")
        assert terminal.child.wait(DEADLINE_S) == 0


def test_live_it_says_when_the_exporter_is_gone_and_ends_with_ctrl_c(aegis: Aegis) -> None:
    with top(aegis) as terminal:
        aegis.done("stop", "--now")
        wait_until(lambda: terminal.says("does not answer"), "it says so")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.child.wait(DEADLINE_S) == 0


def test_without_an_exporter_it_fails_in_one_line(proxies: Proxies) -> None:
    aegis = proxies.new("127.0.0.1:9")
    result = aegis.ctl("top", "--once", "--exporter", aegis.metrics)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"aegis-ctl: the exporter at {aegis.metrics} does not answer")
    assert aegis.ctl("top", "--sort", "colour").returncode == 2
    assert "a host name" in aegis.ctl("top", "--exporter", "example.org:1").stderr

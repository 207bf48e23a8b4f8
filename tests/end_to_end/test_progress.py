"""What `drain` and `status` say while sessions keep a drain waiting."""

import json
import os
import pty
import subprocess

from control.ctl.client import bar
from tests.end_to_end.echo import Echo, works
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import CTL, Proxies, connect


def test_status_says_how_far_a_drain_is_and_when_it_cuts(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    with connect(aegis.address) as client:
        assert works(client)
        drain = aegis.ctl_in_background("drain", "--timeout", "300")

        def said() -> str:
            text = aegis.done("status")
            return text if "1 of 2 worker(s) drained, 1 session(s) left, cut in 2" in text else ""

        text = wait_until(said, "one worker has drained, the other waits")
        assert "━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 1 of 2" in text
        assert 200 < json.loads(aegis.done("status", "--json"))["cut_in_s"] <= 300
    assert drain.wait(DEADLINE_S) == 0
    assert json.loads(aegis.done("status", "--json"))["cut_in_s"] is None
    assert "2 of 2 worker(s) drained, 0 session(s) left\n" in aegis.done("status")


def test_drain_draws_on_a_terminal_what_is_left(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    master, slave = pty.openpty()
    try:
        with connect(aegis.address) as client:
            assert works(client)
            drain = subprocess.Popen(
                [CTL, "drain", "--timeout", "300"],
                env=aegis.environment | {"TERM": "xterm-256color"},
                stdin=subprocess.DEVNULL,
                stdout=slave,
                stderr=slave,
            )
            said = ""

            def says(text: str) -> bool:
                nonlocal said
                said += os.read(master, 65536).decode(errors="replace")
                return text in said

            wait_until(lambda: says("1 of 1 session(s) left, cut in 2"), "what is left")
            assert "╌╌╌╌" in said
        assert drain.wait(DEADLINE_S) == 0
        wait_until(lambda: says("aegis is drained"), "the end")
    finally:
        os.close(slave)
        os.close(master)


def test_a_bar_is_as_full_as_the_work_is_done() -> None:
    assert [bar(done, 4, 8) for done in (0, 1, 4)] == ["╌╌╌╌╌╌╌╌", "━━╌╌╌╌╌╌", "━━━━━━━━"]
    assert bar(0, 0, 8) == "━━━━━━━━"

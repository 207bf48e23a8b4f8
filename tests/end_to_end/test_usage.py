"""The command line itself: exit codes, what is usage, and `check`."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.echo import Echo
from tests.proxy import Proxies

SAMPLE = Path(__file__).parents[2] / "ops" / "aegis.toml"


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch"],
        ["start", "--quickly"],
        ["start", "now"],
        ["start", "--config"],
        ["drain", "--timeout", "soon"],
        ["drain", "--timeout", "-1"],
        ["drain", "--timeout", "nan"],
        ["stop", "--timeout", "-0.5"],
        ["stop", "--timeout", "nan"],
        ["status", "--xml"],
        ["check"],
        ["check", "a", "b"],
    ],
    ids=" ".join,
)
def test_what_is_no_command_is_usage(proxies: Proxies, arguments: list[str]) -> None:
    aegis = proxies.new("127.0.0.1:9")
    result = aegis.ctl(*arguments)
    assert result.returncode == 2, result
    assert result.stderr
    assert "Traceback" not in result.stderr
    assert not aegis.runtime_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["scale", "0"], "0: allowed is 1 to 1024"),
        (["scale", "-1"], "-1: allowed is 1 to 1024"),
        (["scale", "two"], "two: allowed is 1 to 1024"),
        (["drain", "--timeout", "x"], "x: allowed is 0 to 2592000"),
        (["stop", "--timeout", "-1"], "-1: allowed is 0 to 2592000"),
        (["sessions", "--limit", "0"], "0: allowed is 1 to 1000"),
        (["server", "weight", "db/one", "-1"], '-1: allowed is 0 to 65535, or "default"'),
        (["server", "foo"], "no command 'foo'; there are: ready, drain, maint, weight"),
        (["session", "foo"], "no command 'foo'; there are: kill"),
    ],
)
def test_a_usage_error_says_in_one_line_what_is_allowed(
    proxies: Proxies, arguments: list[str], why: str
) -> None:
    result = proxies.new("127.0.0.1:9").ctl(*arguments)
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if why in line], result.stderr


@pytest.mark.parametrize("command", [[], ["start"], ["drain"], ["stop"], ["status"], ["check"]])
def test_help_says_what_there_is(proxies: Proxies, command: list[str]) -> None:
    said = proxies.new("127.0.0.1:9").done(*command, "--help")
    assert "Usage: aegis-ctl" in said


def test_the_version_is_told(proxies: Proxies) -> None:
    assert proxies.new("127.0.0.1:9").done("--version").startswith("aegis ")


def test_the_sample_is_a_good_configuration(proxies: Proxies) -> None:
    said = proxies.new("127.0.0.1:9").done("check", str(SAMPLE))
    assert "2 listener(s), 1 backend(s)" in said


def test_fewer_connections_than_workers_are_worth_a_warning(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new()
    backends = {"db": {"servers": [echo.address], "max_connections": 2}}
    warning = 'backend "db": max_connections = 2 is fewer than 3 workers'
    aegis.configure(backends=backends, workers=3)
    checked = aegis.ctl("check", str(aegis.config_file))
    assert (checked.returncode, checked.stderr.count(warning)) == (0, 1)
    assert "good" in checked.stdout
    aegis.configure(backends=backends, workers=2)
    assert aegis.ctl("check", str(aegis.config_file)).stderr == ""
    aegis.start()
    assert "max_connections" not in aegis.log()
    aegis.configure(backends=backends, workers=3)
    aegis.done("reload")
    aegis.done("stop")
    assert aegis.log().count(warning) == 1
    aegis.start()
    assert aegis.log().count(warning) == 2, "the log is appended to"


def test_check_lists_every_problem_and_starts_nothing(proxies: Proxies) -> None:
    aegis = proxies.new("127.0.0.1:9", slabs=1, colour="red")
    result = aegis.ctl("check", str(aegis.config_file))
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(str(aegis.config_file) in line for line in lines)
    assert not aegis.processes()
    assert not aegis.runtime_dir.exists()


def test_check_of_what_cannot_be_read_says_so_in_one_line(proxies: Proxies) -> None:
    aegis = proxies.new("127.0.0.1:9")
    for path, why in ((aegis.directory / "none", "No such file"), (aegis.directory, "directory")):
        result = aegis.ctl("check", str(path))
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert why in result.stderr


def test_check_does_not_mind_that_the_proxy_runs(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    aegis.done("check", str(aegis.config_file))
    assert json.loads(aegis.done("status", "--json"))["phase"] == "serving"

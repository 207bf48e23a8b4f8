"""A start that cannot be says why in plain lines, exits with 1 and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.echo import Echo, ask
from tests.harness import bound_socket, listening_address
from tests.proxy import Aegis, Proxies, connect

BACKGROUND = ["--detach", "--no-exporter"]
FOREGROUND = ["--no-exporter"]
AS_NOBODY = """
import contextlib, os, sys
import control.ctl.app as app
arguments = sys.argv
with contextlib.suppress(SystemExit):  # import all there is while it can be read
    sys.argv = ["aegis-ctl", "status", "--runtime-dir", "/nonexistent"]
    app.main()
if not os.geteuid():
    os.setgid(65534)
    os.setuid(65534)
sys.argv = ["aegis-ctl", *arguments[1:]]
print(file=sys.stderr)
app.main()
"""
BOTH = pytest.mark.parametrize("how", [BACKGROUND, FOREGROUND], ids=["detached", "foreground"])


def refused(aegis: Aegis, *options: str) -> str:
    """Start, which must fail; returns why, in one line."""
    result = aegis.ctl("start", "--config", str(aegis.config_file), *options)
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr, result.stderr.splitlines()[-1]
    line = result.stderr.removesuffix("\n")
    assert "\n" not in line, result.stderr
    assert line.startswith("aegis-ctl: ")
    assert not aegis.processes()
    assert not aegis.left_files()
    return line.removeprefix("aegis-ctl: ")


@BOTH
@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_in_use_is_named(
    proxies: Proxies, echo: Echo, how: list[str], reuse_port: bool
) -> None:
    aegis = proxies.new(echo.address)
    with socket.socket() as other:
        if reuse_port:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        aegis.address = listening_address(other)
        aegis.configure(echo.address)
        assert refused(aegis, *how) == (
            f'listener "front": cannot bind {aegis.address}: '
            "the address is in use by another process"
        )


def test_a_port_in_use_behind_many_free_ones_is_named(proxies: Proxies, echo: Echo) -> None:
    """Looking at them takes a while in which the controller does not answer yet."""
    aegis = proxies.new(echo.address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        binds = {f"unix{i}": {"bind": f"unix:{aegis.directory}/{i}"} for i in range(1500)}
        aegis.configure(echo.address, listeners=binds | {"z": {"bind": listening_address(other)}})
        assert "the address is in use" in refused(aegis, *BACKGROUND)
    assert not list(aegis.directory.glob("[0-9]*"))


def test_the_exporters_port_in_use_is_named(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        aegis.metrics = listening_address(other)
        aegis.configure(echo.address)
        assert refused(aegis, "--detach").startswith(f"metrics: cannot bind {aegis.metrics}:")


@BOTH
def test_a_unix_socket_in_use_is_named(proxies: Proxies, echo: Echo, how: list[str]) -> None:
    aegis = proxies.new(echo.address)
    with bound_socket("unix", aegis.directory) as other:
        other.listen()
        aegis.address = listening_address(other)
        aegis.configure(echo.address)
        assert "another process listens there" in refused(aegis, *how)
        connect(aegis.address).close()


def test_a_file_in_a_unix_sockets_place_is_kept(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    path = aegis.directory / "precious"
    path.write_text("data")
    aegis.address = f"unix:{path}"
    aegis.configure(echo.address)
    assert "not a socket" in refused(aegis, *BACKGROUND)
    assert path.read_text() == "data"


@BOTH
def test_every_problem_of_a_configuration_has_its_line(
    proxies: Proxies, echo: Echo, how: list[str]
) -> None:
    aegis = proxies.new(echo.address, slabs=1, slab_bytes=-1, drain_timeout_s="soon", colour="red")
    result = aegis.ctl("start", "--config", str(aegis.config_file), *how)
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.removeprefix("aegis-ctl: ").splitlines()
    for key in ("slabs", "slab_bytes", "drain_timeout_s", "colour"):
        assert [line for line in lines if line.startswith(f"{aegis.config_file}: {key}")], lines
    assert len(lines) == 4
    assert not aegis.runtime_dir.exists(), "it was not needed to find out"


@BOTH
def test_a_missing_configuration_is_named(proxies: Proxies, how: list[str]) -> None:
    aegis = proxies.new("127.0.0.1:9")
    aegis.config_file.unlink()
    assert refused(aegis, *how) == f"{aegis.config_file}: cannot be read: No such file or directory"


@BOTH
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("file", "File exists"),
        ("below a file", "Not a directory"),
        ("open to others", "mode 0755 lets others in; it must be 0700"),
        ("too long", "longer than 80 bytes"),
        ("name too long", "longer than 80 bytes"),
    ],
)
def test_an_unusable_runtime_directory_is_named(
    proxies: Proxies, echo: Echo, how: list[str], kind: str, why: str
) -> None:
    aegis = proxies.new(echo.address)
    place = aegis.directory / "place"
    if kind == "open to others":
        place.mkdir(mode=0o755)
    elif "file" in kind:
        place.write_text("")
        place = place / "run" if kind == "below a file" else place
    elif kind == "too long":
        place = aegis.directory / ("x" * 80)
    else:
        place = aegis.directory / ("x" * 300)
    aegis.environment["AEGIS_RUNTIME_DIR"] = str(place)
    said = refused(aegis, *how)
    assert said.startswith(f"runtime directory {place}")
    assert why in said


@pytest.mark.parametrize("command", ["status", "drain", "stop"])
@pytest.mark.parametrize("kind", ["file", "name too long"])
def test_other_commands_do_not_stumble_over_a_directory_that_is_none(
    proxies: Proxies, command: str, kind: str
) -> None:
    aegis = proxies.new("127.0.0.1:9")
    place = aegis.config_file if kind == "file" else aegis.directory / ("x" * 300)
    result = aegis.ctl(command, "--runtime-dir", str(place))
    assert "Traceback" not in result.stderr, result.stderr.splitlines()[-1]
    assert len((result.stdout + result.stderr).splitlines()) == 1
    assert result.returncode == (0 if command == "stop" and result.stdout else 1)


def test_a_directory_that_we_may_not_write_to_is_named(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address)
    aegis.runtime_dir.mkdir(mode=0o500)
    aegis.directory.chmod(0o755)
    proxies.directory.chmod(0o755)
    if not os.geteuid():  # root may write everywhere
        os.chown(aegis.runtime_dir, 65534, 65534)
    aegis.config_file.chmod(0o644)
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "start", "--detach", "--config", str(aegis.config_file)],
        env=aegis.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    aegis.runtime_dir.chmod(0o700)
    said = result.stderr.split("\n\n")[1]
    assert said == f"aegis-ctl: runtime directory {aegis.runtime_dir}: not writable\n"
    assert result.returncode == 1


def test_a_second_controller_in_the_directory_is_refused(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.started(echo.address)
    result = subprocess.run(
        [
            Path(sys.executable).with_name("aegis-controller"),
            *("--config", str(aegis.config_file), "--no-exporter"),
        ],
        env=aegis.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"aegis-controller: another controller (pid {aegis.controller}) runs in "
        f"{aegis.runtime_dir}\n"
    )
    with connect(aegis.address) as client:
        assert ask(client) == b"ping"


@BOTH
def test_another_aegis_on_the_port_is_refused(proxies: Proxies, echo: Echo, how: list[str]) -> None:
    one, other = proxies.started(echo.address), proxies.new(echo.address)
    other.address = one.address
    other.configure(echo.address)
    assert "the address is in use by another process" in refused(other, *how)
    for _ in range(20):
        with connect(one.address) as client:
            assert ask(client) == b"ping"


def test_a_port_is_never_served_by_two_proxies_even_if_one_was_drained(
    proxies: Proxies, echo: Echo
) -> None:
    """A drained listener does not listen, so the kernel lets another of our uid bind its port."""
    one, other = proxies.started(echo.address), proxies.new(echo.address)
    other.address = one.address
    other.configure(echo.address)
    one.done("drain")
    other.ctl("start", "--config", str(other.config_file), *BACKGROUND)
    one.ctl("start")
    serving = [a for a in (one, other) if a.left_files() and a.status().phase == "serving"]
    assert len(serving) == 1, "both proxies accept on one port; who gets which client is chance"

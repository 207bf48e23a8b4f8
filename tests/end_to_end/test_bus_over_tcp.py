"""An exporter and an operator on other machines: over TCP, with keys, and nobody else.

Another machine is another runtime directory here, and a directory with no more keys than that
machine is given.
"""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import msgspec
import pytest
import zmq

from aegis import bus
from aegis.config_bus import Bus
from aegis.messages import Accepted, Drain, Refused, Reply, StatusRequest, Upgrade
from tests import zmtp
from tests.control.exporters import Exporter
from tests.end_to_end.echo import Echo, ask
from tests.end_to_end.test_counts import metric
from tests.end_to_end.test_exporter_killed import scrape
from tests.harness import DEADLINE_S, wait_until
from tests.proxy import Aegis, Proxies, connect, refuses, reserve_port


class Elsewhere:
    """A proxy that is reached over TCP, and what its operator has."""

    def __init__(self, proxies: Proxies, *servers: str) -> None:
        self.proxies = proxies
        self.aegis = proxies.new(*servers)
        self.keys = proxies.directory / "curve"
        self.aegis.done("keys", str(self.keys))
        self.requests = f"tcp://127.0.0.1:{reserve_port(proxies.own)}"
        self.bus = {"requests": self.requests, "keys": str(self.keys)}
        self.servers = servers

    def configure(self, **more: str) -> None:
        self.bus |= more
        self.aegis.configure(*self.servers, bus=self.bus)

    def given(self, name: str, *files: str) -> Path:
        """Return another machine's directory, with these keys."""
        directory = self.proxies.directory / name
        directory.mkdir(mode=0o700)
        for file in files:
            shutil.copy(self.keys / file, directory / file)
        return directory

    def operator(
        self, keys: Path, *arguments: str, controller: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run aegis-ctl where nothing else of this Aegis is."""
        options = ["--controller", controller or self.requests, "--keys", str(keys)]
        nowhere = self.aegis.environment["AEGIS_RUNTIME_DIR"]
        self.aegis.environment["AEGIS_RUNTIME_DIR"] = str(self.proxies.directory / "nothing here")
        try:
            return self.aegis.ctl(*options, *arguments)
        finally:
            self.aegis.environment["AEGIS_RUNTIME_DIR"] = nowhere


@pytest.fixture
def elsewhere(proxies: Proxies, echo: Echo) -> Elsewhere:
    return Elsewhere(proxies, echo.address)


def ignored(aegis: Aegis, socket: str, why: str) -> int:
    """Return what the controller has counted, as its exporter tells."""
    return metric(scrape(aegis), "aegis_bus_ignored_total", socket=socket, why=why)


def test_an_operator_elsewhere_does_all_that_one_here_does(elsewhere: Elsewhere) -> None:
    elsewhere.configure()
    aegis = elsewhere.aegis
    aegis.start()
    keys = elsewhere.given("operator", "operator.key_secret", "proxy.key")
    for command, said in {
        ("status",): "aegis is serving",
        ("drain", "--timeout", "0"): "aegis is drained",
        ("start",): "aegis is serving",
        ("drain", "--listener", "front", "--timeout", "0"): "front is drained",
        ("start", "--listener", "front"): "front is not drained any more",
        ("scale", "1"): "with 1 worker(s)",
        ("reload",): "aegis is serving",
    }.items():
        result = elsewhere.operator(keys, *command)
        assert (result.returncode, said in result.stdout) == (0, True), (command, result)
    assert "aegis is serving" in aegis.done("status"), "who is here needs no key"
    for refused, why in {
        ("upgrade",): "only on the machine itself",
        ("top",): "--exporter",
    }.items():
        result = elsewhere.operator(keys, *refused)
        assert (result.returncode, why in result.stderr) == (1, True), (refused, result)
    result = elsewhere.operator(keys, "stop", "--now")
    assert result.returncode == 0
    wait_until(lambda: refuses(aegis.address) and not aegis.processes(), "the end")


def test_what_to_execute_is_not_said_from_elsewhere(elsewhere: Elsewhere) -> None:
    elsewhere.configure()
    elsewhere.aegis.start()
    conf = Bus(requests=elsewhere.requests, keys=str(elsewhere.keys))
    reply = bus.ask(elsewhere.aegis.runtime_dir, Upgrade("/bin/false"), DEADLINE_S, conf)
    assert isinstance(reply, Refused)
    assert elsewhere.aegis.status().controller.upgrades == 0


def test_who_has_no_key_that_is_known_changes_nothing_and_is_told_so(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.configure()
    aegis = elsewhere.aegis
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    stranger = elsewhere.given("stranger", "proxy.key")
    aegis.done("keys", str(stranger), "--operator", "mallory")
    (stranger / "operator-mallory.key_secret").rename(stranger / "operator.key_secret")
    result = elsewhere.operator(stranger, "drain")
    assert result.returncode == 1
    assert f"the controller at {elsewhere.requests} does not know the key" in result.stderr
    wait_until(lambda: ignored(aegis, "requests", "refused") == 1, "a refusal that is counted")
    assert "aegis is serving" in aegis.done("status")
    shutil.copy(stranger / "operator-mallory.key", elsewhere.keys)
    assert elsewhere.operator(stranger, "status").returncode == 0, "known without a reload"
    (elsewhere.keys / "operator-mallory.key").unlink()
    assert elsewhere.operator(stranger, "status").returncode == 1


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("operator.key_secret", "operator.key_secret: No such file or directory"),
        ("proxy.key", "proxy.key: No such file or directory"),
    ],
)
def test_an_operator_without_a_file_is_told_which(
    elsewhere: Elsewhere, missing: str, said: str
) -> None:
    keys = elsewhere.given("operator", "operator.key_secret", "proxy.key")
    (keys / missing).unlink()
    result = elsewhere.operator(keys, "status")
    assert (result.returncode, said in result.stderr) == (1, True), result.stderr


def test_a_reload_moves_the_door_or_says_why_it_does_not(elsewhere: Elsewhere) -> None:
    elsewhere.configure()
    aegis = elsewhere.aegis
    aegis.start()
    before = aegis.pids()
    old, new = elsewhere.requests, f"tcp://127.0.0.1:{reserve_port(elsewhere.proxies.own)}"
    keys = elsewhere.given("operator", "operator.key_secret", "proxy.key")
    elsewhere.configure(requests=f"tcp://{aegis.metrics}")
    result = aegis.ctl("reload")
    assert (result.returncode, "needs an address of its own" in result.stderr) == (1, True)
    elsewhere.configure(requests="tcp://192.0.2.1:7")  # nobody's (RFC 5737), so not ours
    result = aegis.ctl("reload")
    assert result.returncode == 1
    assert "tcp://192.0.2.1:7: Cannot assign requested address" in result.stderr
    assert elsewhere.operator(keys, "status", controller=old).returncode == 0
    elsewhere.configure(requests=new)
    aegis.done("reload")
    assert elsewhere.operator(keys, "status", controller=new).returncode == 0
    assert refuses(old.removeprefix("tcp://"))
    elsewhere.configure(requests="")
    aegis.done("reload")
    assert refuses(new.removeprefix("tcp://"))
    assert aegis.pids() == before, "nobody was replaced for it"


def test_an_upgrade_keeps_the_door_open_for_operators(elsewhere: Elsewhere) -> None:
    elsewhere.configure()
    elsewhere.aegis.start()
    keys = elsewhere.given("operator", "operator.key_secret", "proxy.key")
    elsewhere.aegis.done("upgrade")
    assert elsewhere.operator(keys, "status").returncode == 0


def test_keys_that_others_may_read_keep_aegis_from_starting(elsewhere: Elsewhere) -> None:
    elsewhere.configure()
    secret = elsewhere.keys / "proxy.key_secret"
    secret.chmod(0o644)
    arguments = ("start", "--detach", "--no-exporter", "--config", str(elsewhere.aegis.config_file))
    result = elsewhere.aegis.ctl(*arguments)
    assert (result.returncode, f"{secret}: mode 0644 lets others read it" in result.stderr) == (
        1,
        True,
    )
    assert elsewhere.aegis.left_over() == []


# --- telemetry -------------------------------------------------------------------------------


def exporter_elsewhere(elsewhere: Elsewhere, *known: str) -> Exporter:
    """Start an exporter with a runtime directory and keys of its own."""
    name = f"exporter-{len(list(elsewhere.proxies.directory.glob('exporter-*.toml')))}"
    keys = elsewhere.given(name, "exporter.key_secret", *known)
    bus = elsewhere.bus | {"requests": "", "keys": str(keys)}
    of_bus = ", ".join(f'{key} = "{value}"' for key, value in bus.items())
    config = elsewhere.proxies.directory / f"{name}.toml"
    text = elsewhere.aegis.config_file.read_text()
    config.write_text(re.sub(r"^bus = .*", f"bus = {{{of_bus}}}", text, flags=re.MULTILINE))
    directory = elsewhere.proxies.directory / "another machine"
    port = int(elsewhere.aegis.metrics.rpartition(":")[2])
    exporter = Exporter(directory, port, ["--config", str(config)])
    elsewhere.proxies.own.callback(exporter.close)
    wait_until(lambda: not refuses(elsewhere.aegis.metrics), "the exporter listens")
    return exporter


def test_an_exporter_elsewhere_hears_counts_and_sessions_over_its_own_death_and_a_workers(
    elsewhere: Elsewhere,
) -> None:
    ports = [reserve_port(elsewhere.proxies.own) for _ in range(2)]
    endpoints = dict(
        zip(("telemetry", "sessions"), (f"tcp://127.0.0.1:{port}" for port in ports), strict=True)
    )
    log = elsewhere.proxies.directory / "sessions.log"
    aegis = elsewhere.aegis
    elsewhere.bus |= endpoints
    aegis.configure(*elsewhere.servers, bus=elsewhere.bus, log={"sessions": str(log)})
    aegis.start()
    exporter = exporter_elsewhere(elsewhere, "proxy.key")

    def sessions() -> int:
        return metric(exporter.ask("/metrics").text, "aegis_sessions_total")

    def served(count: int) -> None:
        for _ in range(count):
            with connect(aegis.address) as client:
                assert ask(client, b"question") == b"question"

    served(20)
    wait_until(lambda: sessions() == 20, "20 sessions")
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 20, "their log")
    victim = aegis.pids()[0]
    aegis.kill(victim)
    wait_until(lambda: victim not in aegis.pids(), "a successor")
    exporter.end(signal.SIGKILL)
    exporter = exporter_elsewhere(elsewhere, "proxy.key")
    served(20)
    wait_until(lambda: sessions() == 40, "40 sessions")
    assert exporter.ask("/readyz").status == 200
    lanes = exporter.ask("/status.json").text
    assert '"cpu": -1' not in lanes, "which core a worker has is known elsewhere as well"


def test_a_proxy_whose_key_the_exporter_does_not_know_serves_and_is_heard_once_it_does(
    elsewhere: Elsewhere,
) -> None:
    endpoint = f"tcp://127.0.0.1:{reserve_port(elsewhere.proxies.own)}"
    elsewhere.configure(telemetry=endpoint, sessions="")
    aegis = elsewhere.aegis
    aegis.start()
    exporter = exporter_elsewhere(elsewhere)
    keys = elsewhere.proxies.directory / "exporter-0"

    def text() -> str:
        return exporter.ask("/metrics").text

    refused = {"socket": "telemetry", "why": "refused"}
    wait_until(lambda: metric(text(), "aegis_bus_ignored_total", **refused) > 0, "refusals")
    with connect(aegis.address) as client:
        assert ask(client, b"question") == b"question"
    if metric(text(), "aegis_sessions_total"):
        pytest.fail("heard of a session by who is not known")
    shutil.copy(elsewhere.keys / "proxy.key", keys)
    wait_until(lambda: metric(text(), "aegis_sessions_total") == 1, "what was counted meanwhile")


def test_a_raw_peer_on_the_tcp_door_is_counted_and_harms_nobody(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.configure()
    aegis = elsewhere.aegis
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    host, _, port = elsewhere.requests.removeprefix("tcp://").rpartition(":")
    for _ in range(10):
        zmtp.attack((host, int(port)), b"GET / HTTP/1.1\r\n\r\n" * 10)
    wait_until(lambda: ignored(aegis, "requests", "refused") == 10, "refusals")
    keys = elsewhere.given("operator", "operator.key_secret", "proxy.key")
    assert elsewhere.operator(keys, "status").returncode == 0


# --- old -------------------------------------------------------------------------------------


def test_what_nobody_waits_for_any_more_is_not_done(proxies: Proxies, echo: Echo) -> None:
    """A controller that was held up must not drain minutes after aegis-ctl has given up."""
    aegis = proxies.new(echo.address)
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    controller = aegis.controller
    context = zmq.Context()
    try:
        sock = bus.connect(context, zmq.REQ, aegis.runtime_dir, "requests")
        sock.send_multipart([bus.encode(monotonic() + DEADLINE_S), bus.encode(StatusRequest())])
        assert sock.recv_multipart()
        aegis.kill(controller, signal.SIGSTOP)
        sock.send_multipart([bus.encode(monotonic()), bus.encode(Drain())])
        aegis.kill(controller, signal.SIGCONT)
        reply = msgspec.msgpack.decode(sock.recv_multipart()[-1], type=Reply)
    finally:
        context.destroy(linger=0)
    assert reply == Refused("too late")
    wait_until(lambda: ignored(aegis, "requests", "old") == 1, "an old request that is counted")
    assert aegis.status().phase == "serving"
    assert isinstance(aegis.ask(Drain(0.0)), Accepted)


def test_keys_are_made_by_a_command_that_needs_nothing_else(tmp_path: Path) -> None:
    ctl = Path(sys.executable).with_name("aegis-ctl")
    for said in ("proxy, exporter, operator", "nothing, all keys are there"):
        result = subprocess.run(
            [ctl, "keys", tmp_path / "curve"], capture_output=True, text=True, check=True
        )
        assert result.stdout == f"made in {tmp_path / 'curve'}: {said}\n"

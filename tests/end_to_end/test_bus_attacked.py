"""Every socket of the bus in a runtime directory among peers that mean harm: counted, ignored."""

import contextlib
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from aegis import bus
from aegis.figures import Figures
from aegis.messages import Desired, Reply, Report, SocketName
from tests import zmtp
from tests.end_to_end.echo import Echo, ask
from tests.end_to_end.test_counts import metric
from tests.end_to_end.test_exporter_killed import scrape
from tests.harness import DEADLINE_S, Rig, receive, wait_until
from tests.proxy import Aegis, Proxies, connect
from tests.workers.test_commands import garbage

PEERS: dict[SocketName, tuple[bytes, int]] = {
    "commands": (b"SUB", zmq.SUB),
    "reports": (b"PUSH", zmq.PUSH),
    "requests": (b"DEALER", zmq.DEALER),
    "telemetry": (b"PUSH", zmq.PUSH),
    "sessions": (b"PUSH", zmq.PUSH),
}
"""Socket → the type of those who connect to it, as ZMTP and as pyzmq say it."""
MOST_BYTES = 64 << 20
"""More memory than this is not taken by whatever strangers say."""


@pytest.fixture
def aegis(proxies: Proxies, echo: Echo) -> Aegis:
    log = {"sessions": str(proxies.directory / "sessions.log")}
    aegis = proxies.new(echo.address, log=log)
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    wait_until(lambda: scrape(aegis), "the exporter answers, so all sockets are bound")
    return aegis


@pytest.fixture
def context() -> Iterator[Any]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def served(aegis: Aegis) -> bool:
    """Whether clients are served, the controller answers, and telemetry and sessions arrive."""
    before = metric(scrape(aegis), "aegis_session_log_written_total")
    with connect(aegis.address) as client:
        assert ask(client, b"question") == b"question"
    assert aegis.status().phase == "serving"
    wait_until(
        lambda: total(aegis, "aegis_session_log_written_total") > before, "a session in the log"
    )
    return True


def total(aegis: Aegis, name: str) -> float:
    """Return a metric without labels."""
    rows = [row for row in scrape(aegis).splitlines() if row.startswith(f"{name} ")]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def ignored(aegis: Aegis, socket: str, why: str) -> int:
    return metric(scrape(aegis), "aegis_bus_ignored_total", socket=socket, why=why)


@pytest.mark.parametrize("name", PEERS)
def test_bytes_that_are_no_peers_stop_nobody(
    aegis: Aegis, name: SocketName, rng: random.Random
) -> None:
    pids = [process.pid for process in aegis.processes()]
    place = aegis.runtime_dir / f"{name}.ipc"
    with ExitStack() as own:
        for said in zmtp.attacks(PEERS[name][0], rng).values():
            for _ in range(3):
                sock = own.enter_context(zmtp.connect(place))
                sock.setblocking(False)
                with contextlib.suppress(OSError):  # it takes no more, or has cut us
                    sock.sendall(said)
        assert served(aegis)
    assert served(aegis)
    assert [process.pid for process in aegis.processes()] == pids
    for pid in pids:
        assert psutil.Process(pid).memory_info().rss < 4 * MOST_BYTES


@pytest.mark.parametrize("name", ["reports", "requests", "telemetry", "sessions"])
def test_messages_that_make_no_sense_are_counted_and_logged_once(
    aegis: Aegis, name: SocketName, context: Any, rng: random.Random
) -> None:
    peer = bus.connect(context, PEERS[name][1], aegis.runtime_dir, name)
    nonsense = garbage(rng)
    for message in nonsense:
        peer.send_multipart([b"", message] if name == "requests" else [message])
    wait_until(lambda: ignored(aegis, name, "malformed") == len(nonsense), "all are counted")
    if name == "requests":
        for _ in nonsense:
            assert peer.poll(DEADLINE_S * 1000)
            reply = msgspec.msgpack.decode(peer.recv_multipart()[-1], type=Reply)
            assert "request not understood" in str(reply)
    assert served(aegis)
    assert aegis.log().count(f"{name}: ignored, malformed") == 1
    peer.close()


def test_reports_of_nobody_we_know_and_of_the_past_are_counted(aegis: Aegis, context: Any) -> None:
    figures = Figures(0, 999_999_999, "stopped", [], [], 4)
    peer = bus.connect(context, zmq.PUSH, aegis.runtime_dir, "reports")
    bus.send(peer, Report(aegis.controller, 10**6, "0", {}, figures))
    wait_until(lambda: ignored(aegis, "reports", "foreign") == 1, "a stranger's report")
    worker = aegis.pids()[0]
    old = msgspec.structs.replace(figures, pid=worker)
    bus.send(peer, Report(aegis.controller, 1, "0", {}, old))
    wait_until(lambda: ignored(aegis, "reports", "old") == 1, "a report of the past")
    assert aegis.pids()[0] == worker, "it has not stopped because somebody says so"
    peer.close()


@pytest.mark.parametrize("kind", ["HTTP", "a socket of the wrong type", "a frame of 2^63 bytes"])
def test_a_worker_finds_the_controller_again_after_whoever_had_taken_its_place(
    kind: str, rig: Rig, rng: random.Random
) -> None:
    """ZeroMQ gives a peer up for good that has broken its protocol; a worker does not."""
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    endpoint = proxy.bus.commands.getsockopt(zmq.LAST_ENDPOINT).decode()
    directory = Path(endpoint.removeprefix("ipc://").rstrip("\0")).parent
    proxy.bus.close()
    with ExitStack() as own:
        for name, peer in {"commands": b"PUB", "reports": b"PULL", "telemetry": b"PULL"}.items():
            path = directory / f"{name}.ipc"
            path.unlink(missing_ok=True)
            door = own.enter_context(socket.socket(socket.AF_UNIX))
            door.settimeout(DEADLINE_S)
            door.bind(str(path))
            door.listen(16)
            impostor = own.enter_context(door.accept()[0])
            impostor.sendall(zmtp.attacks(peer, rng)[kind])
            path.unlink()
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
    proxy.bus = rig.controller_bus()
    proxy.bus.desired = msgspec.structs.replace(proxy.bus.desired, goal="serving", epoch=99)

    def heard() -> Figures | None:
        with contextlib.suppress(AssertionError):  # longer than a test waits for anything else
            return proxy.figures()
        return None

    figures = heard() or heard()
    assert figures is not None, "the worker has not come back"
    assert figures.sessions == 1
    if kind != "HTTP":  # which ZeroMQ takes for messages of ZMTP 1.0
        assert figures.bus_errors["malformed"] == 0, "nothing of it has become a message"


def test_a_command_of_the_past_or_of_another_clock_is_ignored_and_counted(rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address)
    desired = msgspec.structs.replace(
        proxy.bus.desired, since=5.0, epoch=proxy.bus.desired.epoch + 1
    )
    proxy.bus.desired = desired
    pid = proxy.worker.pid
    proxy.bus.report(pid, lambda r: r.epoch == desired.epoch, "the epoch")
    contrary = Desired(desired.controller, desired.epoch, "stopped", 0.0, since=5.0)
    older = [
        msgspec.structs.replace(contrary, epoch=desired.epoch - 1),
        msgspec.structs.replace(contrary, epoch=desired.epoch + 100, since=4.0, controller=1),
    ]
    foreign = msgspec.structs.replace(contrary, since=1e12, controller=1)
    for command in (*older, foreign):
        bus.send(proxy.bus.commands, command)
    successor = msgspec.structs.replace(desired, since=6.0, epoch=1, controller=2)
    proxy.bus.desired = successor
    report = proxy.bus.report(pid, lambda r: r.controller == 2, "the successor's first epoch")
    assert report.figures.phase == "serving"
    assert report.figures.bus_errors == {"malformed": 0, "old": 2, "foreign": 1}

"""What the controller wants, and what the worker makes of it."""

import os
import random
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from aegis.config_bus import Bus
from aegis.curve import make_keys
from aegis.messages import Desired
from tests.harness import KINDS, Kind, Rig, receive, receive_all


def test_a_drain_lets_sessions_finish_and_refuses_new_ones_and_a_resume_serves_again(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    for _ in range(3):
        proxy.bus.publish("drained", timeout_s=60)
        proxy.await_phase("draining")
        while not proxy.refuses():
            upstream.accept().close()
        client.sendall(b"still here")
        assert receive(server, 10) == b"still here"
        proxy.bus.publish("serving")
        proxy.await_phase("serving")
        for sock in proxy.pair(upstream):
            sock.close()
    proxy.bus.publish("drained", timeout_s=60)
    client.close()
    assert receive_all(server) == b""
    server.close()
    proxy.figures_when(lambda f: f.phase == "drained", "the end of the drain")
    assert proxy.refuses()
    proxy.bus.publish("serving")
    proxy.await_phase("serving")
    client, server = proxy.pair(upstream)
    client.sendall(b"again")
    assert receive(server, 5) == b"again"
    assert proxy.figures().cut == 0


def test_a_drained_unix_listener_closes_who_comes_and_serves_again_on_the_same_path(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, kind="unix")
    proxy.bus.publish("drained", timeout_s=60)
    proxy.await_phase("drained")
    assert proxy.connect().recv(1) == b""
    proxy.closed_for("refused")
    proxy.bus.publish("serving")
    proxy.await_phase("serving")
    client, server = proxy.pair(upstream)
    client.sendall(b"again")
    assert receive(server, 5) == b"again"


@pytest.mark.parametrize("kind", KINDS)
def test_the_deadline_of_a_drain_cuts_and_counts_what_is_left(kind: Kind, rig: Rig) -> None:
    upstream = rig.upstream(kind)
    proxy = rig.proxy(upstream.address, kind=kind)
    pairs = [proxy.pair(upstream) for _ in range(5)]
    before = monotonic()
    proxy.bus.publish("drained", timeout_s=0.6)
    for pair in pairs:
        assert [sock.recv(1) for sock in pair] == [b"", b""]
    assert monotonic() - before >= 0.6
    assert proxy.await_phase("drained").figures.cut == 5
    proxy.closed_for("drain_deadline", 5)
    assert proxy.worker.running


def test_a_later_command_moves_the_deadline_of_a_drain(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, _server = proxy.pair(upstream)
    proxy.bus.publish("drained", timeout_s=3600)
    proxy.await_phase("draining")
    proxy.bus.publish("drained", timeout_s=0)
    assert client.recv(1) == b""
    proxy.await_phase("drained")


@pytest.mark.parametrize("first", ["serving", "drained"])
def test_the_goal_stopped_ends_the_worker_with_exit_code_0(first: str, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    if first == "drained":
        proxy.bus.publish("drained")
        proxy.await_phase("drained")
    proxy.bus.publish("stopped", timeout_s=60)
    proxy.await_phase("stopped")  # repeats the command, as a controller does: SUB may join late
    assert proxy.worker.exit_code() == 0


def test_the_same_epoch_twice_changes_nothing(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    applied = proxy.figures()
    contrary = msgspec.structs.replace(proxy.bus.desired, goal="stopped", deadline=monotonic())
    for _ in range(10):
        proxy.bus.commands.send(msgspec.msgpack.encode(contrary))
    figures = proxy.figures()  # commands come in order
    assert figures.phase == applied.phase == "serving"
    assert proxy.worker.running


def test_the_same_epoch_of_another_controller_is_a_new_command(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    proxy.figures()
    mine = proxy.bus.desired
    proxy.bus.desired = msgspec.structs.replace(mine, controller=mine.controller + 1)
    report = proxy.bus.report(
        proxy.worker.pid, lambda r: r.controller == mine.controller + 1, "the new controller"
    )
    assert report.epoch == mine.epoch
    assert report.figures.phase == "serving"


def garbage(rng: random.Random) -> list[bytes]:
    good = msgspec.msgpack.encode(
        Desired(controller=os.getpid(), epoch=10**6, goal="serving", deadline=0.0)
    )
    return [
        b"",
        b"\xc1",
        b"\xde\xff\xff",
        b"\x91" * 900_000,  # nested deeper than any stack
        b"\x82\xa4type\xa7desired\xa1x" + b"\x91" * 100_000,  # the same, in an unknown field
        b"\x81\xa4type\xa7\xff\xfe\xff\xfe\xff\xfe\xff",  # not UTF-8
        b"\x82\xa4type\xa7desired\xa4goal\xa7\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\xa4type\xa7desired\xa5epoch\xcf" + b"\xff" * 8,
        msgspec.msgpack.encode({"type": "desired"}),
        msgspec.msgpack.encode({"type": "report"}),
        *(good[:cut] for cut in range(len(good))),
        *(rng.randbytes(rng.randint(1, 200)) for _ in range(300)),
    ]


def test_garbage_on_the_bus_is_counted_and_ignored(rig: Rig, rng: random.Random) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    proxy.figures()
    messages = garbage(rng)
    for message in messages:
        proxy.bus.commands.send(message)
    figures = proxy.figures()
    assert figures.bus_errors == {"malformed": len(messages), "old": 0, "foreign": 0}
    client, server = proxy.pair(upstream)
    client.sendall(b"unmoved")
    assert receive(server, 7) == b"unmoved"


@pytest.mark.parametrize("telemetry", [False, True])
def test_nobody_on_the_bus_slows_nothing(telemetry: bool, rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, telemetry=False)
    if telemetry:
        proxy.bus.close()  # not even the controller is there
    client, server = proxy.pair(upstream)
    for _ in range(1000):
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
    if not telemetry:  # reports overflow their queue, and the drops are counted
        assert proxy.figures().sessions == 1
        return
    proxy.bus = rig.controller_bus()  # a worker heals by itself when there is one again
    assert proxy.figures().sessions == 1


@pytest.mark.parametrize("peer", ["says nothing", "is not there", "cannot be reached"])
def test_an_exporter_over_tcp_that_is_of_no_use_slows_nothing(
    peer: str, rig: Rig, tmp_path: Path
) -> None:
    make_keys(tmp_path / "curve")
    silent = rig.upstream()  # which accepts in its backlog and never reads
    where = {
        "says nothing": silent.address,
        "is not there": rig.refused_address(),
        "cannot be reached": "192.0.2.1:7",  # nobody's (RFC 5737)
    }
    upstream = rig.upstream()
    bus = Bus(telemetry=f"tcp://{where[peer]}", keys=str(tmp_path / "curve"))
    proxy = rig.proxy(upstream.address, bus=bus, telemetry=False)
    client, server = proxy.pair(upstream)
    for _ in range(1000):
        client.sendall(b"ping")
        assert receive(server, 4) == b"ping"
    assert proxy.figures().sessions == 1

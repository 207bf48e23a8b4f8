"""A worker that has no controller any more can still be ended by hand."""

import signal

import pytest

from tests.harness import Rig, receive

PROMPTLY_S = 10.0  # far below the drain timeouts used here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_lets_sessions_finish_and_then_ends_the_worker(
    number: signal.Signals, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, drain_timeout_s=3600.0)
    client, server = proxy.pair(upstream)
    proxy.worker.signal(number)
    proxy.await_phase("draining")
    client.sendall(b"still here")
    assert receive(server, 10) == b"still here"
    client.close()
    server.close()
    assert proxy.await_phase("stopped").figures.cut == 0
    assert proxy.worker.exit_code() == 0


def test_a_second_signal_cuts(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, drain_timeout_s=3600.0)
    client, server = proxy.pair(upstream)
    proxy.worker.signal(signal.SIGTERM)
    proxy.await_phase("draining")
    proxy.worker.signal(signal.SIGTERM)
    assert client.recv(1) == b""
    assert server.recv(1) == b""
    assert proxy.await_phase("stopped").figures.cut == 1
    assert proxy.worker.exit_code() == 0


def test_the_drain_timeout_bounds_a_signals_drain(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, drain_timeout_s=0.5)
    client, _ = proxy.pair(upstream)
    proxy.worker.signal(signal.SIGTERM)
    assert client.recv(1) == b""
    assert proxy.worker.exit_code() == 0


def test_a_signal_ends_a_drained_worker_at_once(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, goal="drained", drain_timeout_s=3600.0)
    proxy.worker.signal(signal.SIGTERM)
    assert proxy.worker.exit_code(PROMPTLY_S) == 0


def test_a_signal_right_after_a_drain_has_begun_does_not_make_an_empty_worker_wait(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, drain_timeout_s=3600.0)
    proxy.figures()  # it has subscribed
    proxy.bus.publish("drained", timeout_s=3600)
    proxy.await_phase("draining")
    proxy.worker.signal(signal.SIGTERM)
    assert proxy.worker.exit_code(PROMPTLY_S) == 0


def test_a_signal_after_an_interrupted_drain_does_not_make_an_empty_worker_wait(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address, drain_timeout_s=3600.0)
    proxy.figures()  # it has subscribed
    proxy.bus.publish("drained", timeout_s=3600)
    proxy.bus.publish("serving")
    proxy.await_phase("serving")
    proxy.worker.signal(signal.SIGTERM)
    assert proxy.worker.exit_code(PROMPTLY_S) == 0

"""Whatever one client does, a turn of the loop stays short: so much is done at most for each.

The worker runs in this process. The loop reads its clock when a turn begins and when it has ended:
there, what has been done since is looked at.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

import workers.loop
from aegis.limits import ACCEPTS_PER_TURN, KERNEL_PIPE_BYTES
from ops.bench.echo import echo_server
from tests.harness import DEADLINE_S
from tests.inline_worker import InlineWorker, beside, inline_worker

FLOOD = 1_000
LINE = b"GET key\n"
PIPELINED = 200_000


def most_a_turn(
    worker: InlineWorker, count: Callable[[], int], enough: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Run until `count` has come to `enough`; returns by how much it grew in a turn at most."""
    give_up = monotonic() + DEADLINE_S
    seen, most = 0, 0

    def clock() -> float:
        nonlocal seen, most
        now = monotonic()
        before, seen = seen, count()
        most = max(most, seen - before)
        if seen >= enough or now > give_up:
            worker.leave()
        return now

    monkeypatch.setattr(workers.loop, "monotonic", clock)
    worker.loop.run()
    assert seen >= enough, f"{seen} of {enough} within {DEADLINE_S:g} s"
    return most


def send_and_discard(address: tuple[str, int], data: bytes, times: int) -> None:
    """Send without waiting, and read what comes back beside."""
    with socket.create_connection(address) as client:
        reader = threading.Thread(target=lambda: list(iter(lambda: client.recv(1 << 16), b"")))
        reader.start()
        for _ in range(times):
            client.sendall(data)
        reader.join()


def test_a_flood_of_connects_is_taken_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        echo_server() as port,
        inline_worker(tmp_path, f"127.0.0.1:{port}", "raw", "off") as worker,
    ):
        clients = [socket.create_connection(worker.address) for _ in range(FLOOD)]
        most = most_a_turn(worker, lambda: worker.listener.figures.accepted, FLOOD, monkeypatch)
        for client in clients:
            client.close()
    assert 0 < most <= ACCEPTS_PER_TURN


@pytest.mark.parametrize(("protocol", "pooling"), [("raw", "off"), ("line", "multiplex")])
def test_a_client_that_sends_without_end_is_read_in_portions(
    protocol: str, pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_all = len(LINE) * PIPELINED
    with (
        echo_server() as port,
        inline_worker(tmp_path, f"127.0.0.1:{port}", protocol, pooling) as worker,
    ):
        data = LINE * 1_000
        received = worker.listener.figures.bytes
        with beside(lambda: send_and_discard(worker.address, data, PIPELINED // 1_000)):
            most = most_a_turn(worker, lambda: received[0], in_all, monkeypatch)
        slab_bytes = len(worker.loop.slabs.hot.buffer)
    assert 0 < most <= (KERNEL_PIPE_BYTES if protocol == "raw" else slab_bytes)

"""Steady round trips leave nothing behind: no block of memory more, and no garbage collection.

The worker runs in this process, where its memory can be looked at; the server and the clients
are others.
"""

import gc
import socket
import sys
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from ops.bench.echo import echo_server
from tests.harness import receive
from tests.inline_worker import beside, inline_worker
from workers.timers import Alarm

CLIENTS = 20
ASKED = b"GET key\n"
WARM_UP_S, STEADY_S = 1.0, 2.0
FEW_BLOCKS = 200
"""For what happens now and then, such as a larger count; one block a round trip would be 1,000."""


class Sample(NamedTuple):
    """What there is at one moment."""

    bytes: int
    blocks: int
    collections: int


def ask_for_ever(address: tuple[str, int]) -> None:
    """Be clients that ask as soon as they are answered."""
    clients = [socket.create_connection(address) for _ in range(CLIENTS)]
    while True:
        for client in clients:
            client.sendall(ASKED)
        for client in clients:
            assert receive(client, len(ASKED)) == ASKED


@pytest.mark.parametrize(("protocol", "pooling"), [("raw", "off"), ("line", "multiplex")])
def test_steady_round_trips_leave_nothing_behind(
    protocol: str, pooling: str, tmp_path: Path
) -> None:
    with (
        echo_server() as port,
        inline_worker(tmp_path, f"127.0.0.1:{port}", protocol, pooling) as worker,
    ):
        samples: list[Sample] = []

        def look(now: float) -> float:
            collections = sum(generation["collections"] for generation in gc.get_stats())
            moved = sum(worker.listener.figures.bytes)
            samples.append(Sample(moved, sys.getallocatedblocks(), collections))
            if len(samples) < 2:
                return now + STEADY_S
            worker.leave()
            return 0.0

        with beside(lambda: ask_for_ever(worker.address)):
            Alarm(worker.loop.wheel, monotonic() + WARM_UP_S, look)
            gc.collect()
            worker.loop.run()
    begin, end = samples
    assert end.bytes - begin.bytes > 1_000 * 2 * len(ASKED), "so many round trips at least"
    assert end.collections == begin.collections
    assert abs(end.blocks - begin.blocks) < FEW_BLOCKS

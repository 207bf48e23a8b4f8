"""Loads by our own generators: bulk, open loop, and both at once."""

import contextlib
from typing import NamedTuple

from ops.bench.cpu import Cpu
from ops.bench.generator import Generator
from ops.bench.scene import Scene, Window

GB = 1e9


class Bulk(NamedTuple):
    """So many GB over so many streams."""

    gigabytes: float
    streams: int
    direction: str
    """`down` is from the server to the client."""


class OpenLoop(NamedTuple):
    """Evenly spaced requests, and beside them perhaps streams of large values."""

    seconds: float
    connections: int
    rate: float
    bulk_streams: int = 0


def run_bulk(scene: Scene, size: Bulk, deadline_s: float) -> dict[str, float]:
    """Move the bytes once."""
    total = int(size.gigabytes * GB)
    with Generator(
        "ops.bench.bulk load",
        port=scene.port,
        streams=size.streams,
        bytes=total,
        direction=size.direction,
    ) as load:
        load.wait_until_ready()
        with scene.window() as window:
            load.go()
            told = load.result(deadline_s)
    gigabytes = told["bytes"] / GB
    return {
        "rate": gigabytes / told["seconds"],
        **_per(gigabytes, window, 1.0),
    }


def run_open_loop(scene: Scene, size: OpenLoop, deadline_s: float) -> dict[str, float]:
    """Send at the due times, and say how late the answers were."""
    with contextlib.ExitStack() as own:
        small = own.enter_context(
            Generator(
                "ops.bench.open_loop",
                port=scene.port,
                connections=size.connections,
                rate=size.rate,
                seconds=size.seconds,
            )
        )
        large = None
        if size.bulk_streams:
            large = own.enter_context(
                Generator(
                    "ops.bench.large_values",
                    port=scene.port,
                    streams=size.bulk_streams,
                    seconds=size.seconds,
                )
            )
        for each in filter(None, (small, large)):
            each.wait_until_ready()
        with scene.window() as window:
            for each in filter(None, (large, small)):
                each.go()
            told = small.result(deadline_s)
            bulk = large.result(deadline_s) if large else None
    latency = {name: value for name, value in told.items() if name.endswith("_ms")}
    if bulk is None:
        return {**_per(told["requests"], window, 1e6), **latency}
    gigabytes = bulk["bytes"] / GB
    return {"rate": gigabytes / bulk["seconds"], **_per(gigabytes, window, 1.0), **latency}


def _per(work: float, window: Window, scale: float) -> dict[str, float]:
    def each(cpu: Cpu) -> tuple[float, float]:
        return cpu.user_s / work * scale, cpu.system_s / work * scale

    user, system = each(window.proxy)
    return {"user": user, "system": system, "server": sum(each(window.server))}

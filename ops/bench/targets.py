"""The figures Aegis is to reach, and whether a run shows them.

The proxy's CPU per unit of work is compared, so that noise cancels; where a target is about memory,
latency or throughput, that.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ops.bench.data import Run
from ops.bench.medians import Ratio, median, ratio

RAW, MULTIPLEX = "aegis-off", "aegis-multiplex"
ROUND_TRIPS = ("rt-10", "rt-100", "rt-1000", "rt-5000", "pipelined")
BULK = ("bulk-1-down", "bulk-1-up", "bulk-50-down", "bulk-50-up")
BYTE_RELAYS = ("haproxy", "nginx", "envoy-tcp")
LARGE_BUFFERS = ("haproxy-256k", "nginx-1m", "envoy-tcp")
"""Beyond the target: the same rivals, set against their manuals' advice for this load alone."""


class Target(NamedTuple):
    """Aegis' figure over a rival's, in each of the rows."""

    load: str
    rows: tuple[str, ...]
    ours: str
    rivals: tuple[str, ...]
    """The best of them is the one that counts."""
    figure: str
    bound: float
    more_is_better: bool = False
    rival_row: str | None = None
    """The row the rival is taken from, if it is another."""


class Verdict(NamedTuple):
    """One line of the table of targets."""

    target: Target
    row: str
    rival: str
    ratio: Ratio | None

    @property
    def holds(self) -> bool | None:
        """None if the run cannot tell."""
        if self.ratio is None:
            return None
        if self.target.more_is_better:
            return self.ratio.median >= self.target.bound
        return self.ratio.median <= self.target.bound


def _each(
    load: str, rows: tuple[str, ...], ours: str, rivals: dict[str, float], figure: str = "cpu"
) -> Iterator[Target]:
    for rival, bound in rivals.items():
        yield Target(load, rows, ours, (rival,), figure, bound)


TARGETS: tuple[Target, ...] = (
    *_each("round trips, raw", (*ROUND_TRIPS, "ab"), RAW, {"haproxy": 1.0, "nginx": 1.0}),
    *_each("churn, raw", ("churn", "ab-churn"), RAW, {"haproxy": 1.0}),
    Target("bulk, raw", BULK, RAW, BYTE_RELAYS, "cpu", 0.95),
    Target("bulk, raw: throughput", BULK, RAW, BYTE_RELAYS, "rate", 1.0, more_is_better=True),
    Target("bulk, raw, rivals with large buffers", BULK, RAW, LARGE_BUFFERS, "cpu", 0.95),
    *_each(
        "round trips, multiplex",
        ROUND_TRIPS,
        MULTIPLEX,
        {"haproxy": 0.70, "twemproxy": 0.95, "envoy-redis": 0.80},
    ),
    *_each("round trips, multiplex", ("ab",), MULTIPLEX, {"haproxy": 0.70}),
    *_each("churn, multiplex", ("churn",), MULTIPLEX, {"haproxy": 0.55, "twemproxy": 1.0}),
    *_each("churn, multiplex", ("ab-churn",), MULTIPLEX, {"haproxy": 0.55}),
    *(
        target
        for ours in (MULTIPLEX, "aegis-session")
        for target in (
            Target(
                "churn, pooled: requests/s",
                ("ab-churn-alone",),
                ours,
                (RAW,),
                "rate",
                1.6,
                more_is_better=True,
            ),
            Target("churn, pooled: p99", ("ab-churn-alone",), ours, (RAW,), "p99_ms", 0.5),
        )
    ),
    *(
        target
        for ours in (RAW, MULTIPLEX)
        for figure in ("p99_ms", "p999_ms")
        for target in _each("open loop", ("open-loop",), ours, {"haproxy": 1.0}, figure)
    ),
    *(
        Target(
            "5,000 connections against 100",
            ("rt-5000",),
            ours,
            (ours,),
            "cpu",
            1.2,
            False,
            "rt-100",
        )
        for ours in (RAW, MULTIPLEX)
    ),
    *(
        target
        for ours in (RAW, MULTIPLEX)
        for target in _each("memory per idle session", ("idle",), ours, {"haproxy": 0.5}, "bytes")
    ),
    *(
        target
        for ours in (RAW, MULTIPLEX)
        for target in _each("any round trips", (*ROUND_TRIPS, "ab"), ours, {"asyncio": 0.4})
    ),
)


def _best(run: Run, target: Target, row: str) -> str:
    medians = {rival: median(run, row, rival, target.figure) for rival in target.rivals}
    known = {rival: value for rival, value in medians.items() if value is not None}
    if not known:
        return " or ".join(target.rivals)
    choose = max if target.more_is_better else min
    return choose(known, key=lambda rival: known[rival])


def verdicts(run: Run) -> list[Verdict]:
    """Return a line for every target and row; one without a ratio if the run has not both sides."""
    lines = []
    for target in TARGETS:
        for row in target.rows:
            their_row = target.rival_row or row
            rival = _best(run, target, their_row)
            found = ratio(run, target.figure, (row, target.ours), (their_row, rival))
            lines.append(Verdict(target, row, rival, found))
    return lines

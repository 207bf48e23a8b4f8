"""From a snapshot to what prometheus-client writes out: series, then families in catalogue order.

Counters are sums over every process a slot has had; gauges come only from those heard lately, so a
dead worker's sessions disappear and its bytes stay.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate
from time import monotonic
from typing import Any, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from aegis import metrics
from aegis.lifecycle import Phase, ProxyPhase, SeatState
from aegis.messages import Supervision
from aegis.metrics import CATALOGUE, Metric
from control.exporter.counts import Counts, Series, gauges, of_histogram, total_of
from control.exporter.state import Snapshot


class Collector:
    """Collects for a registry; safe in any thread, because it asks for an immutable snapshot."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Family]:
        """Yield every family without samples, by which the registry knows the names."""
        return families({})

    def collect(self) -> Iterator[Family]:
        """Yield every family with what is known now."""
        return families(all_series(self._snapshot(), monotonic()))


def all_series(snapshot: Snapshot, now: float) -> Counts:
    """Return every series there is."""
    fresh = snapshot.fresh(now)
    series = total_of(
        [
            *snapshot.folded.values(),
            *(heard.counts for heard in snapshot.processes),
            *(gauges(heard.figures) for heard in fresh),
        ]
    )
    for figures in (heard.figures for heard in fresh):
        worker = str(figures.slot)
        longest: dict[Series, float] = {(metrics.LONGEST_TURN, (worker,)): figures.longest_turn_s}
        for backend in figures.backends:
            longest[metrics.LONGEST_WAIT, (worker, backend.backend)] = backend.longest_wait_s
        for pool in figures.pools:
            for server, due_s in pool.oldest_s.items():
                labels = (worker, pool.backend, server, pool.protocol)
                longest[metrics.OLDEST_REPLY, labels] = due_s
        for key, seconds in longest.items():  # of two processes of a slot the longer one
            series[key] = (max(series.get(key, (0.0,))[0], seconds),)
    in_phase = {(heard.figures.slot, heard.figures.phase) for heard in fresh}
    for slot in snapshot.slots(now):
        for phase in get_args(Phase):
            is_in = (slot, phase) in in_phase
            series[metrics.WORKER_PHASE, (str(slot), phase)] = (is_in,)
        if slot in snapshot.heard_at:
            age = now - snapshot.heard_at[slot]
            series[metrics.TELEMETRY_AGE, (str(slot),)] = (age,)
    series |= _of_controller(snapshot, now)
    series |= _ignored(snapshot.ignored)
    series[metrics.SESSION_LOG_WRITTEN, ()] = (snapshot.session_log.written,)
    series[metrics.SESSION_LOG_UNWRITTEN, ()] = (snapshot.session_log.unwritten,)
    series[metrics.BUILD, (version("aegis-proxy"),)] = (1,)
    return series


def _of_controller(snapshot: Snapshot, now: float) -> Counts:
    """Return what the controller said last; once that is old, only what it counted."""
    series: Counts = {}
    if snapshot.supervision is None:
        return series
    for seat in snapshot.supervision.seats:
        if seat.slot < 0:
            series[metrics.EXPORTER_RESTARTS, ()] = (seat.restarts,)
        else:
            series[metrics.WORKER_RESTARTS, (str(seat.slot),)] = (seat.restarts,)
    series |= _ignored(snapshot.supervision.ignored)
    series |= _counted_of_servers(snapshot.supervision)
    controller = snapshot.controller(now)
    if controller is None:
        return series
    series |= _state_of_servers(controller)
    for seat in controller.seats:
        for state in get_args(SeatState) if seat.slot >= 0 else ():
            series[metrics.WORKER_STATE, (str(seat.slot), state)] = (state == seat.state,)
        if seat.epoch is not None:
            series[metrics.WORKER_EPOCH, (str(seat.slot),)] = (seat.epoch,)
    for phase in get_args(ProxyPhase):
        series[metrics.PHASE, (phase,)] = (phase == controller.phase,)
    series[metrics.EPOCH, ()] = (controller.epoch,)
    return series


def _ignored(by_socket: Mapping[str, Mapping[Any, int]]) -> Counts:
    return {
        (metrics.BUS_IGNORED, (socket, why)): (count,)
        for socket, counts in by_socket.items()
        for why, count in counts.items()
    }


def _counted_of_servers(supervision: Supervision) -> Counts:
    series: Counts = {}
    for backend in supervision.backends:
        series[metrics.BACKEND_PANICS, (backend.name,)] = (backend.panics,)
        for server in backend.servers:
            labels, figures = (server.backend, server.address), server.figures
            for result, count in figures.checks.items():
                series[metrics.SERVER_CHECKS, (*labels, result)] = (count,)
            series[metrics.SERVER_CHECK_SECONDS, labels] = of_histogram(figures.seconds)
            series[metrics.SERVER_DOWNS, labels] = (figures.downs,)
            series[metrics.SERVER_EJECTIONS, labels] = (figures.ejections,)
    return series


def _state_of_servers(supervision: Supervision) -> Counts:
    series: Counts = {}
    for backend in supervision.backends:
        series[metrics.BACKEND_PANIC, (backend.name,)] = (backend.panic,)
        for server in backend.servers:
            labels = (server.backend, server.address)
            series[metrics.SERVER_UP, labels] = (server.healthy,)
            series[metrics.SERVER_WEIGHT, labels] = (server.weight,)
    return series


def families(series: Counts) -> Iterator[Family]:
    """Yield one family per metric of the catalogue, with or without samples."""
    by_metric: dict[Metric, dict[tuple[str, ...], tuple[float, ...]]]
    by_metric = {metric: {} for metric in CATALOGUE}
    for (metric, labels), numbers in series.items():
        by_metric[metric][labels] = numbers
    for metric, samples in by_metric.items():
        yield _family(metric, samples)


def _family(metric: Metric, samples: Mapping[tuple[str, ...], tuple[float, ...]]) -> Family:
    name, unit = metric.name, metric.unit
    ordered = sorted(samples.items())
    if metric.kind == "histogram":
        bounds = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels, unit=unit)
        for labels, (*buckets, total) in ordered:
            cumulative = list(zip(bounds, accumulate(buckets), strict=True))
            histogram.add_metric(labels, cumulative, total)
        return histogram
    if metric.kind == "info":
        info = InfoMetricFamily(name.removesuffix("_info"), metric.help)
        for labels, _ in ordered:
            info.add_metric([], dict(zip(metric.labels, labels, strict=True)))
        return info
    plain: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        plain = CounterMetricFamily(name, metric.help, labels=metric.labels, unit=unit)
    else:
        plain = GaugeMetricFamily(name, metric.help, labels=metric.labels, unit=unit)
    for labels, (number,) in ordered:
        plain.add_metric(labels, number)
    return plain

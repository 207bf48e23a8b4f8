"""What happens per second, from cumulative counters.

    Heard, Heard, Heard …  ─▶ Rates.advance() ─▶ Counts per second ─▶ Table: sums by label

A process' rate is what it counted between its last two messages over the time between them, so it
does not depend on how its heartbeats and our ticks meet. Pure; used by one thread.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from aegis.limits import HEARTBEAT_S
from aegis.metrics import CATALOGUE, Metric
from control.exporter.counts import Counts, total_of
from control.exporter.state import Heard

HISTOGRAMS = tuple(metric for metric in CATALOGUE if metric.kind == "histogram")

# Half a heartbeat late is jitter; after that a rate is not repeated as if it were still so.
_BELIEVED_S = 1.5 * HEARTBEAT_S


class Table:
    """Counts by metric, to be summed over whichever labels do not matter."""

    def __init__(self, counts: Counts) -> None:
        self._rows: dict[Metric, dict[tuple[str, ...], tuple[float, ...]]] = defaultdict(dict)
        for (metric, labels), numbers in counts.items():
            self._rows[metric][labels] = numbers

    def rows(
        self, metric: Metric, **labels: str
    ) -> Iterator[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Yield labels and numbers of the series that have these labels; none lacks one of them."""
        if not labels.keys() <= set(metric.labels):
            return
        wanted = [(metric.labels.index(name), value) for name, value in labels.items()]
        for values, numbers in self._rows.get(metric, {}).items():
            if all(values[at] == value for at, value in wanted):
                yield values, numbers

    def sum(self, metric: Metric, **labels: str) -> float:
        """Return the sum over all series that have these labels."""
        return sum(numbers[0] for _, numbers in self.rows(metric, **labels))

    def by(self, metric: Metric, name: str, **labels: str) -> dict[str, float]:
        """Return the sums by value of one label."""
        at = metric.labels.index(name)
        sums: dict[str, float] = {}
        for values, (number, *_) in self.rows(metric, **labels):
            sums[values[at]] = sums.get(values[at], 0.0) + number
        return sums

    def buckets(self, metric: Metric, **labels: str) -> tuple[float, ...]:
        """Return a histogram's buckets, not cumulative; empty when there is no such series."""
        return add_buckets([numbers[:-1] for _, numbers in self.rows(metric, **labels)])


def add_buckets(parts: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the sum, bucket by bucket."""
    return tuple(map(sum, zip(*(part for part in parts if part), strict=True)))


class Rates:
    """Remembers of each process its last message and how fast it counted up to it."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], tuple[Heard, Counts]] = {}
        self.observed: Counts = {}
        """Of the histograms: what has come with the last `advance`."""

    def advance(self, processes: Iterable[Heard], now: float) -> dict[tuple[int, int], Counts]:
        """Return the rates of the processes that were heard lately, by slot and pid."""
        before, self._last = self._last, {}
        gains = []
        for heard in processes:
            key = (heard.figures.slot, heard.figures.pid)
            last, rates = before.get(key, (heard, {}))
            if heard is not last:
                seconds, gained = heard.at - last.at, _gained(last, heard)
                rates = {
                    series: tuple([number / seconds for number in numbers])
                    for series, numbers in gained.items()
                }
                gains.append(gained)
            self._last[key] = (heard, rates)
        self.observed = total_of(
            {series: numbers for series, numbers in gained.items() if series[0].bounds}
            for gained in gains
        )
        return {
            key: rates
            for key, (heard, rates) in self._last.items()
            if rates and now - heard.at <= _BELIEVED_S
        }


def _gained(old: Heard, new: Heard) -> Counts:
    """Return what a process has counted between two messages."""
    if new.at <= old.at or new.figures.started != old.figures.started:  # another got the pid
        return {}
    gained: Counts = {}
    for series, numbers in new.counts.items():
        before = old.counts.get(series)
        gained[series] = (
            tuple([b - a for a, b in zip(before, numbers, strict=True)]) if before else numbers
        )
    return gained


def quantile(bounds: tuple[float, ...], buckets: tuple[float, ...], q: float) -> float | None:
    """Return the q-quantile, linear within its bucket, as Prometheus' histogram_quantile has it.

    What lies above the last bound counts as that bound. None when there is nothing.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    rank, below, lower = q * total, 0.0, 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return bounds[-1]


def whole(rates: Mapping[tuple[int, int], Counts]) -> Table:
    """Return all processes' rates together."""
    return Table(total_of(rates.values()))

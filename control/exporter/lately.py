"""How long things took in the last seconds, read off the workers' histograms.

One running sum is kept of all that was observed, and what it was in each second lately: a window's
observations are the difference of two sums, so a window of a minute costs no more than one of five
seconds. Whole numbers throughout, so a difference of nothing is nothing. Pure; used by one thread.
"""

from collections import deque

from aegis.limits import CONNECT_WINDOW_S, QUANTILE_WINDOW_S
from aegis.metrics import Metric
from control.exporter.counts import Counts, total_of
from control.exporter.picture import Quantiles
from control.exporter.rates import Table, add_buckets, quantile


class Lately:
    """Remembers CONNECT_WINDOW_S seconds."""

    def __init__(self) -> None:
        self._total: Counts = {}
        self._sums = deque([Table({})], maxlen=CONNECT_WINDOW_S + 1)

    def push(self, observed: Counts) -> None:
        """Take in what was observed in one second."""
        self._total = total_of([self._total, observed])
        self._sums.append(Table(self._total))

    def quantiles(
        self, metric: Metric, seconds: int = QUANTILE_WINDOW_S, **labels: str
    ) -> Quantiles:
        """Return one histogram's over the last seconds, for the series with these labels."""
        name = metric.name.removeprefix("aegis_").removesuffix("_seconds")
        return self.of_both(name, (metric,), seconds, **labels)

    def of_both(
        self,
        name: str,
        histograms: tuple[Metric, ...],
        seconds: int,
        **labels: str,
    ) -> Quantiles:
        """Return those of several histograms together, which have the same bounds."""
        steps = min(seconds, len(self._sums) - 1)
        now = add_buckets(self._sums[-1].buckets(each, **labels) for each in histograms)
        then = add_buckets(self._sums[-1 - steps].buckets(each, **labels) for each in histograms)
        buckets = tuple(b - a for a, b in zip(then, now, strict=True)) if then else now
        bounds = histograms[0].bounds
        return Quantiles(
            name,
            sum(buckets) / max(1, steps),
            *(quantile(bounds, buckets, q) for q in (0.5, 0.99, 0.999)),
        )

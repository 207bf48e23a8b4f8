"""The PromQL that most panels are: a rate or a sum of one metric, for the chosen proxies."""

from ops.grafana.panels import Query

ALL = 'instance=~"$instance"'
FAULTS = (
    "server_reset|connect_failed|connect_timeout|server_fin_timeout|queue_full|queue_timeout|"
    "server_lost|server_down|error"
)
"""Reasons for which a session closes that its client has no part in."""


def rate(metric: str, by: str, more: str = "") -> str:
    """Return the counter's growth per second, summed by labels; `more` selects among its series."""
    selector = f"{ALL},{more}" if more else ALL
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def now(metric: str, by: str, more: str = "") -> str:
    """Return the gauge, summed by labels."""
    selector = f"{ALL},{more}" if more else ALL
    return f"sum by ({by}) ({metric}{{{selector}}})"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of the histogram, over the same time as `rate`."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', labels)})"


def quantiles(metric: str, by: str) -> list[Query]:
    """Return the median, p99 and p99.9 of the histogram, by one label."""
    names = {0.5: "p50", 0.99: "p99", 0.999: "p99.9"}
    return [Query(quantile(q, metric, by), f"{{{{{by}}}}} {name}") for q, name in names.items()]


def heat(metric: str) -> str:
    """Return how many were observed in each bucket, for a heatmap."""
    return f"sum by (le) (increase({metric}_bucket{{{ALL}}}[$__rate_interval]))"

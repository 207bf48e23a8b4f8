"""The PromQL that most panels are: a rate or a sum of one metric, for the chosen proxies."""

ALL = 'instance=~"$instance"'
FAULTS = (
    "server_reset|connect_failed|connect_timeout|server_fin_timeout|queue_full|queue_timeout|"
    "server_lost|error"
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

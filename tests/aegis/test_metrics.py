"""The catalogue keeps to Prometheus' conventions and to its document."""

import re
from pathlib import Path

import pytest

from aegis.metrics import CATALOGUE, LABELS, Metric, document_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
SUFFIXES = {"counter": "_total", "info": "_info"}


def family(metric: Metric) -> str:
    """Return the name of the family, which OpenMetrics wants to be unique."""
    return metric.name.removesuffix(SUFFIXES.get(metric.kind, ""))


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_metric_is_named_and_described_as_prometheus_wants_it(metric: Metric) -> None:
    assert re.fullmatch(r"aegis(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert not re.search(r"_(milliseconds|ms|s|kilobytes|count|sum|bucket)$", metric.name)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert set(metric.labels) <= LABELS.keys()
    assert (metric.kind == "histogram") == bool(metric.bounds)
    assert list(metric.bounds) == sorted(set(metric.bounds))


def test_no_two_metrics_share_a_family() -> None:
    names = [family(metric) for metric in CATALOGUE]
    assert len(names) == len(set(names))


def test_a_label_is_explained_only_if_some_metric_has_it() -> None:
    used = {label for metric in CATALOGUE for label in metric.labels} | {"le"}
    assert set(LABELS) == used


def test_accepted_clients_are_counted_under_the_name_that_others_rely_on() -> None:
    assert "aegis_sessions_total" in {metric.name for metric in CATALOGUE}


def test_the_document_is_what_the_catalogue_says() -> None:
    document = DOCUMENT.read_text()
    assert all(f"\n| `{metric.name}` | " in document for metric in CATALOGUE)
    assert document_text(document) == document, "run: python -m aegis.metrics docs/metrics.md"


def test_the_queries_shown_in_the_document_use_metrics_that_exist() -> None:
    names = {metric.name for metric in CATALOGUE}
    names |= {m.name + end for m in CATALOGUE if m.bounds for end in ("_bucket", "_sum", "_count")}
    shown = set(re.findall(r"\baegis_\w+", DOCUMENT.read_text()))
    assert shown <= names

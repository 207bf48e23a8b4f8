"""The dashboard's file, its structure, and what it says of metrics."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aegis.metrics import CATALOGUE
from ops.grafana.dashboard import dashboard, dashboard_text

DIRECTORY = Path(__file__).parents[2] / "ops" / "grafana"
PANELS: list[dict[str, Any]] = dashboard()["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]


def names(panel: dict[str, Any]) -> str:
    return f"{panel['id']} {panel['title']}"


def test_the_file_is_what_the_code_says() -> None:
    stored = (DIRECTORY / "dashboards" / "aegis.json").read_text()
    command = "python -m ops.grafana.dashboard ops/grafana/dashboards/aegis.json"
    assert stored == dashboard_text(), f"run: {command}"
    assert json.loads(stored)["uid"] == "aegis"


@pytest.mark.parametrize("panel", CHARTS, ids=names)
def test_a_panel_says_what_to_look_for_and_asks_for_metrics_that_exist(
    panel: dict[str, Any],
) -> None:
    known = {metric.name for metric in CATALOGUE}
    known |= {m.name + end for m in CATALOGUE if m.bounds for end in ("_bucket", "_sum")}
    assert panel["description"].endswith(".")
    for target in panel["targets"]:
        assert set(re.findall(r"\baegis_\w+", target["expr"])) <= known
        assert 'instance=~"$instance"' in target["expr"]
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(legends) == len(set(legends))


@pytest.mark.parametrize("panel", CHARTS, ids=names)
def test_the_labels_of_a_legend_are_those_that_its_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = re.search(r"by \(([^)]*)\)", target["expr"])
        if kept is not None:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= set(kept[1].replace(" ", "").split(",")), target["expr"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not taken & cells, panel["title"]
        cells |= taken


def test_the_data_source_that_is_provisioned_is_the_one_the_panels_can_choose() -> None:
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    provisioned = (DIRECTORY / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert f"type: {variables['datasource']['query']}\n" in provisioned
    assert {panel["datasource"]["uid"] for panel in CHARTS} == {"${datasource}"}

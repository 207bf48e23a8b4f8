"""Panels of a Grafana dashboard, as the JSON that Grafana keeps (schema version 39, Grafana 11).

    Row("Servers", [Panel(...), Panel(...)]) ─▶ place ─▶ [{"type": "row"}, …]

Only what Aegis' dashboard needs. A panel's height is its row's; widths of a row add up to 24.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


@dataclass(frozen=True)
class Query:
    """PromQL, and the legend of each series it returns."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `description` says what to look for; Grafana shows it behind the (i)."""

    title: str
    description: str
    queries: list[Query]
    unit: str
    width: int
    kind: Literal["stat", "timeseries", "heatmap", "state-timeline"] = "timeseries"
    stacked: bool = False
    maximum: float | None = None
    shows_names: bool = False
    """Of a stat: the names of the series instead of their values."""
    steps: list[tuple[str, float | None]] = field(default_factory=lambda: [("green", None)])
    """Colour → value from which it holds."""

    def model(self, number: int, x: int, y: int, height: int) -> dict[str, Any]:
        """Return the panel as Grafana keeps it."""
        model: dict[str, Any] = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": height, "w": self.width, "x": x, "y": y},
            "targets": [self._target(i, query) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
        }
        return model

    def _target(self, index: int, query: Query) -> dict[str, Any]:
        return {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "format": "heatmap" if self.kind == "heatmap" else "time_series",
            "instant": self.kind == "stat",
            "range": self.kind != "stat",
        }

    def _defaults(self) -> dict[str, Any]:
        steps = [{"color": color, "value": value} for color, value in self.steps]
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "thresholds" if len(steps) > 1 else "palette-classic"},
        }
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.kind == "timeseries":
            defaults["color"] = {"mode": "palette-classic"}
            defaults["custom"] = {
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 8,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if len(steps) > 1 else "off"},
            }
        return defaults

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "textMode": "name" if self.shows_names else "auto",
                "colorMode": "background" if len(self.steps) > 1 else "value",
                "graphMode": "none",
                "justifyMode": "center",
            }
        if self.kind == "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64, "exponent": 0.5},
                "yAxis": {"unit": self.unit, "axisPlacement": "left"},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "yHistogram": True},
                "legend": {"show": False},
            }
        if self.kind == "state-timeline":
            return {
                "mergeValues": True,
                "showValue": "never",
                "rowHeight": 0.9,
                "legend": {"showLegend": False},
                "tooltip": {"mode": "single"},
            }
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Row:
    """Panels side by side under a title, wrapped where the width ends."""

    title: str
    panels: list[Panel]
    height: int = 8


def place(rows: list[Row]) -> list[dict[str, Any]]:
    """Return all panels with a number and a place each."""
    placed: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + row.height
            placed.append(panel.model(len(placed) + 1, x, y, row.height))
            x += panel.width
        y += row.height
    return placed

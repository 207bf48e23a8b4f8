"""The dashboard "Aegis": which questions it answers, with which queries.

`python -m ops.grafana.dashboard ops/grafana/dashboards/aegis.json` writes it; a test fails when
the file is not what this would write, and another asks a real Prometheus every query.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ops.grafana.inside_rows import ITSELF, POOL, PRESSURE, SERVERS
from ops.grafana.panels import DATASOURCE, place
from ops.grafana.promql import ALL
from ops.grafana.traffic_rows import CORES, GLANCE, LATENCY, TRAFFIC

ROWS = [GLANCE, TRAFFIC, LATENCY, CORES, POOL, SERVERS, PRESSURE, ITSELF]
ANNOTATIONS = {
    "Worker died": "sum by (instance, worker) "
    f"(increase(aegis_worker_restarts_total{{{ALL}}}[1m])) > 0",
    "Phase": f'aegis_phase{{{ALL},phase!="serving"}} == 1',
    "Alert": f'ALERTS{{{ALL},alertstate="firing"}}',
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana keeps it."""
    return {
        "uid": "aegis",
        "title": "Aegis",
        "description": "A layer-4 proxy for databases. The HUD at :8082 shows the last 15 minutes.",
        "tags": ["aegis", "proxy", "database"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_annotation(name, expr) for name, expr in ANNOTATIONS.items()]},
        "templating": {"list": [_datasource_variable(), _instance_variable()]},
        "panels": place(ROWS),
    }


def dashboard_text() -> str:
    """Return the dashboard as it stands in its file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _annotation(name: str, expr: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "iconColor": "red" if name != "Phase" else "blue",
        "step": "5s",
        "titleFormat": f"{name} {{{{alertname}}}}{{{{phase}}}}{{{{worker}}}}",
        "textFormat": "{{instance}}",
    }


def _datasource_variable() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "regex": "",
        "refresh": 1,
    }


def _instance_variable() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Proxy",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": "label_values(aegis_build_info, instance)", "refId": "instance"},
        "definition": "label_values(aegis_build_info, instance)",
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
    }


def main() -> None:
    """Write the file that is the only argument."""
    Path(sys.argv[1]).write_text(dashboard_text())


if __name__ == "__main__":
    main()

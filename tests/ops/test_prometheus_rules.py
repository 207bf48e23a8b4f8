"""Prometheus' own tool on our configuration, rules and their unit tests."""

import re
import subprocess
from pathlib import Path

import pytest

from aegis.metrics import CATALOGUE
from tests.proxy import needs

DIRECTORY = Path(__file__).parents[2] / "ops" / "prometheus"
RULES = DIRECTORY / "aegis.rules.yml"
UNIT_TESTS = DIRECTORY / "aegis.rules.test.yml"
OBSERVABILITY = Path(__file__).parents[2] / "docs" / "observability.md"


def promtool(*arguments: str) -> str:
    (program,) = needs("promtool")
    result = subprocess.run(
        [program, *arguments],
        cwd=DIRECTORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def test_the_configuration_and_the_rules_are_valid() -> None:
    said = promtool("check", "config", "prometheus.yml")
    assert "1 rule files found" in said
    assert "FAILED" not in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES.name)


def test_the_rules_unit_tests_pass() -> None:
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS.name)


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_has_a_unit_test_and_is_explained(alert: str) -> None:
    firing = f'{{alertname="{alert}", alertstate="firing", severity='
    assert firing in UNIT_TESTS.read_text()
    assert f"`{alert}`" in OBSERVABILITY.read_text()


def test_the_rules_use_metrics_that_exist() -> None:
    names = {metric.name for metric in CATALOGUE}
    names |= {m.name + end for m in CATALOGUE if m.bounds for end in ("_bucket", "_sum", "_count")}
    used = set(re.findall(r"(?<!:)\baegis_[a-z_]+\b(?!:|\()", RULES.read_text()))
    assert used - {"aegis_session_log_"} <= names
    assert len(used) > 15

"""The HUD under axe, as far as a program can tell what people need: no violation in either theme.

axe-core is JavaScript; the package axe-core-python carries it.
"""

import json
from importlib.resources import files
from typing import Any

import pytest

from tests.browser import Page
from tests.end_to_end.echo import Echo, Load
from tests.end_to_end.test_hud import visit
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, refuses, reserve_port

AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.timeout(300)]


@pytest.fixture
def aegis(proxies: Proxies, echo: Echo) -> Aegis:
    """A proxy with all that the page can show: raw and shared listeners, a server that refuses."""
    binds = [f"127.0.0.1:{reserve_port(proxies.own)}" for _ in range(2)]
    refused = f"127.0.0.1:{reserve_port(proxies.own)}"
    aegis = proxies.new(
        listeners={
            "raw": {"bind": binds[0]},
            "line": {"bind": binds[1], "protocol": "line", "pooling": "multiplex"},
        },
        backends={"db": {"servers": [echo.address, refused], "max_connections": 4}},
    )
    aegis.address = binds[0]
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    wait_until(lambda: not refuses(aegis.metrics), "the exporter listens")
    return aegis


def violations(page: Page) -> list[str]:
    """Return what axe has found, a line each: rule, element, what is wrong."""
    options = json.dumps({"runOnly": {"type": "tag", "values": RULES}})
    found: list[dict[str, Any]] = page.evaluate(
        f"axe.run(document, {options}).then((result) => result.violations)"
    )
    return [
        f"{each['id']}: {node['target']}: {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1440, 900)], ids=["phone", "laptop"])
def test_axe_finds_nothing_on_a_page_that_has_everything_to_show(
    page: Page, aegis: Aegis, theme: str, size: tuple[int, int]
) -> None:
    with Load(aegis.address):
        visit(page, aegis, *size)
        page.show(*size, theme)
        page.wait(f"document.documentElement.dataset.theme === '{theme}'", theme)
        servers = "document.getElementById('servers').textContent"
        page.wait(f"{servers}.includes('refused (ECONNREFUSED)')", "a server that refuses")
        page.wait("document.querySelectorAll('#events li').length > 0", "events")
        page.evaluate(AXE)
        assert violations(page) == []


def test_axe_would_find_what_is_wrong(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    page.evaluate("document.documentElement.removeAttribute('lang')")
    page.evaluate("document.getElementById('phase').style.color = 'rgb(60, 60, 60)'")
    page.evaluate(AXE)
    found = " ".join(violations(page))
    assert "html-has-lang" in found
    assert "color-contrast" in found

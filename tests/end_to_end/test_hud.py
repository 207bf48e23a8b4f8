"""The HUD in a real browser, before a real proxy under load."""

import json
import urllib.request
from typing import Any

import pytest

from tests.browser import START_S, Page
from tests.end_to_end.echo import Echo, Load
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, refuses

# One browser at a time: it takes most of a core to start.
pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.timeout(300)]

ROWS = "document.querySelectorAll('#cores tbody tr[data-key*=\"-\"]').length"
EVENTS = "document.getElementById('events').textContent"
PHASE = "document.getElementById('phase').textContent"
LINK = "document.body.dataset.link"


@pytest.fixture
def aegis(proxies: Proxies, echo: Echo) -> Aegis:
    aegis = proxies.new(echo.address)
    aegis.done("start", "--detach", "--config", str(aegis.config_file))
    wait_until(lambda: not refuses(aegis.metrics), "the exporter listens")
    return aegis


def visit(page: Page, aegis: Aegis, width: int = 1440, height: int = 900) -> None:
    """Load the page and wait until both workers are on it."""
    page.show(width, height)
    page.visit(f"http://{aegis.metrics}/")
    page.wait(f"{ROWS} === 2", "two workers on the page", START_S)


def figure(page: Page, chart: str) -> str:
    selector = f"[data-chart={chart}] .value b"
    return str(page.evaluate(f"document.querySelector('{selector}').textContent"))


def status(aegis: Aegis) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{aegis.metrics}/status.json", timeout=20) as reply:
        return json.load(reply)  # type: ignore[no-any-return]


def test_the_page_shows_a_loaded_proxy_live_and_asks_nobody_else(
    page: Page, aegis: Aegis, echo: Echo
) -> None:
    with Load(aegis.address):
        visit(page, aegis)
        server = "document.getElementById('servers').textContent"
        wait_until(lambda: figure(page, "sessions") not in {"—", "0"}, "sessions per second")
        wait_until(lambda: figure(page, "bytes") not in {"—", "0 B"}, "bandwidth")
        wait_until(lambda: figure(page, "latency") != "—", "a latency")
        page.wait(f"{server}.includes('{echo.address}') && {server}.includes('up')", "the server")
        before = page.evaluate("state.points.length")
        page.wait(f"state.points.length > {before} + 2", "further seconds")
        drawn = "document.querySelector('[data-chart=sessions] canvas')"
        ink = f"{drawn}.getContext('2d').getImageData(0, 0, {drawn}.width, {drawn}.height).data"
        assert page.evaluate(f"{ink}.some((byte) => byte > 0)")
    now = status(aegis)
    assert len(now["workers"]) == 2
    assert all(worker["load"] > 0 and worker["cpu"] >= 0 for worker in now["workers"])
    assert page.requests == [f"http://{aegis.metrics}/", f"http://{aegis.metrics}/events"]
    assert page.problems == []


def test_the_policy_lets_nothing_out_and_nothing_in(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    here = f"http://{aegis.metrics}"
    fetched = "fetch('{}').then(() => 'let out', () => 'held back')"
    assert page.evaluate(fetched.format("http://127.0.0.1:9/")) == "held back"
    assert page.evaluate(fetched.format(f"{here}/metrics")) == "let out"
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " { textContent: 'window.strange = true' }))"
    )
    assert page.evaluate("window.strange === undefined")
    page.evaluate(f"new Image().src = '{here}/metrics'")
    page.wait("true", "the browser's word")
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_what_happens_to_the_proxy_is_told_on_the_page(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    page.wait(f"{PHASE} === 'serving'", "serving")
    aegis.done("drain")
    page.wait(f"{PHASE} === 'drained' && {EVENTS}.includes('Aegis is drained')", "the drain")
    aegis.done("start")
    page.wait(f"{PHASE} === 'serving'", "serving again")
    (victim, _) = aegis.pids()
    aegis.kill(victim)
    page.wait(f"{EVENTS}.includes('Worker 0 died, restart 1')", "the death")
    page.visit(f"http://{aegis.metrics}/")
    page.wait(f"{ROWS} >= 2 && {EVENTS}.includes('Aegis is drained')", "what was", START_S)


def test_a_page_whose_exporter_dies_says_so_and_recovers_by_itself(
    page: Page, aegis: Aegis
) -> None:
    visit(page, aegis)
    exporter = aegis.status().exporter
    assert exporter is not None
    assert exporter.pid is not None
    page.wait(f"{LINK} === 'live'", "a live page")
    # The successor is there at once, so what shows is the gap and the event.
    aegis.kill(exporter.pid)
    page.wait(f"{EVENTS}.includes('The exporter died and is back')", "the successor", START_S)
    page.wait(f"{LINK} === 'live'", "a live page")
    exporter = aegis.status().exporter
    config = aegis.config_file.read_text()
    aegis.config_file.write_text(config.replace("[log]", '[log]\nformat = "json"'))
    aegis.done("reload")
    wait_until(lambda: aegis.status().exporter != exporter, "an exporter of the new configuration")
    page.wait(f"{EVENTS}.includes('Worker 1 is replaced')", "the reload", START_S)
    told = [event["text"] for event in status(aegis)["events"]]
    assert told.count("The exporter died and is back, restart 1") == 1, told
    assert not [text for text in told if "Worker" in text and "is replaced" not in text], told
    aegis.done("stop")
    page.wait(f"{LINK} === 'lost'", "a page that knows that it is old", START_S)


def test_the_page_is_used_by_keyboard_and_says_what_it_shows(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    page.wait("state.points.length > 5", "some seconds")
    page.evaluate("document.querySelector('[data-chart=sessions] canvas').focus()")
    said = "document.activeElement.getAttribute('aria-valuetext')"
    assert page.evaluate(said).startswith("now, ")
    for _ in range(3):
        page.press("ArrowLeft")
    spoken = page.evaluate(said)
    assert spoken.split(",")[0].count(":") == 2, spoken
    assert "open" in spoken
    assert page.evaluate("document.getElementById('link').textContent").startswith("at ")
    page.press("Escape")
    assert page.evaluate(said).startswith("now, ")
    page.evaluate("document.getElementById('theme').focus()")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.press("Enter")
    page.wait(f"{theme} === 'light'", "the light theme")
    page.visit(f"http://{aegis.metrics}/")
    page.wait(f"{theme} === 'light' && {ROWS} === 2", "the theme that was chosen", START_S)


def test_a_long_error_hides_no_number_of_its_server(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    page.evaluate(
        "{ const now = structuredClone(state.now), server = now.backends[0].servers[0];"
        " Object.assign(server, { health: 'down', since: 1, name: 'a-server-of-some-name',"
        " error: 'the reply was not what is expected: ' + '-NOAUTH_Authentication_'.repeat(9) });"
        " now.listeners[0].closed_per_s = { connect_failed: 4, client_reset: 2, queue_timeout: 3 };"
        " state.now = now; showTables(now); showTables = () => {}; }"
    )
    over = (
        "[...document.querySelectorAll('.scroll:has(table)')]"
        ".map((box) => box.scrollWidth - box.clientWidth)"
    )
    for width in (1280, 1400, 1920, 2800, 3840):
        page.show(width, 900)
        page.wait(f"innerWidth === {width}", "the window's size")
        assert page.evaluate(over) == [0, 0, 0], f"tables are cut at {width}"


def test_the_page_follows_the_systems_theme_and_fits_every_screen(page: Page, aegis: Aegis) -> None:
    visit(page, aegis)
    for theme in ("light", "dark"):
        page.show(1440, 900, theme)
        page.wait(f"document.documentElement.dataset.theme === '{theme}'", theme)
    for width, height in ((320, 640), (390, 844), (820, 1180), (1440, 900), (3840, 2160)):
        page.show(width, height)
        page.wait(f"innerWidth === {width}", "the window's size")
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{over} pixels too wide at {width}"
        canvas = "document.querySelector('[data-chart=bytes] canvas').clientHeight"
        assert page.evaluate(canvas) >= 60
    page.show(1440, 900)
    page.wait("innerHeight === 900", "the window's size")
    assert page.evaluate("document.documentElement.scrollHeight") <= 900, "a wall cannot scroll"

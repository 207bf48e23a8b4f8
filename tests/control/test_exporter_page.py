"""The HUD's document: self-contained, allowed by its own policy, readable in both themes."""

import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest

from aegis.limits import HISTORY_S
from control.exporter.document import read_document
from tests.control.exporters import Place, made_place

PAGE = files("control.exporter") / "page"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place() -> Iterator[Place]:
    with made_place() as place:
        yield place


def test_everything_the_page_is_made_of_is_inside_it() -> None:
    body = read_document().body.decode()
    assert not re.search(r"<(script|link rel=.stylesheet.)[^>]*(src|href)=", body)
    for name in ("hud.css", "format.js", "charts.js", "panels.js", "hud.js"):
        assert (PAGE / name).read_text() in body
    foreign = set(re.findall(r"\b(?:https?:)?//[a-z][\w.-]+\.\w+", body))
    assert foreign == {"http://www.w3.org"}, "the name of SVG, which nobody loads"
    assert "innerHTML" not in body
    assert not re.search(r"<[^>]+\sstyle=", body), "the policy forbids it"


def test_the_policy_names_exactly_the_scripts_and_styles_of_the_page() -> None:
    document = read_document()
    body = document.body.decode()
    inside = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", body, re.DOTALL)
    hashes = {b64encode(sha256(text.encode()).digest()).decode() for text in inside}
    assert set(re.findall(r"'sha256-([^']+)'", document.policy)) == hashes
    assert len(inside) == 5
    assert "unsafe" not in document.policy
    assert "default-src 'none'" in document.policy


def test_the_policy_and_no_store_are_on_every_answer(place: Place) -> None:
    exporter = place.serving()
    for path in ("/", "/status.json", "/healthz", "/nowhere"):
        headers = exporter.ask(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    assert exporter.ask("/", "POST", b"x").status == 405
    assert exporter.ask("/events", "POST", b"x").status == 405
    assert exporter.ask("/events", "HEAD").headers["Content-Type"] == "text/event-stream"


def test_the_page_is_part_of_an_installed_package() -> None:
    """By the pattern of package data, which must match all that is in the directory."""
    project = (ROOT / "pyproject.toml").read_text()
    assert "exporter/page/*" in project
    tracked = subprocess.run(
        ["git", "ls-files", "control/exporter/page"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert {Path(name).name for name in tracked} == {entry.name for entry in PAGE.iterdir()}


def test_the_script_looks_back_as_far_as_the_exporter_remembers() -> None:
    assert f'"aria-valuemin": -{HISTORY_S}' in (PAGE / "hud.js").read_text()


# --- colours ---------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb: https://www.w3.org/TR/WCAG22/."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="light"] {'])
def test_all_text_can_be_read(theme: str) -> None:
    block = (PAGE / "hud.css").read_text().split(theme, 1)[1].split("}", 1)[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    on_card = ("text", "dim", "one", "two", "tail", "good", "warn", "bad")
    pairs = [(name, "card") for name in on_card] + [(name, "ground") for name in on_card]
    pairs += [("warn", "warn-ground"), ("bad", "bad-ground")]
    poor = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in poor.items() if ratio < 4.5} == {}

"""The table of nginx's stream cases names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_table_names_is_there() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    rows = re.findall(r"^\| `stream_.*$", text, re.MULTILINE)
    named = {path for row in rows for path in re.findall(r"`(tests/[^`]+)`", row)}
    assert len(rows) >= 10
    assert not [path for path in sorted(named) if not (ROOT / path).is_file()]

"""The problems of one configuration file, as the lines its user reads.

Each is `FILE: KEY.PATH = VALUE: what is allowed`. A key path has the TOML keys, joined by dots; the
first [[listener]] of the file is `listener[0]`. A line is a line: nothing in a value breaks it.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches

MAX_VALUE_CHARS = 60
_MAX_SHOWN_BITS = 200  # Python refuses to write integers of thousands of digits in decimal
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Problems:
    """Collects lines; `file` is named as the user named it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: list[str] = []

    def about_value(self, path: str, value: object, allowed: str) -> None:
        """Add that the value at `path` is not what is `allowed`."""
        self.lines.append(f"{self.file}: {path} = {show_value(value)}: {allowed}")

    def about_key(self, path: str, text: str) -> None:
        """Add what is wrong with a key whatever its value: that it is missing or unknown."""
        self.lines.append(f"{self.file}: {path}: {text}")

    def about_file(self, text: str) -> None:
        """Add why the file could not be read as TOML at all."""
        self.lines.append(f"{self.file}: {text}")


def key_path(table: str, key: str) -> str:
    """Join the path of a table, empty for the root, and a key in it, quoted where TOML would."""
    shown = key if _BARE_KEY.fullmatch(key) else _cut(_quote(key))
    return f"{table}.{shown}" if table else _cut(shown)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` with the nearest known word, or nothing if none is near."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {_quote(near[0])}?" if near else ""


def one_of(words: Iterable[str], last: str = "or") -> str:
    """Write words as `"a", "b" or "c"`."""
    *head, tail = (_quote(word) for word in words)
    return f"{', '.join(head)} {last} {tail}" if head else tail


def show_value(value: object) -> str:
    """Write a value about as TOML does, on one line, cut at MAX_VALUE_CHARS."""
    return _cut(_toml(value))


def _toml(value: object, nested: bool = False) -> str:
    match value:
        case str():
            return _quote(value[: MAX_VALUE_CHARS + 1])
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _MAX_SHOWN_BITS:
            return f"an integer of {value.bit_length()} bits"
        case dict():
            return "{…}" if value else "{}"
        case list() if nested:
            return "[…]" if value else "[]"
        case list():
            return f"[{', '.join(_toml(v, nested=True) for v in value[:MAX_VALUE_CHARS])}]"
        case _:
            return str(value)  # int, float, and the dates, whose str is their TOML


def _quote(text: str) -> str:
    # JSON's escapes are TOML's too, but it leaves DEL and what a terminal may not show.
    return "".join(
        c if c.isprintable() else json.dumps(c)[1:-1].replace("\x7f", "\\u007f")
        for c in json.dumps(text, ensure_ascii=False)
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"

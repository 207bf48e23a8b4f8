"""The HUD's page: one document with its style and scripts inside, made once from page/.

It asks for nothing but its own /events. The Content-Security-Policy says so to the browser and
names the only scripts and styles there may be, by their SHA-256 (https://www.w3.org/TR/CSP3/).
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

_INCLUDE = re.compile(
    r'<(?:link rel="stylesheet" href|script src)="(\w+\.(css|js))"(?: />|></script>)'
)


class Document(NamedTuple):
    """What the browser gets."""

    body: bytes
    policy: str


def read_document() -> Document:
    """Return the page with everything it is made of inside."""
    page = files("control.exporter") / "page"
    hashes: dict[str, list[str]] = {"css": [], "js": []}

    def inline(match: re.Match[str]) -> str:
        name, kind = match[1], match[2]
        text = "\n" + (page / name).read_text()
        digest = b64encode(sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
        return f"<style>{text}</style>" if kind == "css" else f"<script>{text}</script>"

    body = _INCLUDE.sub(inline, (page / "index.html").read_text())
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['js'])}; "
        f"style-src {' '.join(hashes['css'])}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Document(body.encode(), policy)

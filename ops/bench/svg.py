"""Plots as SVG: horizontal bars, a colour for each part, no library.

A bar may be in parts (user and system time); its whole is written beside it. Colours are told apart
by those who see few, and the text is dark on a white ground in any theme.
"""

from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LABEL, VALUE = 760, 130, 90
BAR, GAP, TOP, BOTTOM = 18, 8, 62, 14
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


class Bar(NamedTuple):
    """One line of a plot."""

    label: str
    parts: tuple[float, ...]
    text: str


def plot(title: str, unit: str, part_names: tuple[str, ...], bars: list[Bar]) -> str:
    """Return an SVG document; the longest bar has the whole width."""
    longest = max((sum(bar.parts) for bar in bars), default=0.0) or 1.0
    scale = (WIDTH - LABEL - VALUE) / longest
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        *_legend(unit, part_names),
    ]
    for index, bar in enumerate(bars):
        lines += _bar(bar, TOP + index * (BAR + GAP), scale)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _legend(unit: str, part_names: tuple[str, ...]) -> list[str]:
    lines = [f'<text x="12" y="44">{escape(unit)}, less is better</text>']
    for index, name in enumerate(part_names):
        x = WIDTH - VALUE * (len(part_names) - index)
        lines.append(f'<rect x="{x}" y="35" width="10" height="10" fill="{COLOURS[index]}"/>')
        lines.append(f'<text x="{x + 15}" y="44">{escape(name)}</text>')
    return lines


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    middle = y + BAR - 5
    lines = [f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>']
    x = float(LABEL)
    for part, colour in zip(bar.parts, COLOURS, strict=False):
        width = max(0.0, part) * scale
        lines.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        )
        x += width
    lines.append(f'<text x="{x + 6:.1f}" y="{middle}">{escape(bar.text)}</text>')
    return lines

"""The tables of `aegis-ctl top`: which columns fit a width, and which rows of each a height. Pure.

Nothing is cut in silence. A heading is whole or its column is left out; only names and errors are
shortened. Rows that are left out are counted in a last one, and all tables give way alike.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

_NAME_WIDTH = 16
"""A name may be shortened to that before an important column goes."""
_LONG_NAME_WIDTH = 32
"""The same before any other column goes."""
_IMPORTANT = 50
"""Rank below which a column is important."""
_TEXT_WIDTH = 12
"""The same for the text of a last column."""
_GAP = 2
_LEAST = 3
"""Lines of a table that leaves rows out: headings, one row, and how many more there are."""


class Column(NamedTuple):
    """One column; the higher its rank, the earlier a narrow terminal goes without it."""

    title: str
    rank: int
    cell: Callable[[Any], str]
    short: str = ""
    """The heading where there is no room for the title."""
    text: bool = False
    """To the left, and cut if it is the last one."""


class Block(NamedTuple):
    """One table's worth of rows, those first that are to be seen."""

    name: str
    """Of a row in the plural."""
    columns: list[Column]
    rows: list[Any]
    by: str = ""
    """Their order, if it is worth saying."""


def lines_of(blocks: Sequence[Block], room: int) -> list[int]:
    """Return how many lines each block may have, its headings included, in `room` lines.

    The last gives way last: a block that has no room for a row is one line that counts them.
    """
    wants = [1 + len(block.rows) for block in blocks]
    lines = [min(_LEAST, want) for want in wants]
    for at in range(len(blocks)):
        if sum(lines) > room:
            lines[at] = 1
    for at in cycle(reversed(range(len(blocks)))):
        wanting = [i for i, want in enumerate(wants) if lines[i] != 1 and lines[i] < want]
        if sum(lines) >= room or not wanting:
            return lines
        lines[at] += at in wanting
    return lines


def table_of(block: Block, width: int, lines: int | None = None) -> list[Table | Text]:
    """Return what to show of a block in so many lines, headings included; None: everything."""
    rows = block.rows
    if lines is not None and lines < 1 + len(rows):
        rows = rows[: max(0, lines - 2)]
    left = len(block.rows) - len(rows)
    more = "more " if rows else ""
    order = f" by {block.by}" if block.by else ""
    rest = Text(f"… {left} {more}{block.name}{order}", style="dim", no_wrap=True)
    if left and not rows:
        return [rest]
    return [_table(block.columns, rows, width), *([rest] if left else [])]


def _table(columns: list[Column], rows: list[Any], width: int) -> Table:
    titles, cells, widths = _fit(columns, rows, width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for at, (title, column) in enumerate(titles):
        side: JustifyMethod = "left" if column.text else "right"
        table.add_column(title, justify=side, no_wrap=True, width=widths[at])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _fit(
    columns: list[Column], rows: list[Any], width: int
) -> tuple[list[tuple[str, Column]], list[list[Text]], list[int]]:
    """Return headings, cells by column, and widths that are together no wider than `width`.

    First headings get shorter, then columns go that are not important, then names get shorter.
    """
    shown = [(column, [Text.from_markup(column.cell(row)) for row in rows]) for column in columns]
    while True:
        last = len(shown) == 1
        important = all(column.rank < _IMPORTANT for column, _ in shown)
        for short, cut in ((False, False), (True, False), (True, True))[: 3 if important else 2]:
            titles = [(c.short or c.title if short else c.title, c) for c, _ in shown]
            texts = [texts for _, texts in shown]
            natural = [
                max([len(title), *(text.cell_len for text in each)])
                for (title, _), each in zip(titles, texts, strict=True)
            ]
            least = _least(titles, natural, cut=cut)
            free = width - sum(least) - _GAP * (len(shown) - 1)
            if free >= 0 or (cut and last):
                widths = _widen(least, natural, max(0, free))
                for each, wide in zip(texts, widths, strict=True):
                    for text in each:
                        _shorten(text, wide)
                return titles, texts, widths
        del shown[max(range(len(shown)), key=lambda at: (shown[at][0].rank, at))]


def _least(titles: list[tuple[str, Column]], natural: list[int], *, cut: bool) -> list[int]:
    least = list(natural)
    least[0] = min(natural[0], _NAME_WIDTH if cut else _LONG_NAME_WIDTH)
    title, column = titles[-1]
    if len(titles) > 1 and column.text:
        least[-1] = max(len(title), min(natural[-1], _TEXT_WIDTH))
    return least


def _widen(least: list[int], natural: list[int], free: int) -> list[int]:
    """Give what is free to the columns that were cut, the first one first."""
    widths = list(least)
    for at, want in enumerate(natural):
        more = min(free, want - widths[at])
        widths[at] += more
        free -= more
    return widths


def _shorten(text: Text, width: int) -> None:
    """Leave out the middle: what tells names apart is at their ends."""
    if text.cell_len > width:
        tail = (width - 1) // 2
        plain = text.plain
        text.plain = f"{plain[: width - 1 - tail]}…{plain[len(plain) - tail :]}"

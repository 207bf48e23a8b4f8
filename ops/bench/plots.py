"""Which figures of a row become bars."""

from ops.bench import medians, svg
from ops.bench.data import Run
from ops.bench.report import number, peers_of
from ops.bench.rows import BY_NAME, Row

_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "cpu": (("user", "system"), ("user", "system"), "proxy CPU, {unit}"),
    "bytes": (("bytes",), (), "{unit}"),
    "p99_ms": (("p99_ms",), (), "p99 latency, ms"),
}


def _plot(run: Run, row: Row) -> str | None:
    figures, names, heading = _PARTS[row.kind.main]
    decimals = next(c.decimals for c in row.kind.columns if c.name == row.kind.main)
    bars = []
    for peer in peers_of(run, row.name):
        whole = medians.median(run, row.name, peer, row.kind.main)
        parts = [medians.median(run, row.name, peer, name) for name in figures]
        if whole and None not in parts:
            known = tuple(part for part in parts if part is not None)
            bars.append(svg.Bar(peer, known, number(whole, decimals)))
    if not bars:
        return None
    unit = heading.format(unit=row.kind.unit)
    return svg.plot(row.title.replace("`", ""), unit, names, bars)


def plots(run: Run) -> dict[str, str]:
    """Return an SVG for each row that has figures."""
    drawn = {name: _plot(run, BY_NAME[name]) for name in run.settings.rows if name in BY_NAME}
    return {name: text for name, text in drawn.items() if text is not None}

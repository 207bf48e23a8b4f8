"""The report: what a run's data says, as docs/benchmarks.md."""

from collections.abc import Iterable, Iterator

from ops.bench import medians, peers, rows, targets
from ops.bench.data import Run

PREFACE = """\
# Benchmarks

Written by `make bench` from [benchmarks.json]({data}); do not edit. `python -m ops.bench --from
FILE` makes this page and the plots again from such a file.

Aegis and its peers, each with one worker pinned to one core, load and server on another (unless a
row's title says where the server is), all over loopback. Every measurement has a server and a proxy
of its own, started for it. In each round every peer is measured once, and the order turns from
round to round; figures are medians of the rounds. A ratio is taken within each round, and its
median is told with its range.

CPU is that of all processes and threads of the proxy, from their CPU clocks: exact in sum; the
division into user and system time is sampled by the kernel's tick. Connecting is not in the figures
of round trips (it is measured apart and taken off), nor the start of any process. A request counts
only if the server counted it and its answer was the right one; a measurement with a failed request
has no figures, and is listed with its reason.

Latencies of `redis-benchmark` and `ab` are those of a closed loop, which waits with its next
request while a proxy stalls: compare them only with each other. The open loop sends when a request
is due and counts from then. How late the load itself was is told beside it: below that, a latency
is the load's and not the proxy's.

"""


def _table(head: list[str], lines: Iterable[list[str]]) -> str:
    all_lines = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in all_lines)


def number(value: float | None, decimals: int) -> str:
    """Return a figure as the tables show it."""
    return "" if value is None else f"{value:,.{decimals}f}"


def ratio_text(ratio: medians.Ratio | None) -> str:
    """Return a ratio with its range."""
    if ratio is None:
        return "no data"
    spread = f" ({ratio.least:.2f} to {ratio.most:.2f})" if ratio.rounds > 1 else ""
    return f"{ratio.median:.2f}{spread}"


def holds_text(holds: bool | None) -> str:
    """Return a verdict in a word."""
    return {True: "yes", False: "**no**", None: "not measured"}[holds]


def targets_head() -> list[str]:
    """Return the headings of `target_lines`."""
    return ["load", "row", "Aegis", "against", "ratio (range)", "target", "holds"]


def target_lines(run: Run) -> Iterator[list[str]]:
    """Return the targets beside the ratios, of the rows that were measured."""
    for verdict in targets.verdicts(run):
        target = verdict.target
        if verdict.row not in run.settings.rows:
            continue
        against = verdict.rival + (f", {target.rival_row}" if target.rival_row else "")
        figure = {"cpu": "", "rate": "", "bytes": ""}.get(target.figure, f", {target.figure}")
        yield [
            target.load + figure.replace("_ms", "").replace("p999", "p99.9"),
            verdict.row,
            target.ours,
            against,
            ratio_text(verdict.ratio),
            f"{'≥' if target.more_is_better else '≤'} {target.bound:.2f}",
            holds_text(verdict.holds),
        ]


def peers_of(run: Run, row: str) -> list[str]:
    """Return who has figures in a row, in the order of the peers."""
    return [peer for peer in run.settings.peers if run.figures_of(row, peer)]


def row_head(row: rows.Row) -> list[str]:
    """Return the headings of `row_lines`."""
    compared = next(c.heading.split(",")[0] for c in row.kind.columns if c.name == row.kind.main)
    return ["", *(column.heading for column in row.kind.columns), f"{compared} to haproxy"]


def row_lines(run: Run, row: rows.Row) -> Iterator[list[str]]:
    """Return a row's medians, a line for each peer, and its main figure against HAProxy's."""
    for peer in peers_of(run, row.name):
        line = [
            number(medians.median(run, row.name, peer, column.name), column.decimals)
            for column in row.kind.columns
        ]
        ratio = medians.ratio(run, row.kind.main, (row.name, peer), (row.name, "haproxy"))
        yield [peer, *line, "" if ratio is None or peer == "direct" else ratio_text(ratio)]


def failure_lines(run: Run, row: str) -> list[str]:
    """Return why a peer has no figures in some rounds, a line for each reason."""
    lines = []
    for peer in run.settings.peers:
        by_reason: dict[str, int] = {}
        for outcome in run.failures_of(row, peer):
            reason = " ".join((outcome.failure or "").split())
            by_reason[reason] = by_reason.get(reason, 0) + 1
        lines += [
            f"{peer}: no figures in {count} of {run.settings.rounds} rounds: {reason}"
            for reason, count in by_reason.items()
        ]
    return lines


def _about(run: Run) -> Iterator[str]:
    settings = run.settings
    size = "small (QUICK): for a look, not for quoting" if settings.quick else "full"
    facts = {**run.machine, "rounds": str(settings.rounds), "size": size}
    yield "## Where and how\n\n" + _table(["", ""], [[k, v] for k, v in facts.items()]) + "\n"
    shown = [peers.BY_NAME[name] for name in settings.peers if name in peers.BY_NAME]
    lines = [[peer.name, peer.settings.replace("|", "\\|")] for peer in shown]
    yield _table(["peer", "set as its documentation says it runs fastest"], lines) + "\n"
    yield _table(["program", "version"], [[k, v] for k, v in run.versions.items()]) + "\n"
    for name, reason in settings.left_out.items():
        yield f"Left out: {name}, {reason}.\n\n"


def markdown(run: Run, data_name: str, plots: dict[str, str]) -> str:
    """Return the page; `plots` has for each row where its plot is."""
    parts = [PREFACE.format(data=data_name)]
    lines = list(target_lines(run))
    holding = sum(line[-1] == "yes" for line in lines)
    parts.append(f"## Targets\n\n{holding} of {len(lines)} hold in this run.\n\n")
    parts.append(_table(targets_head(), lines) + "\n")
    parts += _about(run)
    for name in run.settings.rows:
        row = rows.BY_NAME.get(name)
        if row is None:
            continue
        parts.append(f"## {row.title}\n\n")
        if name in plots:
            parts.append(f"![{row.title}]({plots[name]})\n\n")
        parts.append(_table(row_head(row), row_lines(run, row)) + "\n")
        parts += [f"- {line}\n" for line in failure_lines(run, name)]
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"

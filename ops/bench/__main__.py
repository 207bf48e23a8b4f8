"""Aegis and its peers side by side: `make bench`, or `python -m ops.bench --help`.

A whole run writes docs/benchmarks.md, docs/benchmarks.json and docs/benchmarks/*.svg. One of chosen
rows or peers, or a quick one, writes the same below build/bench, so that published figures are only
replaced by whole ones. The data so far is written there after every row, so that a run that is
interrupted is not lost.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ops.bench import machine, peers, plots, report, rounds, rows
from ops.bench.data import Outcome, Run, Settings, load, save
from ops.bench.processes import LOAD_CPU, PROXY_CPU, raise_fd_limit
from ops.bench.rounds import Step

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / "build" / "bench"
ROUNDS = 5
FILE_WIDTH = 170
"""Columns of what is printed into a file or a pipe."""


def words(text: str) -> list[str]:
    """Split at commas and blanks."""
    return text.replace(",", " ").split()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description="Benchmarks.")
    parser.add_argument("--rows", type=words, default=[], help=", ".join(rows.BY_NAME))
    parser.add_argument("--peers", type=words, default=[], help=", ".join(peers.BY_NAME))
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS}; of a quick run 1")
    parser.add_argument("--quick", action="store_true", help="small sizes: about three minutes")
    parser.add_argument("--out", type=Path, help="where to write; docs for a whole run")
    parser.add_argument("--from", dest="data", type=Path, help="only write, from this data file")
    options = parser.parse_args(arguments)
    try:
        options.rows = rows.chosen(options.rows)
    except ValueError as error:
        parser.error(str(error))
    if unknown := [name for name in options.peers if name not in peers.BY_NAME]:
        parser.error(f"no peer {unknown[0]!r}; there are: {', '.join(peers.BY_NAME)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    return options


def is_whole(run: Run) -> bool:
    """Whether a run is one to publish."""
    settings = run.settings
    everybody = {*settings.peers, *settings.left_out} >= set(peers.BY_NAME)
    return everybody and set(settings.rows) >= set(rows.BY_NAME) and not settings.quick


def prepare(options: argparse.Namespace, console: Console) -> tuple[Run, list[Step]]:
    """Find out who takes part, say so, and how long it is going to take."""
    asked = [peer for peer in peers.PEERS if not options.peers or peer.name in options.peers]
    left_out = {peer.name: why for peer in asked if (why := peers.missing(peer))}
    taking_part = [peer for peer in asked if peer.name not in left_out]
    count = options.rounds or (1 if options.quick else ROUNDS)
    settings = Settings(
        rounds=count,
        quick=options.quick,
        rows=[row.name for row in options.rows],
        peers=[peer.name for peer in taking_part],
        left_out=left_out,
    )
    run = Run(machine.describe(), machine.versions(taking_part), settings, [])
    steps = rounds.plan(options.rows, taking_part, count)
    for name, why in left_out.items():
        console.print(f"left out: {name}: {why}")
    if PROXY_CPU == LOAD_CPU:
        console.print("one core only: proxy, load and server share it; the figures say little")
    minutes = rounds.estimate_s(steps, options.quick) / 60
    console.print(
        f"{len(steps)} measurements: {len(options.rows)} rows, {len(taking_part)} peers, "
        f"{count} rounds; about {minutes:.0f} minutes on a quiet machine"
    )
    return run, steps


def measure(run: Run, steps: list[Step], scratch: Path, console: Console) -> None:
    """Make the measurements, showing how far they are; save the data so far after every row."""
    scratch.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    quick = run.settings.quick
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        task = progress.add_task("", total=rounds.estimate_s(steps, quick))
        left = {row: sum(step.row.name == row for step in steps) for row in run.settings.rows}

        def done(step: Step, outcome: Outcome) -> None:
            run.outcomes.append(outcome)
            progress.advance(task, rounds.estimate_s([step], quick))
            told = outcome.failure or ", ".join(
                f"{name} {value:.4g}" for name, value in outcome.figures.items()
            )
            where = f"{step.row.name} round {step.round + 1} {step.peer.name}"
            progress.console.print(f"{where}: {told}", markup=False, highlight=False)
            progress.update(task, description=step.row.name)
            left[step.row.name] -= 1
            if not left[step.row.name]:
                save(run, scratch / "benchmarks.json")

        rounds.run_all(steps, quick, done)


def write(run: Run, out: Path) -> None:
    """Write the data, the page and the plots."""
    folder = out / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    save(run, out / "benchmarks.json")
    drawn = plots.plots(run)
    for name, text in drawn.items():
        (folder / f"{name}.svg").write_text(text)
    places = {name: f"benchmarks/{name}.svg" for name in drawn}
    (out / "benchmarks.md").write_text(report.markdown(run, "benchmarks.json", places))


def show(run: Run, console: Console) -> None:
    """Print the medians, the failures and the targets."""
    for name in run.settings.rows:
        row = rows.BY_NAME[name]
        _print(console, row.title, report.row_head(row), list(report.row_lines(run, row)))
        for line in report.failure_lines(run, name):
            console.print(line, markup=False)
    lines = list(report.target_lines(run))
    if lines:
        _print(console, "Targets", report.targets_head(), lines)


def _print(console: Console, title: str, head: list[str], lines: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(head):
        table.add_column(heading, justify="left" if index == 0 else "right")
    for line in lines:
        table.add_row(*(cell.replace("**", "") for cell in line))
    console.print(table)


def main() -> int:
    """Run, print and write; return the exit code.

    1 if a measurement of Aegis failed, 130 if the run was interrupted.
    """
    options = parse(sys.argv[1:])
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    interrupted = False
    if options.data:
        run = load(options.data)
        out = options.out or options.data.parent
    else:
        raise_fd_limit()
        run, steps = prepare(options, console)
        os.sched_setaffinity(0, {LOAD_CPU})
        scratch = options.out or SCRATCH
        out = options.out or (ROOT / "docs" if is_whole(run) else SCRATCH)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, too
        try:
            measure(run, steps, scratch, console)
        except KeyboardInterrupt:
            console.print("interrupted: what follows is of the measurements that were made")
            out, interrupted = scratch, True
    write(run, out)
    show(run, console)
    console.print(f"written: {out}/benchmarks.md, benchmarks.json, benchmarks/*.svg")
    if interrupted:
        return 130
    return int(any(o.failure for o in run.outcomes if o.peer.startswith("aegis-")))


if __name__ == "__main__":
    sys.exit(main())

"""Medians, ratios, targets and the page, from data made by hand."""

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from ops.bench import medians, peers, plots, report, rounds, rows, targets
from ops.bench.__main__ import is_whole, parse
from ops.bench.data import Outcome, Run, Settings, load, save
from ops.bench.open_loop import percentile


def run_of(*outcomes: Outcome, row_names: tuple[str, ...] = ("rt-100",)) -> Run:
    names = list(dict.fromkeys(outcome.peer for outcome in outcomes))
    settings = Settings(3, True, list(row_names), names, {"nginx": "nginx is not installed"})
    return Run({"kernel": "Linux 6"}, {"ab": "2.3"}, settings, list(outcomes))


def cpu(peer: str, number: int, user: float, system: float, row: str = "rt-100") -> Outcome:
    return Outcome(row, peer, number, {"user": user, "system": system, "rate": 10.0})


def test_a_median_leaves_out_rounds_that_failed() -> None:
    run = run_of(
        cpu("haproxy", 0, 1, 2),
        Outcome("rt-100", "haproxy", 1, failure="it ended"),
        cpu("haproxy", 2, 2, 3),
    )
    assert medians.median(run, "rt-100", "haproxy", "cpu") == 4.0
    assert medians.median(run, "rt-100", "nginx", "cpu") is None
    assert medians.median(run, "rt-10", "haproxy", "cpu") is None


def test_a_ratio_is_taken_within_rounds_and_not_across_them() -> None:
    """The second round met twice the noise; both sides did, so the ratio stays."""
    run = run_of(
        cpu("aegis-off", 0, 1, 1), cpu("haproxy", 0, 2, 2),
        cpu("aegis-off", 1, 2, 2), cpu("haproxy", 1, 4, 4),
        cpu("aegis-off", 2, 9, 9),
    )  # fmt: skip
    found = medians.ratio(run, "cpu", ("rt-100", "aegis-off"), ("rt-100", "haproxy"))
    assert found == medians.Ratio(0.5, 0.5, 0.5, 2)


def test_a_ratio_to_nothing_is_no_ratio() -> None:
    run = run_of(cpu("aegis-off", 0, 1, 1), cpu("direct", 0, 0, 0))
    assert medians.ratio(run, "cpu", ("rt-100", "aegis-off"), ("rt-100", "direct")) is None


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)]
)
def test_percentiles_are_of_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def verdict_of(run: Run, load_name: str, rival: str) -> targets.Verdict:
    (found,) = [
        verdict
        for verdict in targets.verdicts(run)
        if (verdict.target.load, verdict.rival) == (load_name, rival)
        and verdict.row == run.settings.rows[0]
        and verdict.target.ours == "aegis-off"
    ]
    return found


@pytest.mark.parametrize(("ours", "holds"), [(3.9, True), (4.1, False)])
def test_a_target_holds_up_to_its_bound(ours: float, holds: bool) -> None:
    run = run_of(cpu("aegis-off", 0, 0, ours), cpu("haproxy", 0, 1, 3))
    assert verdict_of(run, "round trips, raw", "haproxy").holds is holds
    assert verdict_of(run, "round trips, raw", "nginx").holds is None


def test_bulk_is_held_against_the_best_of_the_rivals() -> None:
    def bulk(peer: str, user: float, rate: float) -> Outcome:
        return Outcome("bulk-1-up", peer, 0, {"user": user, "system": 0.0, "rate": rate})

    run = run_of(
        bulk("aegis-off", 0.5, 1.5), bulk("haproxy", 0.7, 1.0), bulk("envoy-tcp", 0.4, 2.0),
        row_names=("bulk-1-up",),
    )  # fmt: skip
    assert verdict_of(run, "bulk, raw", "envoy-tcp").holds is False
    assert verdict_of(run, "bulk, raw: throughput", "envoy-tcp").holds is False
    run.outcomes.pop()
    assert verdict_of(run, "bulk, raw", "haproxy").holds is True
    assert verdict_of(run, "bulk, raw: throughput", "haproxy").holds is True


def test_5000_connections_are_held_against_100_of_the_same_proxy() -> None:
    run = run_of(
        cpu("aegis-off", 0, 5, 8, "rt-5000"), cpu("aegis-off", 0, 5, 5, "rt-100"),
        row_names=("rt-5000", "rt-100"),
    )  # fmt: skip
    found = verdict_of(run, "5,000 connections against 100", "aegis-off")
    assert found.ratio is not None
    assert found.ratio.median == 1.3
    assert found.holds is False


def test_every_target_is_of_a_row_a_peer_and_a_figure_that_are_measured() -> None:
    for target in targets.TARGETS:
        for name in (*target.rows, *filter(None, [target.rival_row])):
            assert target.figure in {column.name for column in rows.BY_NAME[name].kind.columns}
            for peer in (target.ours, *target.rivals):
                assert rows.BY_NAME[name].family in peers.BY_NAME[peer].families


def test_the_page_has_ratios_failures_and_who_was_left_out() -> None:
    run = run_of(
        cpu("aegis-off", 0, 1, 1), cpu("haproxy", 0, 2, 2),
        Outcome("rt-100", "asyncio", 0, failure="redis-benchmark: timed\nout"),
    )  # fmt: skip
    drawn = plots.plots(run)
    page = report.markdown(run, "benchmarks.json", {"rt-100": "benchmarks/rt-100.svg"})
    assert "| round trips, raw | rt-100 | aegis-off | haproxy | 0.50 | ≤ 1.00 | yes |" in page
    assert "asyncio: no figures in 1 of 3 rounds: redis-benchmark: timed out" in page
    assert "Left out: nginx, nginx is not installed." in page
    assert "](benchmarks/rt-100.svg)" in page
    assert "small (QUICK)" in page
    bars = ElementTree.fromstring(drawn["rt-100"]).findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 2 + 2 * 2  # the ground, the legend, two parts of two bars


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    run = run_of(cpu("haproxy", 0, 1, 2), Outcome("rt-100", "asyncio", 0, failure="why"))
    save(run, tmp_path / "run.json")
    assert msgspec.to_builtins(load(tmp_path / "run.json")) == msgspec.to_builtins(run)


def test_rounds_are_interleaved_and_the_order_turns() -> None:
    three = [peers.BY_NAME[name] for name in ("direct", "haproxy", "asyncio")]
    steps = rounds.plan([rows.BY_NAME["churn"], rows.BY_NAME["idle"]], three, 2)
    assert [(s.row.name, s.round, s.peer.name) for s in steps] == [
        ("churn", 0, "direct"), ("churn", 0, "haproxy"), ("churn", 0, "asyncio"),
        ("churn", 1, "haproxy"), ("churn", 1, "asyncio"), ("churn", 1, "direct"),
        ("idle", 0, "haproxy"), ("idle", 0, "asyncio"),
        ("idle", 1, "asyncio"), ("idle", 1, "haproxy"),
    ]  # fmt: skip


def test_only_what_speaks_a_rows_protocol_takes_part() -> None:
    names = {s.peer.name for s in rounds.plan([rows.BY_NAME["bulk-1-up"]], list(peers.PEERS), 1)}
    assert {"direct", "aegis-off", "haproxy", "floor"} <= names
    assert not names & {"aegis-multiplex", "aegis-session", "twemproxy", "envoy-redis"}


def test_rows_are_chosen_by_name_or_by_how_they_begin() -> None:
    options = parse(["--rows=rt-10,ab,bulk-1", "--peers=haproxy"])
    assert [row.name for row in options.rows] == ["rt-10", "ab", "bulk-1-down", "bulk-1-up"]
    assert [row.name for row in parse(["--rows="]).rows] == list(rows.BY_NAME)
    assert options.peers == ["haproxy"]


@pytest.mark.parametrize("wrong", ["--rows=chrn", "--peers=haprox", "--rounds=0"])
def test_a_word_that_is_no_row_or_peer_is_refused(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([wrong])
    assert wrong.split("=")[1] in capsys.readouterr().err


def test_only_a_whole_run_is_published() -> None:
    def run(quick: bool, row_names: list[str]) -> Run:
        everybody = [peer.name for peer in peers.PEERS]
        return Run({}, {}, Settings(5, quick, row_names, everybody[1:], {everybody[0]: ""}), [])

    assert is_whole(run(False, list(rows.BY_NAME)))
    assert not is_whole(run(True, list(rows.BY_NAME)))
    assert not is_whole(run(False, ["churn"]))

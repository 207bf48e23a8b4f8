"""What the exporter makes of telemetry: sums over processes, gauges of the living, verdicts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from aegis import metrics
from aegis.addresses import parse_address
from aegis.config import Metrics
from aegis.figures import (
    REPLY_BOUNDS_S,
    BackendFigures,
    CheckFigures,
    Figures,
    Histogram,
    LimitFigures,
    ListenerFigures,
    PoolFigures,
    ServerFigures,
    TlsFigures,
    empty,
)
from aegis.inbox import Why
from aegis.lifecycle import CLOSE_REASONS, Phase, ProxyPhase
from aegis.limits import FOLD_AFTER_S, HEARTBEAT_S, STALE_S
from aegis.messages import BackendState, SeatFigures, ServerState, Supervision
from control.exporter.collector import Collector, all_series, families
from control.exporter.counts import Counts
from control.exporter.readiness import why_not_ready, why_unhealthy
from control.exporter.state import Snapshot, State

SERVER = "127.0.0.1:6379"


def worker_figures(
    pid: int,
    *,
    slot: int = 0,
    phase: Phase = "serving",
    accepted: int = 0,
    turns: int = 0,
    started: float = 0.0,
) -> Figures:
    """Return what a worker with one listener and one server would say."""
    listener = ListenerFigures("front", sessions=1, accepted=accepted, bytes=[7, 9])
    server = ServerFigures("db", SERVER, connections=1, connects=accepted)
    backend = BackendFigures("db", open=1, busy=1)
    pool = PoolFigures(
        "db",
        "resp",
        {"idle": 1},
        opened=1,
        reply_seconds={SERVER: empty(REPLY_BOUNDS_S)},
        oldest_s={SERVER: 0.5},
        pins={"multi": 1},
        losses={"server_lost": 1},
    )
    figures = Figures(
        slot,
        pid,
        phase,
        [listener],
        [server],
        slabs=4,
        cpu=slot + 3,
        started=started,
        backends=[backend],
        pools=[pool],
    )
    figures.limits = [LimitFigures("listener:front", open=1)]
    figures.client_tls = [TlsFigures("front", errors={"EOF": 1})]
    figures.server_tls = [TlsFigures("db", errors={"CERTIFICATE_VERIFY_FAILED": 1})]
    figures.turn_seconds.buckets[0] = turns or accepted
    return figures


class Clock:
    """A state that is told what to hear and when, and by a controller who is alive."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alive: set[int] = set()
        self.state = State(self.now)

    def hear(self, message: Figures | Supervision) -> Why | None:
        return self.state.receive(msgspec.msgpack.encode(message), self.now)

    def wait(self, seconds: float, *, controlled: bool = True) -> None:
        self.now += seconds
        if controlled:
            self.hear(Supervision("serving", 1, [], workers=sorted(self.alive)))
        self.state.fold(self.now)

    @property
    def series(self) -> Counts:
        return all_series(self.state.snapshot(), self.now)

    def accepted(self, slot: int = 0) -> float:
        return self.series[metrics.SESSIONS, (str(slot), "front")][0]


def names_of(series: Counts) -> set[str]:
    return {metric.name for metric, _ in series}


# --- counters --------------------------------------------------------------------------------


def test_the_latest_figures_of_a_process_replace_its_earlier_ones() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, accepted=5))
    clock.hear(worker_figures(1, accepted=8))
    assert clock.accepted() == 8


def test_two_processes_of_a_slot_add_up_and_two_slots_do_not() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, phase="draining", accepted=5))
    clock.hear(worker_figures(2, accepted=3))
    clock.hear(worker_figures(3, slot=1, accepted=100))
    assert clock.accepted() == 8
    assert clock.accepted(1) == 100
    assert clock.series[metrics.SESSIONS_ACTIVE, ("0", "front")] == (2,)
    assert clock.series[metrics.WORKER_PHASE, ("0", "draining")] == (1,)
    assert clock.series[metrics.WORKER_PHASE, ("0", "serving")] == (1,)
    assert clock.series[metrics.WORKER_PHASE, ("0", "drained")] == (0,)


def test_a_worker_that_stopped_or_died_leaves_its_counters_and_takes_its_gauges() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, phase="stopped", accepted=5))
    clock.hear(worker_figures(2, accepted=3))
    clock.wait(STALE_S + 0.1, controlled=False)
    assert clock.accepted() == 8
    assert (metrics.SESSIONS_ACTIVE, ("0", "front")) not in clock.series
    assert clock.series[metrics.WORKER_PHASE, ("0", "serving")] == (0,)
    assert clock.series[metrics.TELEMETRY_AGE, ("0",)][0] == pytest.approx(STALE_S + 0.1)
    clock.wait(FOLD_AFTER_S)
    assert clock.state.snapshot().processes == ()
    assert clock.accepted() == 8


def test_histograms_add_up_bucket_by_bucket() -> None:
    clock = Clock()
    for pid in (1, 2):
        figures = worker_figures(pid)
        figures.turn_seconds = Histogram([1, 2, 0, 0, 0, 0, 0, 0, 0, pid], sum_s=0.5)
        clock.hear(figures)
    assert clock.series[metrics.TURN_SECONDS, ("0",)] == (2, 4, 0, 0, 0, 0, 0, 0, 0, 3, 1.0)
    turns = next(f for f in families(clock.series) if f.name == "aegis_loop_turn_seconds")
    by_name = {(s.name.rpartition("_")[2], s.labels.get("le")): s.value for s in turns.samples}
    assert by_name["bucket", "0.001"] == 2
    assert by_name["bucket", "0.0025"] == 6
    assert by_name["bucket", "+Inf"] == by_name["count", None] == 9
    assert by_name["sum", None] == 1.0


def test_a_stopped_process_that_goes_on_after_long_is_not_counted_twice() -> None:
    clock = Clock()
    clock.alive = {1}
    clock.hear(worker_figures(1, accepted=5))
    clock.wait(FOLD_AFTER_S * 100)  # SIGSTOP
    clock.hear(worker_figures(1, accepted=6))  # SIGCONT
    assert clock.accepted() == 6


def test_without_a_controller_that_says_so_nobody_is_taken_for_dead() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, accepted=5))
    clock.wait(FOLD_AFTER_S * 100, controlled=False)
    clock.hear(worker_figures(1, accepted=6))
    assert clock.accepted() == 6


def test_another_process_with_the_pid_of_a_dead_one_is_counted_beside_it() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, accepted=5, started=1.0))
    clock.hear(worker_figures(1, accepted=2, started=2.0))
    assert clock.accepted() == 7
    assert clock.hear(worker_figures(1, accepted=5, started=1.0)) == "old"
    assert clock.accepted() == 7


def test_what_comes_late_or_twice_is_ignored() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, accepted=5, turns=50))
    assert clock.hear(worker_figures(1, accepted=3, turns=30)) == "old"
    assert clock.accepted() == 5
    clock.hear(worker_figures(1, accepted=6, phase="stopped", turns=60))
    assert clock.hear(worker_figures(1, accepted=5, turns=50)) == "old"
    assert clock.accepted() == 6
    clock.hear(Supervision("serving", 7, [], since=2.0))
    assert clock.hear(Supervision("draining", 9, [], since=1.0)) == "old", "a dead controller's"
    assert clock.series[metrics.EPOCH, ()] == (7,)


def test_thousands_of_replacements_take_no_more_memory_than_one() -> None:
    clock = Clock()
    for pid in range(4000):
        clock.hear(worker_figures(pid, accepted=1))
        if pid % 2:
            clock.hear(worker_figures(pid, phase="stopped", accepted=2))
        clock.wait(HEARTBEAT_S)  # the even ones die without a word
        assert len(clock.state.snapshot().processes) <= FOLD_AFTER_S / HEARTBEAT_S
    assert clock.accepted() == 6000
    assert len(clock.state.snapshot().folded) == 1


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["count", "die", "stop", "pass"]), st.integers(0, 3), st.integers(0, 1)
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_every_client_is_counted_exactly_once(
    events: Sequence[tuple[str, int, int]],
) -> None:
    clock = Clock()
    living: dict[tuple[int, int], int] = {}
    counted = {0: 0, 1: 0}
    for pid, (what, which, slot) in enumerate(events, start=10):
        of_slot = sorted(p for s, p in living if s == slot)
        chosen = of_slot[which] if which < len(of_slot) else pid
        if what == "count":
            counted[slot] += 1
            living[slot, chosen] = living.get((slot, chosen), 0) + 1
            clock.alive.add(chosen)
            clock.hear(worker_figures(chosen, slot=slot, accepted=living[slot, chosen]))
        elif what == "pass":
            clock.wait(FOLD_AFTER_S / 2 + 1)
        elif chosen in of_slot:
            accepted = living.pop((slot, chosen))
            clock.alive.discard(chosen)
            if what == "stop":
                clock.hear(worker_figures(chosen, slot=slot, phase="stopped", accepted=accepted))
        for each, count in counted.items():
            assert count == 0 or clock.accepted(each) == count


# --- gauges and zeros ------------------------------------------------------------------------


def test_the_longest_turn_of_a_slot_is_that_of_its_slowest_process() -> None:
    clock = Clock()
    for pid, longest in ((1, 0.25), (2, 0.75), (3, 0.5)):
        figures = worker_figures(pid)
        figures.longest_turn_s = longest
        clock.hear(figures)
    assert clock.series[metrics.LONGEST_TURN, ("0",)] == (0.75,)


def test_what_has_not_happened_yet_is_exported_as_zero() -> None:
    clock = Clock()
    figures = worker_figures(1)
    figures.listeners[0].closed = {"idle_timeout": 3}
    figures.listeners[0].accept_errors = {"EMFILE": 2, "EPERM": 1}
    figures.servers[0].connect_errors = {"ECONNREFUSED": 4}
    clock.hear(figures)
    closed = {
        labels[2]: number
        for (metric, labels), (number, *_) in clock.series.items()
        if metric is metrics.SESSIONS_CLOSED
    }
    assert closed == dict.fromkeys(CLOSE_REASONS, 0) | {"idle_timeout": 3}
    assert clock.series[metrics.ACCEPT_ERRORS, ("0", "front", "EMFILE")] == (2,)
    assert clock.series[metrics.ACCEPT_ERRORS, ("0", "front", "ENFILE")] == (0,)
    assert clock.series[metrics.ACCEPT_ERRORS, ("0", "front", "EPERM")] == (1,)
    assert clock.series[metrics.CONNECT_ERRORS, ("0", "db", SERVER, "ECONNREFUSED")] == (4,)
    assert clock.series[metrics.CONNECT_ERRORS, ("0", "db", SERVER, "ETIMEDOUT")] == (0,)


def test_the_controllers_gauges_go_with_it_and_its_counters_stay() -> None:
    clock = Clock()
    seats = [
        SeatFigures(0, "running", 2, epoch=6),
        SeatFigures(1, "flapping", 9),
        SeatFigures(-1, "running", 1),
    ]
    clock.hear(Supervision("starting", 7, seats))
    series = clock.series
    assert series[metrics.PHASE, ("starting",)] == (1,)
    assert series[metrics.PHASE, ("serving",)] == (0,)
    assert series[metrics.EPOCH, ()] == (7,)
    assert series[metrics.WORKER_EPOCH, ("0",)] == (6,)
    assert (metrics.WORKER_EPOCH, ("1",)) not in series, "nothing is reported of it"
    assert series[metrics.WORKER_STATE, ("1", "flapping")] == (1,)
    assert series[metrics.WORKER_STATE, ("1", "running")] == (0,)
    assert series[metrics.WORKER_PHASE, ("1", "serving")] == (0,)
    clock.wait(STALE_S + 0.1, controlled=False)
    of_controller = {"aegis_phase", "aegis_epoch", "aegis_worker_epoch", "aegis_worker_state"}
    assert names_of(clock.series) & of_controller == set()
    assert clock.series[metrics.WORKER_RESTARTS, ("1",)] == (9,)
    assert clock.series[metrics.EXPORTER_RESTARTS, ()] == (1,)


def test_a_slot_that_the_controller_no_longer_has_is_not_mourned() -> None:
    clock = Clock()
    clock.hear(worker_figures(1, slot=1, phase="stopped", accepted=5))
    clock.hear(worker_figures(2))
    clock.wait(STALE_S + 0.1, controlled=False)
    clock.hear(worker_figures(2))
    assert (metrics.TELEMETRY_AGE, ("1",)) in clock.series
    clock.hear(Supervision("serving", 1, [SeatFigures(0, "running", 0)]))
    assert (metrics.TELEMETRY_AGE, ("1",)) not in clock.series
    assert clock.accepted(1) == 5


def one_server() -> list[BackendState]:
    figures = CheckFigures(checks={"ok": 7, "failed": 2}, downs=1, ejections=3)
    server = ServerState(
        "db", SERVER, "one", "ready", "down", 5.0, "reply timeout", False, 0.0, False, figures
    )
    return [BackendState("db", True, 4, [server])]


def test_of_servers_the_controllers_counters_stay_too() -> None:
    clock = Clock()
    clock.hear(Supervision("serving", 7, [], one_server()))
    assert clock.series[metrics.SERVER_UP, ("db", SERVER)] == (False,)
    assert clock.series[metrics.BACKEND_PANIC, ("db",)] == (True,)
    clock.wait(STALE_S + 0.1, controlled=False)
    assert names_of(clock.series) & {"aegis_server_up", "aegis_server_weight"} == set()
    assert clock.series[metrics.SERVER_CHECKS, ("db", SERVER, "failed")] == (2,)
    assert clock.series[metrics.SERVER_EJECTIONS, ("db", SERVER)] == (3,)
    assert clock.series[metrics.BACKEND_PANICS, ("db",)] == (4,)


# --- messages --------------------------------------------------------------------------------


def broken_messages() -> dict[str, bytes]:
    encode = msgspec.msgpack.encode
    unfit: list[Figures] = [worker_figures(1) for _ in range(9)]
    unfit[0].listeners[0].bytes = [1]
    unfit[1].servers[0].connect_seconds = Histogram([1, 2])
    unfit[2].turn_seconds = Histogram([])
    unfit[3].listeners[0].session_seconds = Histogram([1])
    unfit[4].pools[0].reply_seconds[SERVER] = Histogram([1])
    unfit[5].backends[0].wait_seconds = Histogram([1])
    unfit[6].cpu_seconds = []
    unfit[7].servers[0].first_byte_seconds = Histogram([1, 2])
    unfit[8].server_tls[0].seconds = Histogram([1])
    states = one_server()
    states[0].servers[0].figures.seconds = Histogram([1])
    return {
        "no msgpack": b"\xc1",
        "empty": b"",
        "no struct": encode(7),
        "unknown tag": encode({"type": "gossip"}),
        "half a message": encode(worker_figures(1))[:40],
        "a wrong type": encode(worker_figures(1)).replace(b"serving", b"sleepin"),
        "one direction": encode(unfit[0]),
        "other connect buckets": encode(unfit[1]),
        "no turn buckets": encode(unfit[2]),
        "other session buckets": encode(unfit[3]),
        "other reply buckets": encode(unfit[4]),
        "other wait buckets": encode(unfit[5]),
        "no CPU time": encode(unfit[6]),
        "nested without end": b"\x91" * 100_000,
        "not UTF-8": encode(worker_figures(1)).replace(b"serving", b"\xff" * 7),
        "other first byte buckets": encode(unfit[7]),
        "a third party": encode(worker_figures(1)).replace(b"\xa6client", b"\xa6nobody"),
        "other handshake buckets": encode(unfit[8]),
        "other check buckets": encode(Supervision("serving", 1, [], states)),
        "no slot": encode(worker_figures(1, slot=-1)),
        "no possible slot": encode(worker_figures(1, slot=10**6)),
    }


@pytest.mark.parametrize("kind", broken_messages())
def test_a_message_that_makes_no_sense_is_counted_and_changes_nothing_else(kind: str) -> None:
    clock = Clock()
    clock.hear(worker_figures(1, accepted=5))
    before = clock.series
    assert clock.state.receive(broken_messages()[kind], clock.now) == "malformed"
    assert clock.series == before


# --- output ----------------------------------------------------------------------------------


def full_snapshot() -> Snapshot:
    clock = Clock()
    clock.now = (
        0.0  # so that nothing is fresh for a collector with a real clock but what it is told
    )
    clock.hear(worker_figures(1, accepted=5))
    seats = [SeatFigures(0, "running", 0, 1), SeatFigures(-1, "running", 0)]
    clock.hear(Supervision("serving", 1, seats, one_server()))
    return replace(clock.state.snapshot(), ignored={"telemetry": {"malformed": 2}})


def test_every_metric_of_the_catalogue_has_series_with_its_labels() -> None:
    series = all_series(full_snapshot(), 0.0)
    assert {metric for metric, _ in series} == set(metrics.CATALOGUE)
    assert all(len(metric.labels) == len(labels) for metric, labels in series)


def samples_of(families: dict[str, Family]) -> dict[tuple[object, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name != "aegis_telemetry_age_seconds"  # grows from scrape to scrape
    }


def test_both_formats_are_understood_by_a_parser_and_say_the_same() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(full_snapshot))
    plain, _ = choose_encoder("text/plain")
    strict, _ = choose_encoder("application/openmetrics-text")
    parse_strict: Callable[[str], Iterable[Family]] = openmetrics.text_string_to_metric_families
    in_plain = {family.name: family for family in parse_text(plain(registry).decode())}
    in_strict = {family.name: family for family in parse_strict(strict(registry).decode())}
    described = {metric.name.removesuffix("_total") for metric in metrics.CATALOGUE}
    assert in_plain.keys() == described
    assert in_strict.keys() == {name.removesuffix("_info") for name in described}
    values = samples_of(in_strict)
    assert values == samples_of(in_plain)
    assert values["aegis_sessions_total", ("listener", "front"), ("worker", "0")] == 5


# --- verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "controller", "why_not"),
    [
        (["serving"], "serving", ""),
        (["serving"], None, ""),
        (["serving", "draining"], "serving", ""),
        (["serving", "starting"], "starting", ""),
        (["serving"], "draining", "aegis is draining"),
        (["serving"], "drained", "aegis is drained"),
        (["serving"], "stopping", "aegis is stopping"),
        (["starting"], "starting", "no worker serves: 1 starting"),
        (["drained", "drained", "draining"], None, "no worker serves: 2 drained, 1 draining"),
        ([], "serving", "no worker heard in the 0.0 s since the exporter started"),
        (["stopped"], None, "the last worker has stopped"),
    ],
)
def test_ready_means_that_the_controller_wants_it_and_a_worker_serves(
    phases: list[Phase], controller: ProxyPhase | None, why_not: str
) -> None:
    clock = Clock()
    for pid, phase in enumerate(phases):
        clock.hear(worker_figures(pid, phase=phase))
    if controller is not None:
        clock.hear(Supervision(controller, 1, []))
    assert why_not_ready(clock.state.snapshot(), clock.now) == why_not


def test_without_a_controller_of_late_the_workers_alone_decide() -> None:
    clock = Clock()
    clock.hear(Supervision("draining", 1, []))
    clock.wait(STALE_S + 0.1)
    clock.hear(worker_figures(1))
    assert why_not_ready(clock.state.snapshot(), clock.now) == ""


def test_healthy_means_that_any_worker_was_heard_of_late() -> None:
    clock = Clock()
    clock.wait(2.5)
    why = why_unhealthy(clock.state.snapshot(), clock.now)
    assert why == "no worker heard in the 2.5 s since the exporter started"
    clock.hear(worker_figures(1, phase="draining"))
    clock.wait(STALE_S)
    assert why_unhealthy(clock.state.snapshot(), clock.now) == ""
    clock.wait(1.5)
    why = why_unhealthy(clock.state.snapshot(), clock.now)
    assert why == why_not_ready(clock.state.snapshot(), clock.now) == "no worker heard for 4.5 s"


def test_unless_told_otherwise_only_this_machine_can_reach_it() -> None:
    assert parse_address(Metrics().bind).is_loopback

"""What the HUD makes of telemetry: rates, quantiles, health, what stands out, what has happened."""

import msgspec
import pytest

from aegis.figures import (
    CONNECT_BOUNDS_S,
    REPLY_BOUNDS_S,
    CheckFigures,
    Figures,
    Histogram,
    empty,
)
from aegis.lifecycle import Admin, ProxyPhase, SeatState, ServerHealth
from aegis.limits import HISTORY_S, MAX_EVENTS, STALE_S
from aegis.messages import BackendState, SeatFigures, ServerState, Supervision
from control.exporter.events import Watcher
from control.exporter.findings import HELD_S
from control.exporter.history import History, point_of
from control.exporter.observer import Observer
from control.exporter.picture import Picture
from control.exporter.rates import quantile
from control.exporter.state import State
from tests.control.test_exporter_state import SERVER, worker_figures

WALL = 1_700_000_000.0


class Scene:
    """An exporter's memory and eyes, without process, clock or socket: `second` lets time pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.state = State(self.now)
        self.observer = Observer()
        self.watcher = Watcher()
        self.restarts: dict[int, int] = {0: 0, -1: 0}
        self.epochs: dict[int, int] = {}
        self.backends: list[BackendState] = []
        self.phase: ProxyPhase | None = "serving"
        self.seat_state: SeatState = "running"
        self.second()
        self.told = 0

    def restart_exporter(self, restarts: int | None) -> None:
        """Forget everything but how many exporters had died by then."""
        self.state = State(self.now)
        self.state.restore({}, [], restarts)
        self.observer, self.watcher, self.told = Observer(), Watcher(), 0

    def second(self, *heard: Figures) -> Picture:
        """Let a second pass in which these were heard; the picture at its end."""
        self.now += 1.0
        for figures in heard:
            self.state.receive(msgspec.msgpack.encode(figures), self.now)
        if self.phase is not None:
            seats = [
                SeatFigures(slot, self.seat_state, count, self.epochs.get(slot))
                for slot, count in self.restarts.items()
            ]
            supervision = Supervision(self.phase, 7, seats, self.backends)
            self.state.receive(msgspec.msgpack.encode(supervision), self.now)
        snapshot = self.state.snapshot()
        picture = self.observer.look(snapshot, self.now, WALL + self.now)
        self.watcher.look(picture, snapshot, self.now)
        return picture

    def news(self) -> list[str]:
        """Return the texts of the events since the last call."""
        events = list(self.watcher.events)
        fresh, self.told = events[self.told :], len(events)
        return [event.text for event in fresh]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- rates -----------------------------------------------------------------------------------


def test_a_rate_is_what_was_counted_between_two_messages_over_the_time_between_them(
    scene: Scene,
) -> None:
    scene.second(worker_figures(1, accepted=100))
    assert scene.second(worker_figures(1, accepted=140)).total.sessions_per_s == 40
    scene.now += 0.25  # a late heartbeat is no slow second
    assert scene.second(worker_figures(1, accepted=190)).total.sessions_per_s == 40


def test_what_was_counted_before_the_exporter_started_is_no_burst(scene: Scene) -> None:
    assert scene.second(worker_figures(1, accepted=10**9)).total.sessions_per_s == 0


def test_the_rates_of_processes_add_up_and_go_with_them(scene: Scene) -> None:
    for count in (0, 10):
        picture = scene.second(
            worker_figures(1, accepted=count), worker_figures(2, slot=1, accepted=2 * count)
        )
    assert picture.total.sessions_per_s == 30
    assert [lane.sessions_per_s for lane in picture.workers] == [10, 20]
    scene.now += 1.0
    picture = scene.second(worker_figures(1, accepted=30))
    assert picture.total.sessions_per_s == 10


def test_a_process_with_the_pid_of_a_dead_one_has_no_negative_rate(scene: Scene) -> None:
    scene.second(worker_figures(1, accepted=100))
    assert scene.second(worker_figures(1, accepted=3)).total.sessions_per_s == 0


def working(pid: int, accepted: int, cpu_s: float) -> Figures:
    figures = worker_figures(pid, accepted=accepted)
    figures.cpu_seconds = [cpu_s / 4, cpu_s * 3 / 4]
    return figures


def test_load_is_the_share_of_its_core_that_a_worker_takes(scene: Scene) -> None:
    scene.second(working(1, 1, cpu_s=5.0))
    (lane,) = scene.second(working(1, 2, cpu_s=5.75)).workers
    assert (lane.load, lane.cpu) == (0.75, 3)


def test_requests_are_not_known_where_nothing_counts_them(scene: Scene) -> None:
    relayed = [worker_figures(1, accepted=count) for count in (1, 2)]
    for figures in relayed:
        figures.pools = []
        picture = scene.second(figures)
    assert picture.total.requests_per_s is None
    for requests in (0, 3):
        figures = worker_figures(1, accepted=5 + requests)
        figures.pools[0].requests = requests
        picture = scene.second(figures)
    assert picture.total.requests_per_s == picture.backends[0].pools[0].requests_per_s == 3
    assert picture.listeners[0].requests_per_s is None, "a pool may serve several"


# --- quantiles -------------------------------------------------------------------------------

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.5),
        ((0, 10, 0, 0), 0.5, 1.5),
        ((5, 0, 5, 0), 0.9, 3.6),
        ((5, 0, 5, 0), 0.5, 1.0),
        ((0, 0, 0, 1), 0.99, 4.0),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(
    buckets: tuple[float, ...], q: float, expected: float | None
) -> None:
    assert quantile(BOUNDS, buckets, q) == pytest.approx(expected)


def test_latency_is_that_of_the_last_seconds_and_of_each_server(scene: Scene) -> None:
    figures = worker_figures(1, accepted=1)
    scene.second(figures)
    figures.servers[0].connect_seconds = Histogram([0] * (len(CONNECT_BOUNDS_S) + 1))
    figures.servers[0].connect_seconds.observe(0.02, CONNECT_BOUNDS_S)
    picture = scene.second(figures)
    connect = next(each for each in picture.latency if each.name == "connect")
    assert connect.p50 is not None
    assert 0.01 <= connect.p50 <= 0.025
    (server,) = picture.backends[0].servers
    assert server.connect.p50 == connect.p50
    for _ in range(10):
        picture = scene.second(figures)
    assert next(each for each in picture.latency if each.name == "connect").p50 is None
    (server,) = picture.backends[0].servers
    assert server.connect.p50 is not None, "pipes connect seldom: a server's window is longer"


def test_a_servers_answers_are_its_replies_on_pipes_and_its_first_bytes_without(
    scene: Scene,
) -> None:
    figures = worker_figures(1, accepted=1)
    scene.second(figures)
    figures.servers[0].first_byte_seconds.observe(0.15, REPLY_BOUNDS_S)
    (server,) = scene.second(figures).backends[0].servers
    assert server.answer.p50 == pytest.approx(0.15, abs=0.05)
    for _ in range(99):
        figures.pools[0].reply_seconds[SERVER].observe(0.00025, REPLY_BOUNDS_S)
    figures.pools[0].reply_seconds["another"] = empty(REPLY_BOUNDS_S)
    figures.pools[0].reply_seconds["another"].observe(4.0, REPLY_BOUNDS_S)
    (server,) = scene.second(figures).backends[0].servers
    assert server.answer.p50 == pytest.approx(0.00025, abs=0.0001)
    assert server.answer.p999 == pytest.approx(0.2, abs=0.01)
    assert server.connect.p50 is None


def test_requests_in_flight_broken_protocols_and_applied_changes_are_shown(scene: Scene) -> None:
    scene.epochs[0] = 6
    figures = worker_figures(1, accepted=1)
    figures.pools[0].in_flight = 17
    figures.pools[0].errors["client"]["http"] = 3
    picture = scene.second(figures)
    (pool,) = picture.backends[0].pools
    assert (pool.in_flight, pool.errors) == (17, {"client http": 3})
    assert [(lane.epoch, picture.epoch) for lane in picture.workers] == [(6, 7)]


# --- health and findings ---------------------------------------------------------------------


def trying(pid: int, connects: int, refused: int) -> Figures:
    figures = worker_figures(pid, accepted=connects, turns=connects + refused + 1)
    figures.servers[0].connections = 0
    figures.servers[0].connect_errors = {"ECONNREFUSED": refused}
    return figures


def test_a_servers_health_is_what_connecting_to_it_has_met(scene: Scene) -> None:
    met = [(0, 0, "unknown"), (0, 0, "unknown"), (1, 0, "up"), (1, 3, "refused"), (1, 3, "refused"),
           (2, 3, "up"), (3, 4, "failing"), (4, 4, "failing")]  # fmt: skip
    for connects, refused, health in met:
        (server,) = scene.second(trying(1, connects, refused)).backends[0].servers
        assert server.health == health, (connects, refused)
    for _ in range(11):
        (server,) = scene.second(trying(1, 4, 4)).backends[0].servers
    assert server.health == "up"
    assert scene.news() == [
        f"Server db/{SERVER} could not be connected to: ECONNREFUSED",
        f"Server db/{SERVER} is up",
        f"Server db/{SERVER} fails now and then: ECONNREFUSED",
        f"Server db/{SERVER} is up",
    ]


def test_a_refusal_is_told_with_its_age_and_ends_with_a_connect_or_after_a_minute(
    scene: Scene,
) -> None:
    scene.second(trying(1, 1, 0))
    (once,) = said(scene.second(trying(1, 1, 1)))
    assert once == f"Server db/{SERVER} refused its last connect just now"
    for _ in range(60):
        picture = scene.second(trying(1, 1, 1))
    assert said(picture) == [f"Server db/{SERVER} refused its last connect 60 s ago"]
    picture = scene.second(trying(1, 1, 1))
    assert (said(picture), picture.backends[0].servers[0].health) == ([], "unknown")
    assert said(scene.second(trying(1, 1, 2)))
    assert said(scene.second(trying(1, 2, 2))) == []
    scene.news()
    scene.backends = state("unchecked")
    (finding,) = said(scene.second(trying(1, 2, 3)))
    assert finding == f"Server db/one ({SERVER}) refused its last connect just now"
    scene.backends = state("up")
    assert said(scene.second(trying(1, 2, 4))) == [], "checks know better"


def test_an_attempt_that_was_not_refused_is_not_called_so(scene: Scene) -> None:
    figures = trying(1, 1, 0)
    scene.second(figures)
    figures.servers[0].connect_errors = {"ETIMEDOUT": 1}
    assert said(scene.second(figures)) == [
        f"Server db/{SERVER}: its last connect failed just now: ETIMEDOUT"
    ]


def state(
    health: ServerHealth, admin: Admin = "ready", why: str = "", *, panic: bool = False
) -> list[BackendState]:
    healthy = health in {"up", "unchecked"}
    server = ServerState(
        "db", SERVER, "one", admin, health, WALL, why, healthy, float(healthy), False,
        CheckFigures(),
    )  # fmt: skip
    return [BackendState("db", panic, int(panic), [server])]


def test_what_the_controller_knows_of_a_server_outranks_what_connecting_has_met(
    scene: Scene,
) -> None:
    steps: list[tuple[list[BackendState], str, str]] = [
        (state("unchecked"), "up", ""),
        (state("down", why="reply timeout"), "down", "reply timeout"),
        (state("up"), "up", ""),
        (state("ejected", why="5 failures in a row"), "ejected", "5 failures in a row"),
        (state("up", admin="maint"), "maint", ""),
        (state("up", admin="drain"), "drain", ""),
        (state("up"), "up", ""),
    ]
    for turns, (backends, health, error) in enumerate(steps, 1):
        scene.backends = backends
        (server,) = scene.second(worker_figures(1, accepted=turns)).backends[0].servers
        assert (server.health, server.error, server.name) == (health, error, "one")
    name = f"Server db/one ({SERVER})"
    assert scene.news() == [
        f"{name} is down: reply timeout",
        f"{name} is up",
        f"{name} is ejected: 5 failures in a row",
        f"{name} is under maintenance",
        f"{name} gets no new sessions, by an operator's word",
        f"{name} is up",
    ]


def test_a_server_that_does_not_reply_stands_out_before_any_latency_does(scene: Scene) -> None:
    figures = worker_figures(1, accepted=1)
    figures.pools[0].oldest_s = {SERVER: 1.0}
    assert not [text for text in said(scene.second(figures)) if "reply" in text]
    figures = worker_figures(1, accepted=1)
    figures.pools[0].oldest_s = {SERVER: 12.0}
    assert f"Server db/{SERVER} has owed a reply for 12 s" in said(scene.second(figures))


def test_panic_stands_out(scene: Scene) -> None:
    scene.backends = state("down", why="ECONNREFUSED", panic=True)
    picture = scene.second(worker_figures(1, accepted=1))
    assert picture.backends[0].panic
    assert "So few servers of db are healthy that health is ignored" in said(picture)


def test_a_server_that_only_the_controller_knows_is_shown_too(scene: Scene) -> None:
    scene.backends = state("down", why="ECONNREFUSED")
    (server,) = scene.second().backends[0].servers
    assert (server.address, server.health, server.connections) == (SERVER, "down", 0)


def said(picture: Picture) -> list[str]:
    return [finding.text for finding in picture.findings]


def test_when_all_is_well_nothing_stands_out(scene: Scene) -> None:
    scene.second(worker_figures(1, accepted=1))
    assert said(scene.second(worker_figures(1, accepted=2))) == []


def test_a_hot_core_a_stall_and_a_queue_are_told_and_stay_to_be_read(scene: Scene) -> None:
    scene.second(working(1, 1, cpu_s=1.0))
    figures = working(1, 2, cpu_s=1.95)
    figures.longest_turn_s = 0.2
    figures.backends[0].waiting, figures.backends[0].longest_wait_s = 3, 0.25
    expected = [
        "Worker 0 (core 3) is at its limit: 95% of its core",
        "Worker 0 (core 3) stalls: a turn of its loop took 200 ms",
        "3 clients wait for db, the longest for 250 ms: 1 of 1 open connections busy",
    ]
    assert said(scene.second(figures)) == expected
    quiet = working(1, 2, cpu_s=1.95)
    for _ in range(int(HELD_S)):
        picture = scene.second(quiet)
    assert said(picture) == expected
    assert said(scene.second(quiet)) == []


def test_a_server_that_is_down_comes_first_and_goes_when_it_is_up(scene: Scene) -> None:
    scene.second(trying(1, 0, 0))
    figures = trying(1, 0, 5)
    figures.listeners[0].closed["connect_failed"] = 5
    picture = scene.second(figures)
    assert said(picture) == [
        f"Server db/{SERVER} refused its last connect just now",
        "Listener front: 5 sessions/s end with connect_failed",
    ]
    assert not any("Server" in text for text in said(scene.second(trying(1, 1, 5))))


@pytest.mark.parametrize(
    ("limit", "use"),
    [
        (0, "0 of 0 open connections busy"),
        (2, "0 of 2 connections busy"),
        (1, "0 of 1 connections busy, fewer than the 2 workers: another one has them"),
    ],
)
def test_who_waits_is_told_of_the_limit_and_that_there_may_be_fewer_than_workers(
    scene: Scene, limit: int, use: str
) -> None:
    scene.backends = [msgspec.structs.replace(state("up")[0], max_connections=limit)]
    heard = [worker_figures(1), worker_figures(2, slot=1)]
    for figures in heard:
        figures.backends[0].open = figures.backends[0].busy = 0
    heard[0].backends[0].waiting, heard[0].backends[0].longest_wait_s = 4, 2.0
    assert said(scene.second(*heard)) == [f"4 clients wait for db, the longest for 2 s: {use}"]


def test_silence_and_a_missing_controller_are_told(scene: Scene) -> None:
    assert "No worker heard in the" in said(scene.second())[0]
    scene.second(worker_figures(1))
    scene.phase = None
    for _ in range(int(STALE_S) + 1):
        picture = scene.second(worker_figures(1))
    assert said(picture) == ["No controller: workers serve, but a dead one is not replaced"]
    assert (picture.phase, picture.epoch) == ("unknown", None)


# --- events ----------------------------------------------------------------------------------


def test_phases_are_told_when_they_change_and_a_lost_controller_is_too(scene: Scene) -> None:
    phases: tuple[ProxyPhase | None, ...] = ("serving", "draining", "drained", "serving")
    for phase in phases:
        scene.phase = phase
        scene.second(worker_figures(1))
    assert scene.news() == [
        "Aegis is draining",
        "Aegis is drained",
        "Aegis is serving",
    ]
    scene.phase = None
    for _ in range(int(STALE_S) + 1):
        scene.second(worker_figures(1))
    scene.phase = "serving"
    scene.second(worker_figures(1))
    assert scene.news() == [
        "The controller is not heard any more",
        "The controller is heard again",
        "Aegis is serving",
    ]


@pytest.mark.parametrize("controller_first", [True, False])
def test_a_death_and_its_successor_are_a_restart(scene: Scene, controller_first: bool) -> None:
    scene.second(worker_figures(1))
    scene.news()
    if controller_first:
        scene.restarts[0] = 1
        scene.second()
        scene.second(worker_figures(2))
        assert scene.news() == ["Worker 0 died, restart 1", "Worker 0 is back as pid 2"]
    else:
        scene.second(worker_figures(2))
        scene.restarts[0] = 1
        scene.second(worker_figures(2))
        assert scene.news() == ["Worker 0 died, restart 1; pid 2 serves instead"]
    scene.second(worker_figures(3), worker_figures(2, phase="draining"))
    assert "is replaced: pid 2 → 3" in scene.news()[0]


def test_a_worker_that_is_replaced_while_it_lives_is_a_reload_and_no_death(scene: Scene) -> None:
    scene.second(worker_figures(1))
    scene.second(worker_figures(1), worker_figures(2))
    assert scene.news() == [], "who died and who drains is not known yet"
    picture = scene.second(worker_figures(1, phase="draining"), worker_figures(2))
    assert [(lane.pid, lane.retired) for lane in picture.workers] == [(2, False), (1, True)]
    assert scene.news() == ["Worker 0 is replaced: pid 1 → 2, 1 sessions finish in the old one"]
    scene.second(worker_figures(1, phase="stopped"), worker_figures(2))
    assert scene.news() == []


def test_a_worker_that_hangs_is_told_and_so_is_its_return(scene: Scene) -> None:
    scene.second(worker_figures(1))
    scene.news()
    for _ in range(int(STALE_S) + 1):
        picture = scene.second()
    assert picture.workers[0].pid == 0
    scene.second(worker_figures(1))
    assert scene.news() == ["Worker 0 (pid 1) is silent", "Worker 0 is back as pid 1"]


def test_the_workers_of_a_proxy_that_stops_are_not_called_silent(scene: Scene) -> None:
    scene.second(worker_figures(1))
    scene.phase = "stopping"
    scene.second(worker_figures(1, phase="stopped"))
    scene.second()
    assert scene.news() == ["Aegis is stopping"]


def test_flapping_and_cut_sessions_are_told(scene: Scene) -> None:
    scene = Scene()
    scene.second(worker_figures(1))
    scene.news()
    scene.seat_state = "flapping"
    figures = worker_figures(1)
    figures.cut = 4
    scene.second(figures)
    assert scene.news() == [
        "Worker 0 is flapping: it dies again and again",
        "4 sessions were cut: the time to finish was over",
    ]


@pytest.mark.parametrize(("known_before", "told"), [(1, True), (2, False), (None, False)])
def test_an_exporters_death_is_told_by_the_next_one_and_a_reload_of_it_is_not(
    scene: Scene, known_before: int | None, told: bool
) -> None:
    scene.restarts[-1] = 2
    scene.restart_exporter(known_before)
    for _ in range(3):
        scene.second(worker_figures(1))
    assert scene.news() == ["The exporter died and is back, restart 2"] * told


def test_what_a_new_exporter_only_learns_is_no_event(scene: Scene) -> None:
    scene.backends = state("down", why="ECONNREFUSED")
    scene.restarts[0] = 1
    for phase in (None, "serving", None, "serving"):
        if phase is None:
            scene.restart_exporter(0)
        scene.phase = phase
        scene.second(worker_figures(2))
        scene.second(worker_figures(2))
        assert scene.news() == []
    scene.second(worker_figures(3), worker_figures(2, phase="draining"))
    assert "is replaced: pid 2 → 3" in scene.news()[0], "nobody died, so nobody is back"


def test_a_death_that_another_controller_counts_is_told_although_it_counts_anew(
    scene: Scene,
) -> None:
    scene.second(worker_figures(1))
    scene.restarts[0] = 5
    scene.second(worker_figures(1))
    scene.news()
    for restarts in (0, 1):
        scene.restarts[0] = restarts
        scene.second(worker_figures(1))
    assert scene.news() == ["Worker 0 died, restart 1"]


def test_a_flapping_worker_has_not_recovered_when_the_controller_is_lost(scene: Scene) -> None:
    scene.second(worker_figures(1))
    scene.seat_state = "flapping"
    scene.second(worker_figures(1))
    scene.phase = None
    for _ in range(int(STALE_S) + 1):
        scene.second(worker_figures(1))
    assert scene.news() == [
        "Worker 0 is flapping: it dies again and again",
        "The controller is not heard any more",
    ]


def test_events_are_kept_for_a_quarter_of_an_hour_and_not_without_end(scene: Scene) -> None:
    scene.second(worker_figures(1))
    for count in range(MAX_EVENTS * 2):
        scene.restarts[0] = count
        scene.second(worker_figures(1))
    assert len(scene.watcher.events) == MAX_EVENTS
    scene.now += HISTORY_S
    scene.second(worker_figures(1))
    assert [event.text for event in scene.watcher.events] == []


# --- history ---------------------------------------------------------------------------------


def test_history_keeps_the_last_quarter_of_an_hour(scene: Scene) -> None:
    history = History()
    picture = scene.second(worker_figures(1))
    for at in range(HISTORY_S + 100):
        picture.at = WALL + at
        history.append(picture)
    points = msgspec.json.decode(bytes(history.all()))
    assert [point[0] for point in points] == [WALL + 100 + at for at in range(HISTORY_S)]


def test_a_point_has_what_the_charts_show(scene: Scene) -> None:
    scene.second(worker_figures(1, accepted=0), worker_figures(2, slot=1))
    picture = scene.second(worker_figures(1, accepted=3), worker_figures(2, slot=1))
    at, flow, latency, lanes = msgspec.json.decode(msgspec.json.encode(point_of(picture)))
    assert at == pytest.approx(picture.at, abs=0.1)
    assert flow == [3, picture.total.requests_per_s, 0, 0, 2, 0]
    assert len(latency) == len(picture.latency)
    assert lanes == [[0, 0, 1, 0], [1, 0, 1, 0]]

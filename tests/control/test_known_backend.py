"""What is left of servers' weights: operators, checks, ejections, panic and slow start. No I/O."""

from typing import Any

import pytest

from aegis.config_backend import Backend, Server, servers_of
from aegis.config_health import Health, OutlierDetection
from control.known_backend import KnownBackend
from control.known_server import KnownServer, Override

NOW = 1000.0


def address(index: int) -> str:
    return f"10.0.0.{index}:1"


def known(*servers: str | Server, **conf: Any) -> KnownBackend:
    made = KnownBackend(Backend(name="db", servers=servers, **conf))
    made.use(servers_of(servers), {}, NOW)
    return made


def three(**conf: Any) -> KnownBackend:
    return known(address(1), address(2), address(3), **conf)


def weights(backend: KnownBackend, now: float = NOW) -> list[int]:
    return [wish.weight for wish in backend.wishes(now)]


def nth(backend: KnownBackend, index: int) -> KnownServer:
    return list(backend.servers.values())[index]


def fell(backend: KnownBackend, *indexes: int, now: float = NOW) -> None:
    for index in indexes:
        backend.checked(nth(backend, index), up=False, why="ECONNREFUSED", now=now)


def rose(backend: KnownBackend, *indexes: int, now: float = NOW) -> None:
    for index in indexes:
        backend.checked(nth(backend, index), up=True, why="", now=now)


def test_a_server_without_checks_is_up_and_has_its_weight() -> None:
    backend = known(address(1), Server(address=address(2), weight=3, backup=True))
    assert weights(backend) == [100, 300]
    assert [wish.backup for wish in backend.wishes(NOW)] == [False, True]
    assert nth(backend, 0).health == "unchecked"


def test_who_is_down_gets_nobody_and_gets_its_weight_back() -> None:
    backend = three(health=Health())
    fell(backend, 1)
    assert weights(backend) == [100, 0, 100]
    assert nth(backend, 1).health == "down"
    assert nth(backend, 1).why == "ECONNREFUSED"
    assert nth(backend, 1).figures.downs == 1
    rose(backend, 1)
    assert weights(backend) == [100, 100, 100]


def test_slow_start_grows_from_little_to_all() -> None:
    backend = three(health=Health(), slow_start_s=10)
    assert weights(backend) == [100, 100, 100], "who is there from the start does not start slowly"
    fell(backend, 0)
    rose(backend, 0, now=NOW + 5)
    assert [weights(backend, NOW + 5 + s)[0] for s in (0, 1, 5, 9.99, 10)] == [1, 10, 50, 99, 100]
    assert backend.next_change(NOW + 6) == pytest.approx(NOW + 6.2)
    assert backend.next_change(NOW + 15) == float("inf")


def test_a_server_that_is_added_waits_for_a_check_and_then_starts_slowly() -> None:
    backend = three(health=Health(), slow_start_s=10)
    backend.use(servers_of((address(1), address(2), address(3), address(4))), {}, NOW)
    assert weights(backend) == [100, 100, 100, 0]
    assert nth(backend, 3).health == "unchecked"
    rose(backend, 3, now=NOW + 1)
    assert weights(backend, NOW + 6)[3] == 50
    unchecked = three(slow_start_s=10)
    unchecked.use(servers_of((address(1), address(4))), {}, NOW)
    assert weights(unchecked, NOW + 5) == [100, 50]


def test_the_order_is_the_lists_and_what_stays_keeps_its_state() -> None:
    backend = three(health=Health())
    fell(backend, 2)
    backend.use(servers_of((address(3), address(1))), {}, NOW)
    assert list(backend.servers) == [address(3), address(1)]
    assert weights(backend) == [0, 100]


def test_an_operator_drains_stops_and_weighs() -> None:
    backend = three()
    server = nth(backend, 0)
    backend.set(server, Override("drain", None, NOW + 7), NOW)
    assert backend.wishes(NOW)[0].weight == 0
    assert backend.wishes(NOW)[0].cut_at == NOW + 7
    backend.set(server, Override("ready", 5), NOW)
    assert weights(backend)[0] == 500
    backend.set(server, Override("ready", 0), NOW)
    assert weights(backend)[0] == 0
    backend.set(server, Override("maint"), NOW)
    assert weights(backend)[0] == 0


def test_after_maintenance_a_check_must_succeed_before_sessions_come() -> None:
    backend = three(health=Health())
    rose(backend, 0)
    backend.set(nth(backend, 0), Override("maint"), NOW)
    assert nth(backend, 0).health == "unchecked", "nobody checks it"
    backend.set(nth(backend, 0), Override(), NOW)
    assert weights(backend)[0] == 0
    rose(backend, 0)
    assert weights(backend)[0] == 100


def test_sessions_of_who_goes_down_are_reset_if_that_is_wanted() -> None:
    for wanted in (False, True):
        mark = "shutdown-sessions" if wanted else "none"
        backend = three(health=Health(), on_marked_down=mark)
        fell(backend, 0, now=NOW + 3)
        first, second, _ = backend.wishes(NOW + 4)
        assert (first.reset, first.cut_at) == ((True, NOW + 3) if wanted else (False, 0.0))
        assert (second.reset, second.cut_at) == (False, 0.0)
        rose(backend, 0, now=NOW + 5)
        assert backend.wishes(NOW + 5)[0].cut_at == 0.0
        backend.set(nth(backend, 1), Override("maint"), NOW + 6)
        assert backend.wishes(NOW + 6)[1].reset == wanted
        backend.set(nth(backend, 1), Override("drain"), NOW + 7)
        assert not backend.wishes(NOW + 7)[1].reset


# --- panic -----------------------------------------------------------------------------------


def test_with_too_few_healthy_servers_health_is_ignored() -> None:
    backend = three(health=Health(), panic_threshold_percent=50, on_marked_down="shutdown-sessions")
    fell(backend, 0)
    assert weights(backend) == [0, 100, 100]
    fell(backend, 1)
    assert weights(backend) == [100, 100, 100]
    assert (backend.panic, backend.panics) == (True, 1)
    assert not any(wish.reset for wish in backend.wishes(NOW)), "they are used"
    rose(backend, 0)
    assert weights(backend) == [100, 0, 100]
    assert (backend.panic, backend.panics) == (False, 1)


def test_without_a_threshold_all_may_be_down() -> None:
    backend = three(health=Health())
    fell(backend, 0, 1, 2)
    assert weights(backend) == [0, 0, 0]
    assert not backend.panic


def test_where_a_healthy_backup_can_serve_nobody_panics_over_the_others() -> None:
    backup = Server(address=address(3), backup=True)
    backend = known(address(1), address(2), backup, health=Health(), panic_threshold_percent=60)
    fell(backend, 0, 1)
    assert weights(backend) == [0, 0, 100]
    fell(backend, 2)
    assert weights(backend) == [100, 100, 100]


def test_who_is_drained_or_was_just_added_is_no_reason_to_panic() -> None:
    backend = three(health=Health(), panic_threshold_percent=50)
    backend.set(nth(backend, 0), Override("drain"), NOW)
    fell(backend, 1)
    assert weights(backend) == [0, 0, 100]
    backend.use(servers_of(tuple(address(i) for i in range(1, 9))), {}, NOW)
    weights(backend)
    assert not backend.panic


# --- ejection --------------------------------------------------------------------------------

RULE = OutlierDetection(
    consecutive_failures=3, base_ejection_s=10, max_ejection_s=25, max_ejection_percent=50
)


def rows(*failures: int) -> dict[str, int]:
    return {f"db/{address(i)}": count for i, count in enumerate(failures, 1)}


def test_who_fails_too_often_is_ejected_and_returns() -> None:
    backend = three(outlier_detection=RULE)
    assert backend.judge(rows(2), NOW) == []
    assert weights(backend) == [100, 100, 100]
    backend.judge(rows(3), NOW)
    assert weights(backend) == [0, 100, 100]
    assert nth(backend, 0).health == "ejected"
    assert nth(backend, 0).why == "3 failures in a row"
    assert backend.next_change(NOW) == NOW + 10
    assert backend.judge(rows(3), NOW + 9.9) == []
    assert backend.judge(rows(3), NOW + 10) == [nth(backend, 0)]
    assert weights(backend, NOW + 10) == [100, 100, 100]


def test_ejections_grow_up_to_a_most_and_are_forgotten_after_a_while() -> None:
    backend = three(outlier_detection=RULE)
    now, lengths = NOW, []
    for pause in (0.0, 1.0, 1.0, 1.0, 30.0):
        now += pause
        backend.judge(rows(3), now)
        lengths.append(nth(backend, 0).ejected_until - now)
        now = nth(backend, 0).ejected_until
        backend.judge({}, now)
    assert lengths == [10.0, 20.0, 25.0, 25.0, 10.0]
    assert nth(backend, 0).figures.ejections == 5


def test_no_more_than_a_part_is_ejected_and_never_the_last_that_is_usable() -> None:
    backend = three(outlier_detection=RULE)
    backend.judge(rows(9, 9, 9), NOW)
    assert weights(backend) == [0, 100, 100], "half of three is one"
    pair = known(address(1), address(2), outlier_detection=RULE, health=Health())
    fell(pair, 1)
    pair.judge(rows(9), NOW)
    assert weights(pair) == [100, 0]
    alone = known(address(1), outlier_detection=OutlierDetection(max_ejection_percent=100))
    alone.judge(rows(99), NOW)
    assert weights(alone) == [100]


def test_a_check_that_brings_a_server_up_ends_its_ejection() -> None:
    backend = three(outlier_detection=RULE, health=Health())
    rose(backend, 0)
    backend.judge(rows(3), NOW)
    rose(backend, 0, now=NOW + 1)
    assert weights(backend, NOW + 1)[0] == 0, "it was up all the time by its checks"
    fell(backend, 0, now=NOW + 2)
    rose(backend, 0, now=NOW + 3)
    assert weights(backend, NOW + 3)[0] == 100


def test_a_reload_without_health_or_detection_forgets_what_they_have_found() -> None:
    backend = three(outlier_detection=RULE, health=Health())
    backend.judge(rows(3), NOW)
    fell(backend, 1)
    backend.reconfigured(Backend(name="db"))
    assert weights(backend) == [100, 100, 100]

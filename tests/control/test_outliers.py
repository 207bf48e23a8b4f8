"""Failures in a row, over all workers, and what is forgiven when a server returns."""

from aegis.figures import Figures, ServerFigures
from control.outliers import Outliers

KEY = "db/10.0.0.1:1"


def worker(pid: int, row: int, total: int) -> Figures:
    server = ServerFigures("db", "10.0.0.1:1", failures={"connect": total - 1, "server_reset": 1})
    server.failures_in_a_row = row
    return Figures(0, pid, "serving", [], [server], 2)


def test_rows_of_workers_add_up_and_who_has_none_is_not_there() -> None:
    outliers = Outliers()
    assert outliers.rows([worker(1, 2, 5), worker(2, 3, 3), worker(3, 0, 9)]) == {KEY: 5}
    assert outliers.rows([worker(1, 0, 5)]) == {}


def test_after_forgiveness_only_what_was_added_counts() -> None:
    outliers = Outliers()
    workers = [worker(1, 4, 10), worker(2, 1, 3)]
    outliers.forgive([KEY], workers)
    assert outliers.rows(workers) == {KEY: 0}
    assert outliers.rows([worker(1, 6, 12), worker(2, 1, 3)]) == {KEY: 2}
    assert outliers.rows([worker(1, 1, 13), worker(2, 0, 3)]) == {KEY: 1}, "a new row"


def test_a_worker_with_the_pid_of_a_dead_one_is_not_forgiven_for_it() -> None:
    outliers = Outliers()
    outliers.forgive([KEY], [worker(1, 4, 10)])
    outliers.forgive([], [])  # it has died
    assert outliers.rows([worker(1, 3, 3)]) == {KEY: 3}

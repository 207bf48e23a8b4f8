"""What is used of each limit, and who was refused for it: by configuration and figures."""

from collections.abc import Iterable, Iterator

from aegis.config import Config
from aegis.figures import Figures
from aegis.lifecycle import CloseReason
from aegis.messages import listener_limit
from aegis.session_messages import LimitStatus

_OF_ONE_CLIENT: dict[str, CloseReason] = {
    "max_sessions_per_client": "client_limit",
    "accept_rate_per_client": "client_rate",
    "max_frame_bytes": "frame_too_large",
}
"""A listener's key, which limits each client by itself → why who exceeds it is refused."""
_QUEUE: tuple[CloseReason, ...] = ("queue_full", "queue_timeout")


def limit_statuses(config: Config, workers: list[Figures]) -> list[LimitStatus]:
    """Return every limit that is set, the widest first."""
    return [
        *_of_all(config, workers),
        *_of_listeners(config, workers),
        *_of_backends(config, workers),
    ]


def _of_all(config: Config, workers: list[Figures]) -> Iterator[LimitStatus]:
    if config.max_sessions:
        names = {each.name for each in config.listeners}
        refused = _refused(workers, names, ("total_limit",))
        used, waiting = _use(workers, listener_limit())
        yield LimitStatus("max_sessions", config.max_sessions, used, waiting, refused)


def _of_listeners(config: Config, workers: list[Figures]) -> Iterator[LimitStatus]:
    for each in config.listeners:
        mine = {each.name}
        if each.max_sessions:
            used, waiting = _use(workers, listener_limit(each.name))
            refused = _refused(workers, mine, ("listener_limit",))
            key = f"{each.name}.max_sessions"
            yield LimitStatus(key, each.max_sessions, used, waiting, refused)
        for key, reason in _OF_ONE_CLIENT.items():
            if limit := getattr(each, key):
                refused = _refused(workers, mine, (reason,))
                yield LimitStatus(f"{each.name}.{key}", limit, None, 0, refused)


def _of_backends(config: Config, workers: list[Figures]) -> Iterator[LimitStatus]:
    for backend in config.backends:
        if backend.max_connections:
            rows = [row for w in workers for row in w.backends if row.backend == backend.name]
            clients_of = {each.name for each in config.listeners if each.backend == backend.name}
            yield LimitStatus(
                f"{backend.name}.max_connections",
                backend.max_connections,
                sum(row.open for row in rows),
                sum(row.waiting for row in rows),
                _refused(workers, clients_of, _QUEUE),
            )


def _use(workers: list[Figures], name: str) -> tuple[int, int]:
    rows = [row for worker in workers for row in worker.limits if row.name == name]
    return sum(row.open for row in rows), sum(row.waiting for row in rows)


def _refused(workers: list[Figures], names: set[str], reasons: Iterable[CloseReason]) -> int:
    rows = [row for worker in workers for row in worker.listeners if row.name in names]
    return sum(row.closed[reason] for row in rows for reason in reasons)

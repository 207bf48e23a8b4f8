"""How often each server has failed in a row, from what the workers report of their clients.

Rows of several workers add up: each ends with the next word of the server that the same worker
hears, or a while after its last failure (workers/target.py). What a server had done before it was
ejected is forgiven when it returns: of a worker's row only what was added since counts.
"""

from collections.abc import Iterable

from aegis.figures import Figures, ServerFigures


class Outliers:
    """The rows of all servers."""

    def __init__(self) -> None:
        self._forgiven: dict[tuple[int, str], int] = {}  # pid and server → failures in all by then

    def rows(self, figures: Iterable[Figures]) -> dict[str, int]:
        """Return server's key -> failures in a row, over these workers; where there are some."""
        rows: dict[str, int] = {}
        for worker in figures:
            for server in worker.servers:
                if not server.failures_in_a_row:
                    continue
                key = _key(server)
                since = _total(server) - self._forgiven.get((worker.pid, key), 0)
                rows[key] = rows.get(key, 0) + min(server.failures_in_a_row, since)
        return rows

    def forgive(self, keys: Iterable[str], figures: Iterable[Figures]) -> None:
        """Forget what these servers have done so far."""
        workers = list(figures)
        pids = {worker.pid for worker in workers}
        self._forgiven = {key: n for key, n in self._forgiven.items() if key[0] in pids}
        wanted = set(keys)
        for worker in workers:
            for server in worker.servers:
                if _key(server) in wanted:
                    self._forgiven[worker.pid, _key(server)] = _total(server)


def _key(server: ServerFigures) -> str:
    return f"{server.backend}/{server.address}"


def _total(server: ServerFigures) -> int:
    return sum(server.failures.values())

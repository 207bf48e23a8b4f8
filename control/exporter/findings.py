"""What stands out in a picture, in words: is it the server, the proxy, or a limit?

Each rule is one line of an operator's experience. What a rule says of one thing has one key, so
that a page can change the words and keep the place; what holds for a moment only stays for a while,
to be read. Pure.
"""

from collections.abc import Iterator

from control.exporter.picture import Backend, Finding, Lane, Picture, Server, name_of

HOT_LOAD = 0.9
"""Share of a core from which a worker's queueing delay grows without bound."""
LAG_S = 0.1
"""A turn that a client would notice."""
WAIT_S = 0.05
"""Waiting for a connection for so long is worse than most queries take."""
SILENT_S = 2.0
"""A reply that has been due for so long; no latency tells of it until it comes."""
SLABS_SHARE = 0.9


HELD_S = 10.0
_ORDER = ("bad", "warn", "info", "good")


class Board:
    """What stands out now, and what did a moment ago."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, Finding]] = {}

    def post(self, picture: Picture) -> list[Finding]:
        """Return what there is to say, worst first."""
        found = {finding.key: finding for finding in find(picture)}
        for key, finding in found.items():
            if key.startswith(_MOMENTARY):
                self._until[key] = (picture.at + HELD_S, finding)
        for key, (until, finding) in list(self._until.items()):
            if picture.at <= until:
                found.setdefault(key, finding)
            else:
                del self._until[key]
        return sorted(found.values(), key=lambda finding: _ORDER.index(finding.severity))


_MOMENTARY = ("load", "lag", "slabs", "wait", "loss", "accept", "closed")


def find(picture: Picture) -> list[Finding]:
    """Return what stands out at this moment."""
    found = [*_of_proxy(picture)]
    for worker in picture.workers:
        found += _of_worker(worker)
    workers = sum(not lane.retired for lane in picture.workers)
    for backend in picture.backends:
        for server in backend.servers:
            found += _of_server(f"Server {name_of(backend, server)}", server, picture.at)
        found += _of_backend(backend, workers)
    found += _of_listeners(picture)
    return found


def _of_proxy(picture: Picture) -> Iterator[Finding]:
    if picture.unhealthy:
        yield Finding("proxy", "bad", _sentence(picture.unhealthy))
    elif picture.not_ready:
        yield Finding("proxy", "warn", f"New clients are refused: {picture.not_ready}")
    elif picture.phase == "unknown":
        yield Finding(
            "proxy", "warn", "No controller: workers serve, but a dead one is not replaced"
        )


def _of_worker(worker: Lane) -> Iterator[Finding]:
    name = f"Worker {worker.slot}"
    where = f"{name} (core {worker.cpu})" if worker.cpu >= 0 else name
    if worker.state == "flapping":
        yield Finding(
            f"flapping {worker.slot}", "bad", f"{name} keeps dying: {worker.restarts} restarts"
        )
    if worker.load >= HOT_LOAD:
        yield Finding(
            f"load {worker.slot}", "warn", f"{where} is at its limit: {worker.load:.0%} of its core"
        )
    if worker.lag_s >= LAG_S:
        yield Finding(
            f"lag {worker.slot}",
            "warn",
            f"{where} stalls: a turn of its loop took {_time(worker.lag_s)}",
        )
    if worker.slab_shortages_per_s > 0 or worker.slabs_used > SLABS_SHARE * worker.slabs:
        yield Finding(
            f"slabs {worker.slot}",
            "warn",
            f"{name} is short of buffers: {worker.slabs_used} of {worker.slabs} are held by peers "
            "that do not read",
        )


def _of_server(name: str, server: Server, at: float) -> Iterator[Finding]:
    if server.health == "down":
        yield Finding(name, "bad", f"{name} is down: {server.error}")
    elif server.health == "ejected":
        yield Finding(name, "bad", f"{name} is ejected: {server.error}")
    elif server.health == "refused":
        age = at - server.failed_at
        ago = f"{age:.0f} s ago" if age >= 1 else "just now"
        if server.error == "ECONNREFUSED":
            yield Finding(name, "bad", f"{name} refused its last connect {ago}")
        else:
            yield Finding(name, "bad", f"{name}: its last connect failed {ago}: {server.error}")
    elif server.health == "failing":
        yield Finding(name, "warn", f"{name} fails now and then: {server.error}")
    if server.due_s >= SILENT_S:
        text = f"{name} has owed a reply for {_time(server.due_s)}"
        yield Finding(f"silent {name}", "bad", text)


def _of_backend(backend: Backend, workers: int) -> Iterator[Finding]:
    if backend.waiting and backend.longest_wait_s >= WAIT_S:
        wait = "client waits" if backend.waiting == 1 else "clients wait"
        yield Finding(
            f"wait {backend.name}",
            "warn",
            f"{backend.waiting} {wait} for {backend.name}, the longest for "
            f"{_time(backend.longest_wait_s)}: {_use(backend, workers)}",
        )
    if backend.panic:
        text = f"So few servers of {backend.name} are healthy that health is ignored"
        yield Finding(f"panic {backend.name}", "bad", text)
    for pool in backend.pools:
        if pool.losses_per_s > 0:
            name = f"{backend.name} ({pool.protocol})"
            yield Finding(f"loss {name}", "warn", f"Pipes to {name} are being lost")


def _use(backend: Backend, workers: int) -> str:
    limit = backend.max_connections
    if limit is None:
        return f"{backend.busy} of {backend.open} open connections busy"
    use = f"{backend.busy} of {limit} connections busy"
    if limit < workers:
        use += f", fewer than the {workers} workers: another one has them"
    return use


def _of_listeners(picture: Picture) -> Iterator[Finding]:
    for listener in picture.listeners:
        if listener.accept_errors_per_s > 0:
            text = f"Listener {listener.name} cannot accept: out of fds or memory"
            yield Finding(f"accept {listener.name}", "bad", text)
        if listener.closed_per_s:
            worst = max(listener.closed_per_s, key=lambda reason: listener.closed_per_s[reason])
            rate = listener.closed_per_s[worst]
            text = f"Listener {listener.name}: {rate:.3g} sessions/s end with {worst}"
            yield Finding(f"closed {listener.name}", "info", text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"

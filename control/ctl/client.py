"""What the commands share: asking the controller, and waiting until the workers have done it."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console

from aegis import bus
from aegis.errors import AegisError, BusError
from aegis.limits import REQUEST_TIMEOUT_S, TICK_S
from aegis.messages import (
    Accepted,
    Refused,
    Reply,
    Request,
    StatusRequest,
)
from aegis.runtime import Claim, living, read_claim
from aegis.status_messages import (
    Status,
    WorkerStatus,
)
from control.ctl.elsewhere import elsewhere

console = Console(stderr=True, highlight=False)


def controller_claim(runtime_dir: Path) -> Claim | None:
    """Return the living controller of a runtime directory, None if there is none."""
    try:
        return read_claim(runtime_dir / Claim("controller", 0).file_name)
    except PermissionError:
        raise AegisError(f"runtime directory {runtime_dir}: not permitted") from None


def need_controller(runtime_dir: Path) -> None:
    """See whether there is a controller; one elsewhere is asked in any case.

    Raises:
        AegisError: there is none.
    """
    if elsewhere().requests:
        return
    claim = controller_claim(runtime_dir)
    if claim is None and (orphans := [c for c in living(runtime_dir) if c.role == "worker"]):
        raise AegisError(
            f"the controller in {runtime_dir} has died; {len(orphans)} worker(s) go on serving: "
            "`start` takes them over, `stop` ends them"
        )
    if claim is None:
        raise AegisError(f"aegis is not running in {runtime_dir}")


def command(runtime_dir: Path, request: Request) -> int:
    """Ask for a change; returns the epoch that every worker is to apply.

    Raises:
        AegisError: refused, or no answer.
    """
    reply = bus.ask(runtime_dir, request, conf=elsewhere())
    if isinstance(reply, Accepted):
        return reply.epoch
    raise AegisError(_why(reply))


def fetch_status(runtime_dir: Path, timeout_s: float = REQUEST_TIMEOUT_S) -> Status:
    """Ask the controller how things are.

    Raises:
        BusError: no answer, or not in time.
    """
    reply = bus.ask(runtime_dir, StatusRequest(), timeout_s, elsewhere())
    if isinstance(reply, Status):
        return reply
    raise BusError(_why(reply))


def _why(reply: Reply) -> str:
    """Return why this is not what was asked for."""
    return reply.why if isinstance(reply, Refused) else f"unexpected reply: {reply}"


def wait_until(runtime_dir: Path, epoch: int, doing: str, done: Callable[[Status], bool]) -> Status:
    """Wait until `done`, showing how many sessions are left; returns the status that was it.

    Raises:
        AegisError: a worker has not applied the epoch in REQUEST_TIMEOUT_S; names it.
    """
    patience = monotonic() + REQUEST_TIMEOUT_S
    with Progress(doing) as progress:
        while True:
            status = fetch_status(runtime_dir)
            late = [
                w for w in status.workers if w.pid is not None and not _applied(w, status, epoch)
            ]
            if not late and done(status):
                return status
            if not late:
                patience = monotonic() + REQUEST_TIMEOUT_S
            elif monotonic() > patience:
                names = ", ".join(f"worker {w.slot} (pid {w.pid})" for w in late)
                raise AegisError(f"{names} has not applied epoch {epoch}")
            progress.show(status)
            sleep(TICK_S)


def _applied(worker: WorkerStatus, status: Status, epoch: int) -> bool:
    return worker.controller == status.controller.pid and worker.epoch >= epoch


class Progress:
    """One line that changes on a terminal; elsewhere a line each time it differs."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._last = ""
        self._most = 0
        """Sessions that there were at once since the beginning."""
        self._spinner = console.status(doing) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def show(self, status: Status) -> None:
        """Tell what is left."""
        sessions = sum(worker.sessions for worker in status.workers)
        self._most = max(self._most, sessions)
        phases = ", ".join(f"worker {w.slot} {_state_of(w)}" for w in status.workers)
        if self._spinner is not None:
            ended = bar(self._most - sessions, self._most)
            left = f"{sessions} of {self._most} session(s) left{until_cut(status)}"
            self._spinner.update(f"{self._doing} {ended} {left}; {phases}")
            return
        text = f"{self._doing}: {sessions} session(s) left; {phases}"
        if text != self._last:
            self._last = text
            console.print(text, soft_wrap=True)


def is_as_wanted(worker: WorkerStatus) -> bool:
    """Whether a worker's phase says all: its seat is not at pains to have one that runs."""
    return worker.state == "running" or worker.phase == "stopped"


def _state_of(worker: WorkerStatus) -> str:
    return worker.phase if is_as_wanted(worker) else worker.state


def bar(done: int, whole: int, width: int = 20) -> str:
    """Return how much of the whole is done, drawn; full when there is nothing to do."""
    full = width * done // whole if whole else width
    return "━" * full + "╌" * (width - full)


def until_cut(status: Status) -> str:
    """Return when sessions that are left are cut, as the end of a sentence."""
    return "" if status.cut_in_s is None else f", cut in {status.cut_in_s:.0f} s"

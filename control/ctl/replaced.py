"""Waiting until every worker is the one that is wanted: what reload, scale and upgrade share."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

from aegis.errors import AegisError, BusError
from aegis.limits import TICK_S, WORKER_START_DEADLINE_S
from aegis.status_messages import (
    Status,
    WorkerStatus,
)
from control.ctl.client import Progress, controller_claim, fetch_status
from control.ctl.elsewhere import elsewhere


def wait_until_replaced(
    runtime_dir: Path, doing: str, has_begun: Callable[[Status], bool]
) -> Status:
    """Wait until every slot is served by the worker that is wanted; returns that status.

    Args:
        runtime_dir: of the controller.
        doing: for the progress shown.
        has_begun: whether a status is of after the change.

    Raises:
        AegisError: a worker does not get ready, or the controller is gone; the old ones serve on.
    """
    deadline = monotonic() + WORKER_START_DEADLINE_S
    waiting = 0
    with Progress(doing) as progress:
        while True:
            status = None
            with contextlib.suppress(BusError):  # it may be executing itself
                status = fetch_status(runtime_dir, timeout_s=1.0)
            here = not elsewhere().requests
            if status is None and here and controller_claim(runtime_dir) is None:
                raise AegisError("the controller has died; its workers go on serving")
            late: list[WorkerStatus] = []
            if status is not None and has_begun(status):
                late = [w for w in status.workers if not w.retired and not _is_ready(w)]
                if not late:
                    return status
                progress.show(status)
            flapping = [worker for worker in late if worker.state == "flapping"]
            if late and len(late) != waiting:
                waiting, deadline = len(late), monotonic() + WORKER_START_DEADLINE_S
            if flapping or monotonic() > deadline:
                names = [f"worker {w.slot} ({w.last_exit or w.phase})" for w in flapping or late]
                raise AegisError(
                    f"not done: {', '.join(names) or 'the controller does not answer'}; "
                    "workers that have no successor go on serving"
                )
            sleep(TICK_S)


def _is_ready(worker: WorkerStatus) -> bool:
    return worker.phase in {"serving", "drained"} and not worker.outdated

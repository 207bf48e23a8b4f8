"""What a controller that has died leaves behind: workers that go on serving, an exporter."""

import signal
from pathlib import Path

from aegis.limits import KILL_AFTER_S
from aegis.runtime import living, open_process
from control.process import Process


def orphaned_workers(runtime_dir: Path) -> dict[int, Process]:
    """Return the workers that live in a runtime directory, by pid; end its exporter.

    The exporter holds nothing that the workers' next telemetry does not bring back.
    """
    workers = {}
    for claim in living(runtime_dir):
        if claim.role == "controller" or not claim.supervised:
            continue
        pidfd = open_process(runtime_dir, claim)
        if pidfd is None:
            continue
        process = Process(claim.pid, pidfd, None)
        if claim.role == "worker":
            workers[claim.pid] = process
            continue
        process.signal(signal.SIGTERM)
        if not process.wait(KILL_AFTER_S):
            process.signal(signal.SIGKILL)
            process.wait(KILL_AFTER_S)
        process.close()
    return workers

"""Whether Aegis lives and whether it wants clients, judged by what the exporter has heard.

Pure. An empty answer is a yes; any other is the reason for a no, one line for people.
"""

from aegis.limits import STALE_S
from control.exporter.state import Snapshot


def why_unhealthy(snapshot: Snapshot, now: float) -> str:
    """Return why nobody seems to be there."""
    if not snapshot.heard_at:
        return f"no worker heard in the {now - snapshot.started:.1f} s since the exporter started"
    age = now - max(snapshot.heard_at.values())
    return f"no worker heard for {age:.1f} s" if age > STALE_S else ""


def why_not_ready(snapshot: Snapshot, now: float) -> str:
    """Return why no new client should come; without a controller the workers alone decide."""
    controller = snapshot.controller(now)
    if controller is not None and controller.phase not in {"starting", "serving"}:
        return f"aegis is {controller.phase}"
    fresh = snapshot.fresh(now)
    phases = [heard.figures.phase for heard in fresh]
    if "serving" in phases:
        return ""
    if not phases:
        return why_unhealthy(snapshot, now) or "the last worker has stopped"
    counts = ", ".join(f"{phases.count(phase)} {phase}" for phase in sorted(set(phases)))
    return f"no worker serves: {counts}"

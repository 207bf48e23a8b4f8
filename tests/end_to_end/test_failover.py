"""Real servers killed, stopped, restarted, drained, added, removed under load: what clients meet.

The scenarios are those of `python -m ops.bench.failover`, with patience for a busy machine.
"""

import pytest

from ops.bench.failover import Result, run
from ops.bench.failover_fronts import Aegis, Front, SharingAegis
from tests.harness import DEADLINE_S
from tests.proxy import needs


class PatientAegis(Aegis):
    patience_s = 4.0


class PatientSharingAegis(SharingAegis):
    patience_s = 4.0


RAW, SHARING = PatientAegis, PatientSharingAegis
PLAIN_LOSSES = {"persistent closed", "persistent reset", "short closed", "short reset"}


def played(kind: type[Front], scenario: str, protocol: str) -> Result:
    needs("dnsmasq", *(["redis-server"] if protocol == "resp" else []))
    result = run(kind, scenario, protocol, patience_s=2 * DEADLINE_S, outage_s=1.0)
    assert result.seen.answers > 100
    return result


def begun_after(result: Result, event: str) -> list[tuple[float, str, str]]:
    return [error for error in result.seen.errors if error[0] > result.events[event]]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("scenario", "protocol"), [("kill", "resp"), ("kill", "line"), ("restart", "line")]
)
def test_only_what_was_under_way_on_a_killed_server_is_lost(scenario: str, protocol: str) -> None:
    result = played(RAW, scenario, protocol)
    counts = result.seen.counts()
    assert set(counts) <= PLAIN_LOSSES
    later = [error for error in begun_after(result, "gone") if error[1] == "short"]
    assert later == [], "who comes later gets another server"
    persistent = counts.get("persistent closed", 0) + counts.get("persistent reset", 0)
    assert persistent <= 5, "a quarter of twenty"
    assert result.back_s < float("inf"), "it has sessions again"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("protocol", ["resp", "line"])
def test_sessions_on_a_server_that_hangs_are_reset_when_that_is_known_and_no_others(
    protocol: str,
) -> None:
    result = played(RAW, "stop", protocol)
    assert set(result.seen.counts()) <= PLAIN_LOSSES, "reset, and not left to time out"
    assert begun_after(result, "back") == []
    assert result.back_s < float("inf")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("kind", "protocol"), [(RAW, "resp"), (SHARING, "line")])
@pytest.mark.parametrize("scenario", ["drain", "add", "remove"])
def test_who_drains_adds_or_removes_a_server_costs_nobody_anything(
    kind: type[Front], scenario: str, protocol: str
) -> None:
    result = played(kind, scenario, protocol)
    assert result.seen.errors == []
    if scenario != "remove":
        assert result.back_s < float("inf")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("scenario", ["kill", "stop", "restart"])
def test_clients_that_share_pipes_meet_errors_of_requests_that_were_written_and_no_other(
    scenario: str,
) -> None:
    result = played(SHARING, scenario, "resp")
    words = {what.partition(" reply ")[2] for what in result.seen.counts()}
    assert words <= {repr(b"-ERR aegis: server_lost"), repr(b"-ERR aegis: server_down")}
    assert begun_after(result, "back") == []

"""Who is alive in a runtime directory, with processes that die in every way and at every moment."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from aegis.errors import AegisError
from aegis.runtime import (
    AlreadyRunningError,
    Claim,
    drop_claim,
    living,
    open_process,
    open_runtime_dir,
    read_claim,
    take_claim,
)

HOLD = """
import os, sys
from pathlib import Path
from aegis.runtime import Claim, take_claim
take_claim(Path(sys.argv[1]), Claim("controller", os.getpid()))
print("held", flush=True)
sys.stdin.read()
"""
READ_FOR_EVER = """
import sys
from pathlib import Path
from aegis.runtime import read_claim
print("reading", flush=True)
while True:
    read_claim(Path(sys.argv[1]))
"""


@pytest.fixture
def own() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def run(own: contextlib.ExitStack, program: str, path: Path) -> subprocess.Popen[bytes]:
    child = own.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    )
    own.callback(child.kill)
    assert child.stdout is not None
    assert child.stdout.readline()
    return child


def kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def test_a_second_claim_names_the_holder(own: contextlib.ExitStack, tmp_path: Path) -> None:
    holder = run(own, HOLD, tmp_path)
    with pytest.raises(AlreadyRunningError, match=f"pid {holder.pid}"):
        take_claim(tmp_path, Claim("controller", os.getpid()))
    assert living(tmp_path) == [Claim("controller", holder.pid)]


def test_the_file_of_a_killed_process_is_stale_and_goes(
    own: contextlib.ExitStack, tmp_path: Path
) -> None:
    kill(run(own, HOLD, tmp_path))
    path = tmp_path / "controller.pid"
    assert path.exists()
    assert read_claim(path) is None
    assert not path.exists()


def test_a_stale_file_does_not_stop_the_next(own: contextlib.ExitStack, tmp_path: Path) -> None:
    kill(run(own, HOLD, tmp_path))
    claim = Claim("controller", os.getpid())
    own.callback(os.close, take_claim(tmp_path, claim))
    assert living(tmp_path) == [claim]


def test_a_longer_claim_before_leaves_nothing_in_the_next(
    own: contextlib.ExitStack, tmp_path: Path
) -> None:
    path = tmp_path / "controller.pid"
    path.write_bytes(msgspec.json.encode(Claim("controller", 2**31, unix_paths=("/x" * 90,))))
    claim = Claim("controller", os.getpid())
    own.callback(os.close, take_claim(tmp_path, claim))
    assert living(tmp_path) == [claim]


def test_a_process_that_got_the_pid_later_is_not_the_claims(tmp_path: Path) -> None:
    claim = Claim("worker", os.getpid(), slot=0)  # a living process that holds no such lock
    (tmp_path / claim.file_name).write_bytes(msgspec.json.encode(claim))
    assert open_process(tmp_path, claim) is None
    assert living(tmp_path) == []


def test_a_process_is_opened_while_it_lives_and_not_after(
    own: contextlib.ExitStack, tmp_path: Path
) -> None:
    holder = run(own, HOLD, tmp_path)
    claim = Claim("controller", holder.pid)
    pidfd = open_process(tmp_path, claim)
    assert pidfd is not None
    own.callback(os.close, pidfd)
    kill(holder)
    assert open_process(tmp_path, claim) is None
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)


def test_a_dropped_claim_leaves_no_file(tmp_path: Path) -> None:
    claim = Claim("worker", os.getpid(), slot=3)
    fd = take_claim(tmp_path, claim)
    drop_claim(tmp_path, claim)
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_two_workers_of_a_slot_have_two_files() -> None:
    assert Claim("worker", 1, slot=0).file_name != Claim("worker", 2, slot=0).file_name


def test_the_lock_is_not_inherited_by_children(own: contextlib.ExitStack, tmp_path: Path) -> None:
    claim = Claim("controller", os.getpid())
    fd = take_claim(tmp_path, claim)
    child = own.enter_context(subprocess.Popen(["sleep", "1000"], close_fds=False))
    own.callback(child.kill)
    os.close(fd)
    assert living(tmp_path) == []


@pytest.mark.parametrize("stale", [False, True])
def test_who_only_looks_never_gets_in_the_way_of_who_starts(
    own: contextlib.ExitStack, tmp_path: Path, stale: bool
) -> None:
    """`aegis-ctl` looks ten times a second, also at the moment at which a controller starts."""
    claim = Claim("controller", os.getpid())
    path = tmp_path / claim.file_name
    for _ in range(2):
        run(own, READ_FOR_EVER, path)
    until = monotonic() + 2
    rounds = 0
    while monotonic() < until:
        rounds += 1
        try:
            fd = take_claim(tmp_path, claim)
        except AlreadyRunningError as error:
            pytest.fail(f"nobody holds it, yet in round {rounds}: {error}")
        assert path.exists(), f"the file of a living process was removed in round {rounds}"
        if not stale:
            drop_claim(tmp_path, claim)
        os.close(fd)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_directory_that_lets_others_in_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(AegisError, match=f"mode {mode:04o} lets others in"):
        open_runtime_dir(path)


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    assert open_runtime_dir(path) == path
    assert path.stat().st_mode & 0o777 == 0o700


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make a directory that is somebody else's")
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(AegisError, match="owned by uid 65534"):
        open_runtime_dir(path)


def test_a_path_that_leaves_no_room_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AegisError, match="longer than 80 bytes"):
        open_runtime_dir(tmp_path / ("x" * 80))

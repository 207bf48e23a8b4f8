"""Fixtures for all tests, and the rule that a test leaves nothing behind."""

import os
import random
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import settings

# Tests start thousands of processes, each of which would compile all of Aegis again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
settings.register_profile("aegis", deadline=None)  # a busy machine is no fault of what it runs
settings.load_profile("aegis")
pytest.register_assert_rewrite("tests.harness")

from tests.harness import Rig  # noqa: E402 - only now, so that its assertions explain themselves


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Every process and thread that a test starts has ended when the test has."""
    ours = {p.pid for p in psutil.Process().children(recursive=True)}
    threads = set(threading.enumerate())
    yield
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in ours]
    for process in left:
        process.kill()
    assert left == []
    assert [t for t in threading.enumerate() if t not in threads] == []


@pytest.fixture
def rng() -> random.Random:
    """Chance with a seed that is printed; AEGIS_TEST_SEED repeats it."""
    seed = int(os.environ.get("AEGIS_TEST_SEED", secrets.randbits(32)))
    print(f"AEGIS_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Real sockets and worker processes; a test that passes has its workers' accounts checked."""
    # Not tmp_path: a unix socket's path has 107 bytes.
    with TemporaryDirectory(prefix="aegis-") as directory:
        made = Rig(Path(directory))
        try:
            yield made
            made.finish()
        finally:
            made.close()

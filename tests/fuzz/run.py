"""Fuzz the targets with atheris, one after another: `python -m tests.fuzz.run MINUTES [TARGET…]`.

Each target has its share of the minutes in a process of its own. What it has found worth keeping is
in build/fuzz/TARGET and where the next run begins; what fails is in build/fuzz/TARGET-crash-….
"""

import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPORA = Path(__file__).parents[2] / "build" / "fuzz"
MAX_INPUT_BYTES = 4096
RSS_LIMIT_MB = 1024
"""A target that grows without end ends here; the interpreter and the coverage take some 100."""
SLOW_INPUT_S = 60


def run(target: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own and say what came of it."""
    corpus = CORPORA / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-timeout={SLOW_INPUT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MB}", "-print_final_stats=1",
        f"-artifact_prefix={CORPORA}/{target}-", str(corpus),
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzzer", target, *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    said = dict(re.findall(r"stat::(\w+):\s+(\d+)", result.stdout))
    print(
        f"{target}: {said.get('number_of_executed_units', '?')} executions, "
        f"peak {said.get('peak_rss_mb', '?')} MB, exit {result.returncode}",
        flush=True,
    )
    if result.returncode:
        print(result.stdout[-6000:])
    return not result.returncode


def main() -> int:
    """Run what the arguments say; 1 if something was found."""
    names = sys.argv[2:] or list(TARGETS)
    seconds = max(1, round(float(sys.argv[1]) * 60 / len(names)))
    failed = [name for name in names if not run(name, seconds)]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

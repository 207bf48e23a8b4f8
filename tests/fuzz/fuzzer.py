"""Be the fuzzer of one target: `python -m tests.fuzz.fuzzer TARGET [libFuzzer's options]`."""

import sys

import atheris

with atheris.instrument_imports(include=["aegis", "tomllib"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()

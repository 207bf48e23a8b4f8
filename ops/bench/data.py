"""The data of a run, as it is kept in a file: everything the report and the plots are made from."""

from pathlib import Path

import msgspec

from ops.bench.rows import Figures


class Outcome(msgspec.Struct, frozen=True):
    """One measurement, or why there is none."""

    row: str
    peer: str
    round: int
    figures: Figures = {}
    failure: str | None = None


class Settings(msgspec.Struct, frozen=True):
    """How the run was asked for."""

    rounds: int
    quick: bool
    rows: list[str]
    peers: list[str]
    left_out: dict[str, str]
    """Peers that cannot take part, and why."""


class Run(msgspec.Struct):
    """One run."""

    machine: dict[str, str]
    versions: dict[str, str]
    settings: Settings
    outcomes: list[Outcome]

    def figures_of(self, row: str, peer: str) -> dict[int, Figures]:
        """Return what a peer reached in each round it finished."""
        return {
            outcome.round: outcome.figures
            for outcome in self.outcomes
            if (outcome.row, outcome.peer) == (row, peer) and outcome.failure is None
        }

    def failures_of(self, row: str, peer: str) -> list[Outcome]:
        """Return the rounds in which a peer has no figures."""
        return [
            outcome
            for outcome in self.outcomes
            if (outcome.row, outcome.peer) == (row, peer) and outcome.failure is not None
        ]


def save(run: Run, path: Path) -> None:
    """Write the data; a file that is there is replaced at once, never half."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    part.replace(path)


def load(path: Path) -> Run:
    """Read the data.

    Raises:
        msgspec.DecodeError: it is not such a file.
    """
    return msgspec.json.decode(path.read_bytes(), type=Run)

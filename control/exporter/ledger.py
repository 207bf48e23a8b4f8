"""What the exporter knows, in a file of the runtime directory, for the one that comes after it.

Living workers tell everything again within a second. What the dead ones had counted nobody else
knows: without the file a killed exporter would take it along, and counters would fall. It is
written each second, and another boot's pids and instants mean nothing.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from aegis.figures import Figures
from aegis.metrics import CATALOGUE
from aegis.runtime import EXPORTER_LEDGER_FILE, boot_id
from control import kept_file
from control.exporter.counts import Counts, counters, is_well_formed
from control.exporter.state import Heard, Snapshot

_METRICS = {metric.name: metric for metric in CATALOGUE}

_Row = tuple[str, tuple[str, ...], tuple[float, ...]]

log = logging.getLogger(__name__)


class _Process(msgspec.Struct):
    at: float
    figures: Figures


class _Saved(msgspec.Struct):
    boot: str
    folded: dict[int, list[_Row]]
    processes: list[_Process]
    restarts: int | None = None


_decode = msgspec.msgpack.Decoder(_Saved).decode


class Ledger:
    """The file; only for who holds the exporter's claim."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / EXPORTER_LEDGER_FILE
        self._boot = boot_id()
        self._failed = False

    def read(self) -> tuple[Mapping[int, Counts], list[Heard], int | None]:
        """Return the sums of the dead by slot, the last words of the others, exporters' deaths."""
        saved = kept_file.read(self._path, _decode, log, "counting anew")
        if saved is None or saved.boot != self._boot:
            return {}, [], None
        folded = {slot: _counts(rows) for slot, rows in saved.folded.items()}
        heard = [
            Heard(each.figures, counters(each.figures), each.at)
            for each in saved.processes
            if is_well_formed(each.figures)
        ]
        return folded, heard, saved.restarts

    def write(self, snapshot: Snapshot) -> None:
        """Write what is known; a disk that is full costs a warning."""
        restarts = snapshot.exporter_restarts
        saved = _Saved(
            boot=self._boot,
            folded={slot: _rows(counts) for slot, counts in snapshot.folded.items()},
            processes=[_saved(heard) for heard in snapshot.processes],
            restarts=snapshot.restarts_before if restarts is None else restarts,
        )
        try:
            kept_file.write(self._path, msgspec.msgpack.encode(saved))
        except OSError as error:
            if not self._failed:
                log.warning("%s: %s; a killed exporter would forget", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False

    def remove(self) -> None:
        """Forget; when there is no worker left whose counters must go on."""
        kept_file.remove(self._path)


def _saved(heard: Heard) -> _Process:
    return _Process(heard.at, heard.figures)


def _rows(counts: Counts) -> list[_Row]:
    return [(metric.name, labels, numbers) for (metric, labels), numbers in counts.items()]


def _counts(rows: list[_Row]) -> Counts:
    """Return the rows that fit the catalogue, which may be another version's."""
    counts: Counts = {}
    for name, labels, numbers in rows:
        metric = _METRICS.get(name)
        if metric is None or len(labels) != len(metric.labels):
            continue
        if len(numbers) == (len(metric.bounds) + 2 if metric.kind == "histogram" else 1):
            counts[metric, labels] = numbers
    return counts

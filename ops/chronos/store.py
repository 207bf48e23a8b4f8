"""The database: reads at once, writes gathered into one synced batch per turn of the loop.

    put/delete ─▶ staged ─▶ commit(): WriteBatch ─▶ write-ahead log, fdatasync ─▶ replies go out

A staged write is seen by every read that follows it, and nobody hears of it before `commit` has
returned: a reply that depends on the batch is staked, and a batch that fails replaces it by an
error. A failed write is not acknowledged, but may turn up after a restart all the same: the log
can hold it although its sync failed.

Facts: `kill -9` loses nothing that was written to the log, a power cut nothing that was synced.
RocksDB refuses every write after one that failed in the log until the database is opened anew
(facebook/rocksdb#11643); it has no other way back through rocksdict, which offers no Resume().
"""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rocksdict import AccessType, Options, Rdict, WriteBatch, WriteOptions

from ops.chronos.limits import OPEN_TABLES, REOPEN_S

READ_ONLY = AccessType.read_only(error_if_log_file_exist=False)  # reads the log as well
# What an answer becomes when the batch it counted on fails, given why.
Failure = Callable[[bytes], bytes]
Stake = tuple[list[bytes], int, Failure]


class StoreError(Exception):
    """The database could not do what was asked; the text is one line."""

    def __init__(self, cause: object) -> None:
        super().__init__(" ".join(str(cause).split()))

    @property
    def why(self) -> bytes:
        """The text as a protocol sends it."""
        return str(self).encode(errors="replace")


def default_options() -> Options:
    """Return the options Chronos opens its database with."""
    options = Options(raw_mode=True)  # keys and values are bytes, stored as they are
    options.create_if_missing(True)
    options.set_max_open_files(OPEN_TABLES)
    options.set_keep_log_file_num(4)
    return options


class Store:
    """A RocksDB database in a directory of its own, open to one process.

    Raises:
        StoreError: from the constructor, when the directory cannot be made or used.
    """

    def __init__(self, directory: Path, options: Options | None = None) -> None:
        self._path = str(directory)
        self._options = options or default_options()
        self._durably = WriteOptions()
        self._durably.sync = True
        self._staged: dict[bytes, bytes | None] = {}  # None: deleted
        self._stakes: list[Stake] = []
        self._compactions: list[Stake] = []
        self._broken: StoreError | None = None  # why RocksDB refuses every write
        self._reopen_at = 0.0  # by time.monotonic(); meant while broken
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(self._path, self._options)
        except Exception as error:  # rocksdict raises nothing more precise
            raise StoreError(error) from error

    def get(self, key: bytes) -> bytes | None:
        """Return the value, staged or stored; None if there is none.

        Raises:
            StoreError: when the database cannot be read.
        """
        if key in self._staged:
            return self._staged[key]
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise StoreError(error) from error
        return value

    def is_staged(self, key: bytes) -> bool:
        """Tell whether what `get` returns still hangs on the commit of this turn."""
        return key in self._staged

    def put(self, key: bytes, value: bytes | None) -> None:
        """Stage a write; None as the value deletes the key."""
        self._staged[key] = value

    def stake(self, replies: list[bytes], failure: Failure) -> None:
        """Let the reply that is appended to `replies` next stand only if the batch commits."""
        self._stakes.append((replies, len(replies), failure))

    def compact(self, replies: list[bytes], failure: Failure) -> None:
        """Compact everything after this turn's commit; stakes the next reply on it.

        The loop stands still meanwhile; all who ask in one turn share one compaction.
        """
        self._compactions.append((replies, len(replies), failure))

    def commit(self) -> None:
        """Make this turn's writes durable; on failure replace the replies that are staked on it."""
        if self._staged:
            try:
                self._write()
            except StoreError as error:
                fail(self._stakes, error)
            self._staged.clear()
            self._stakes.clear()
        if self._compactions:
            try:
                self._db.compact_range(None, None)
            except Exception as error:  # noqa: BLE001 - told to those who asked, as it is
                fail(self._compactions, StoreError(error))
            self._compactions.clear()

    def close(self) -> None:
        """Close the database; what was acknowledged is in its log already, so nothing can fail."""
        with suppress(Exception):  # RocksDB repeats the error of a write that failed long ago
            self._db.close()

    def _write(self) -> None:
        if self._broken is not None:
            self._reopen(self._broken)
        batch = WriteBatch(raw_mode=True)
        for key, value in self._staged.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        try:
            self._db.write(batch, self._durably)
        except Exception as error:
            self._broken = StoreError(error)
            self._reopen_at = time.monotonic() + REOPEN_S
            warn(f"a commit failed: {error}")
            raise self._broken from error

    def _reopen(self, broken: StoreError) -> None:
        """Open the database anew, or at least for reading; try once in REOPEN_S.

        Raises:
            StoreError: writes are still refused, and why.
        """
        if time.monotonic() < self._reopen_at:
            raise broken
        self._reopen_at = time.monotonic() + REOPEN_S
        self.close()
        try:
            self._db = Rdict(self._path, self._options)
        except Exception as error:
            self._broken = StoreError(error)
            with suppress(Exception):  # then reads fail too, and each tells why
                self._db = Rdict(self._path, self._options, access_type=READ_ONLY)
            raise self._broken from error
        self._broken = None
        warn("the database is open for writing again")


def warn(text: str) -> None:
    """Tell the operator; a closed stderr must not end the server."""
    with suppress(OSError):
        print(f"chronos: {text}", file=sys.stderr, flush=True)


def fail(stakes: list[Stake], error: StoreError) -> None:
    """Replace each staked reply by its failure."""
    for replies, index, failure in stakes:
        replies[index] = failure(error.why)

"""What a process says of itself on standard error: events, as text or as one JSON object a line.

    text      2026-11-23 14:03:07,123 INFO control.seat[4711] worker 0: started pid 4712
    json      {"time":"2026-11-23T14:03:07.123Z","level":"info","logger":"control.seat","pid":4711,
               "message":"worker 0: started pid 4712","event":"process_started","seat":"worker 0"}
    journal   <6>INFO control.seat[4711] worker 0: started pid 4712

An event's fields are what the logging call passes in `extra`, `event` first: a name that stays
although the words of the message may change. When standard error is the journal's, it knows the
time, and takes the priority from the `<N>` in front of each line (sd-daemon(3)).
"""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO, get_args

import msgspec

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[str, ...] = get_args(LogFormat)
FORMAT_VARIABLE = "AEGIS_LOG_FORMAT"
"""Environment variable that outranks the configuration; the processes we start inherit it."""

_TEXT = "%(levelname)s %(name)s[%(process)d] %(message)s"
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_OF_EVERY_RECORD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure_logging(configured: LogFormat = "text") -> None:
    """Log to standard error from now on, in the format of the environment or the configured one."""
    chosen = os.environ.get(FORMAT_VARIABLE, configured)
    handler = logging.StreamHandler(sys.stderr)
    journal = is_journal(sys.stderr)
    formatter: logging.Formatter
    if chosen == "json":
        formatter = JsonFormatter(with_time=not journal)
    else:
        formatter = logging.Formatter(_TEXT if journal else f"%(asctime)s {_TEXT}")
    handler.setFormatter(JournalFormatter(formatter) if journal else formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def is_journal(stream: TextIO) -> bool:
    """Whether what is written to the stream goes to systemd's journal.

    JOURNAL_STREAM holds device and inode of the stream that systemd made, and is inherited by those
    who have been redirected since (systemd.exec(5)).
    """
    try:
        info = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


class JsonFormatter(logging.Formatter):
    """One object a line: the same keys in every line, then the event's own."""

    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break in it."""
        line: dict[str, object] = {}
        if self._with_time:
            at = datetime.fromtimestamp(record.created, UTC)
            line["time"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line["level"] = record.levelname.lower()
        line["logger"] = record.name
        line["pid"] = record.process
        line["message"] = record.getMessage()
        line |= {k: v for k, v in record.__dict__.items() if k not in _OF_EVERY_RECORD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class JournalFormatter(logging.Formatter):
    """Puts the priority in front of each line, of which the journal makes an entry each."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of one record."""
        priority = _PRIORITIES.get(record.levelno, 2)
        return "\n".join(f"<{priority}>{line}" for line in self._inner.format(record).split("\n"))

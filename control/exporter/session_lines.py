"""A session's record as a line: HAProxy's tcplog, or JSON. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from aegis.session_records import SessionBatch, SessionRecord, termination

# Not strftime's %b, which speaks the locale's language.
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_encode = msgspec.json.Encoder().encode

Line = Callable[[SessionBatch, SessionRecord], str]

NO_INSTANT = (OverflowError, ValueError, OSError)
"""What a line raises for a number that no calendar has (datetime.fromtimestamp)."""


def tcplog_line(batch: SessionBatch, record: SessionRecord) -> str:
    """Return the fields of HAProxy's `option tcplog` (its manual, 8.2.2), then four of ours.

    The date is UTC. HAProxy's bytes are those sent to the client; the others are `up`. What would
    end a field, or the line, is percent-encoded.
    """
    server = f"{_field(record.backend)}/{_field(record.server) or '<NOSRV>'}"
    times = f"{record.queue_ms}/{record.connect_ms}/{record.total_ms}"
    active = (
        f"{record.worker_sessions}/{record.listener_sessions}/{record.backend_connections}/"
        f"{record.server_connections}/{record.retries}"
    )
    return (
        f"{_field(record.client)} [{_tcplog_date(batch.clock_offset + record.began)}] "
        f"{_field(record.listener)} {server} {times} {record.server_bytes} "
        f"{termination(record)} {active} "
        f"0/{record.queued_behind} up={record.client_bytes} requests={record.requests} "
        f"worker={batch.slot} reason={record.reason}"
    )


def json_line(batch: SessionBatch, record: SessionRecord) -> str:
    """Return one object with the record's fields under their names."""
    began = datetime.fromtimestamp(batch.clock_offset + record.began, UTC)
    line: dict[str, object] = {
        "time": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "worker": batch.slot,
        "termination": termination(record),
    }
    for field in record.__struct_fields__:
        if field != "began":
            line[field] = getattr(record, field)
    return _encode(line).decode()


def _field(text: str) -> str:
    """Return what configuration or peers say as one field: a unix socket's path may have blanks."""
    if text.isprintable() and " " not in text and "%" not in text:
        return text
    return "".join(c if c.isprintable() and c not in " %" else quote(c, safe="") for c in text)


def _tcplog_date(unix_s: float) -> str:
    at = datetime.fromtimestamp(unix_s, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S}.{at.microsecond // 1000:03}"


LINES: dict[str, Line] = {"tcplog": tcplog_line, "json": json_line}

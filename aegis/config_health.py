"""How the health of a backend's servers is found out: by checks, and by what befalls clients.

HAProxy's words for the checks (inter, rise, fall), Envoy's for the rest (outlier detection).
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aegis import limits
from aegis.config_types import PositiveTimeout, Timeout

_BYTES_ALLOWED = "characters from U+0000 to U+00FF, each of which is one byte"
_STATUS = re.compile(r"[1-5][0-9][0-9](-[1-5][0-9][0-9])?")
_STATUS_ALLOWED = 'codes and ranges such as "200-399" or "200,204,300-399"'
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_TARGET = re.compile(r"/[!-~]*|\*")
_HOST = re.compile(r"[!-~]+")


def _parse_bytes(text: str) -> None:
    if any(ord(character) > 255 for character in text):
        raise ValueError(_BYTES_ALLOWED)


def parse_status(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of status codes, ends included.

    Raises:
        ValueError: with a sentence that says what is allowed instead.
    """
    ranges = []
    for part in text.split(","):
        if not _STATUS.fullmatch(part.strip()):
            raise ValueError(_STATUS_ALLOWED)
        low, _, high = part.strip().partition("-")
        ranges.append((int(low), int(high or low)))
    if any(low > high for low, high in ranges):
        raise ValueError(f"{_STATUS_ALLOWED}, the lower code first")
    return tuple(ranges)


def _matching(pattern: re.Pattern[str], words: str) -> Meta:
    def parse(text: str) -> None:
        if not pattern.fullmatch(text):
            raise ValueError(words)

    return Meta(extra={"allowed": words, "parse": parse})


Bytes = Annotated[str, Meta(extra={"allowed": _BYTES_ALLOWED, "parse": _parse_bytes})]
Status = Annotated[str, Meta(extra={"allowed": _STATUS_ALLOWED, "parse": parse_status})]
Method = Annotated[str, _matching(_TOKEN, 'an HTTP method, such as "GET"')]
Target = Annotated[str, _matching(_TARGET, '"*", or a path that begins with "/"')]
Host = Annotated[str, _matching(_HOST, "a host, and a port if need be, without spaces")]
Times = Annotated[int, Meta(ge=1, le=limits.MAX_CHECKS)]


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How each server is checked: by the controller, once, whatever the number of workers."""

    type: Annotated[
        Literal["tcp", "ping", "send", "http"],
        Meta(
            description="What a check does: connect; send the protocol's ping and read its reply; "
            "send bytes and look for others in the answer; ask by HTTP for a status."
        ),
    ] = "tcp"
    inter_s: Annotated[
        PositiveTimeout, Meta(description="From one check of a server to the next.")
    ] = 2.0
    fast_inter_s: Annotated[
        Timeout,
        Meta(
            description="The same while the last check contradicts what the server is held for; "
            "0 = `inter_s`."
        ),
    ] = 0.0
    down_inter_s: Annotated[
        Timeout, Meta(description="The same while the server is down; 0 = `inter_s`.")
    ] = 0.0
    rise: Annotated[
        Times, Meta(description="So many checks in a row must succeed before a server is up.")
    ] = 2
    fall: Annotated[
        Times,
        Meta(
            description="So many in a row must fail before it is down; of a server that was never "
            "checked, one."
        ),
    ] = 3
    jitter_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=50,
            description="Each interval is longer or shorter by up to so much, so that checks "
            "of many servers do not come together.",
        ),
    ] = 10
    connect_timeout_s: Annotated[
        PositiveTimeout, Meta(description="How long a check's connect may take.")
    ] = 1.0
    reply_timeout_s: Annotated[
        PositiveTimeout, Meta(description="How long its answer may take after that.")
    ] = 1.0
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port that is checked; 0 = the server's own.")
    ] = 0
    protocol: Annotated[
        str,
        Meta(
            description="For `ping`, whose: a protocol with a framer. Empty: that of the listeners "
            "which use the backend.",
            extra={"allowed": '"" or the name of a protocol'},
        ),
    ] = ""
    send: Annotated[
        Bytes, Meta(description="For `send`: what is sent; a character is a byte. May be empty.")
    ] = ""
    expect: Annotated[
        Bytes,
        Meta(
            description="For `send`: what must be in the answer's first "
            f"{limits.CHECK_REPLY_BYTES} bytes; empty: any byte will do."
        ),
    ] = ""
    method: Annotated[Method, Meta(description="For `http`: the request's method.")] = "GET"
    path: Annotated[Target, Meta(description="For `http`: its target.")] = "/"
    host: Annotated[Host, Meta(description="For `http`: its Host header.")] = "localhost"
    status: Annotated[Status, Meta(description="For `http`: the status codes that mean well.")] = (
        "200-399"
    )


class OutlierDetection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a server gets no new sessions for a while because of what befell its clients."""

    consecutive_failures: Annotated[
        Times,
        Meta(
            description="So many failures in a row, over all workers: connects that fail, "
            "resets, replies that are lost or do not come. What a server says ends a row, "
            f"and so do {limits.FAILURES_FORGOTTEN_S:g} seconds."
        ),
    ] = 5
    base_ejection_s: Annotated[
        PositiveTimeout,
        Meta(description="For how long; the second time twice as long, then three times."),
    ] = 30.0
    max_ejection_s: Annotated[
        PositiveTimeout,
        Meta(
            description="And how long at most; a server that was not ejected for so long begins "
            "anew."
        ),
    ] = 300.0
    max_ejection_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Part of a backend's servers that may be ejected at a time; the last "
            "that is usable never is.",
        ),
    ] = 50

"""Finds one backend's servers again and again, in the background's event loop.

┌─▶ look ─▶ another answer than before ─▶ Found ─▶ controller
│     └──── failed: Found with the reason, once; the servers of before stay
└── wait: the answer's TTL, or after a failure a while that doubles; a file: a second
"""

import asyncio
import logging
from collections.abc import Callable

from aegis.config_backend import parse_discover
from aegis.limits import (
    DNS_REFRESH_MAX_S,
    DNS_REFRESH_MIN_S,
    DNS_RETRY_MAX_S,
    FILE_LOOK_S,
)
from control.discovery.finding import Find, FindError, Found
from control.discovery.lookup import Answer, Lookup
from control.discovery.server_file import parse_servers, read_text

log = logging.getLogger(__name__)


class Finder:
    """The look-ups of one backend; `run` is its task."""

    def __init__(self, find: Find, tell: Callable[[Found], None]) -> None:
        self._find = find
        self._tell = tell
        self._kind, self._what, self._port = parse_discover(find.discover)
        self._lookup = Lookup(find.dns)
        self._text: str | None = None
        self._told: Found | None = None
        self._retry_s = DNS_REFRESH_MIN_S

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(await self.look())

    async def look(self) -> float:
        """Look once and tell what is new; returns when to look again, in seconds."""
        before = self._told.servers if self._told is not None else ()
        try:
            answer = await self._ask()
        except FindError as error:
            answer = Answer(before, 0.0, str(error))
        except Exception as error:
            log.exception("looking for the servers of %s failed in itself", self._find.backend)
            answer = Answer(before, 0.0, f"error: {error}")
        found = Found(self._find, answer.servers, answer.failure)
        if found != self._told:
            self._told = found
            self._tell(found)
        return self._again_s(answer)

    async def _ask(self) -> Answer:
        if self._kind == "srv":
            return await self._lookup.of_service(self._what)
        if self._kind == "dns":
            return await self._lookup.of_name(self._what, self._port)
        text = read_text(self._what)
        if text != self._text or self._told is None:
            servers = parse_servers(text, self._what)
            self._text = text  # what was wrong is told again, by the same words
            return Answer(servers, FILE_LOOK_S)
        return Answer(self._told.servers, FILE_LOOK_S)

    def _again_s(self, answer: Answer) -> float:
        if self._kind == "file":
            return FILE_LOOK_S
        if not answer.failure:
            self._retry_s = DNS_REFRESH_MIN_S
            return min(max(answer.ttl_s, DNS_REFRESH_MIN_S), DNS_REFRESH_MAX_S)
        retry_s, self._retry_s = self._retry_s, min(2 * self._retry_s, DNS_RETRY_MAX_S)
        return retry_s

"""Servers from DNS: all addresses of a name, or of the targets of its SRV records.

    dns:HOST:PORT ─▶ A and AAAA of HOST ─▶ each address is a server
    srv:NAME ─▶ SRV of NAME ─▶ A and AAAA of each target ─▶ each address is one, with the record's
                               weight and port; those above the lowest priority are backups

What cannot be had (a time-out, SERVFAIL, NXDOMAIN) is taken to be as it was at last. An answer is
good for as long as the shortest TTL on the way to it, CNAMEs and targets included.
Sources: RFC 1035, 3.2.1 (TTL); RFC 2782 (SRV).
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdtypes.IN.SRV
import dns.resolver

from aegis.addresses import parse_address, parse_server_address
from aegis.config_backend import Dns, Server
from aegis.limits import MAX_SERVERS
from control.discovery.finding import FindError

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The servers, and how long they are good for."""

    servers: tuple[Server, ...]
    ttl_s: float
    failure: str = ""
    """What could not be had, and is as it was."""


class _Records(NamedTuple):
    """The records of one type of a name, as they were at last if they cannot be had now."""

    records: tuple[object, ...]
    ttl_s: float
    failure: str = ""


class _Addresses(NamedTuple):
    """A host's addresses, sorted: name servers turn them around, and that is no change."""

    texts: list[str]
    ttl_s: float
    failure: str


class Lookup:
    """Looks one name up again and again; remembers what it was told last."""

    def __init__(self, conf: Dns) -> None:
        self._conf = conf
        self._last: dict[tuple[str, str], tuple[object, ...]] = {}

    async def of_name(self, host: str, port: int) -> Answer:
        """Return a server for each address of a host.

        Raises:
            FindError: there is none, or none is known.
        """
        found = await self._addresses(self._resolver(), host)
        servers = [_server(address, port) for address in found.texts]
        why_none = found.failure or f"{host} has no addresses"
        return Answer(_distinct(servers, why_none), found.ttl_s, found.failure)

    async def of_service(self, name: str) -> Answer:
        """Return the servers that a name's SRV records tell of.

        Raises:
            FindError: there is none, or none is known.
        """
        resolver = self._resolver()
        found = await self._ask(resolver, name, "SRV")
        records = [r for r in found.records if isinstance(r, dns.rdtypes.IN.SRV.SRV)]
        records = [r for r in records if r.target != dns.name.root]  # "." means: not here
        records.sort(key=lambda r: (r.priority, r.target, r.port))
        targets = list(dict.fromkeys(record.target.to_text() for record in records))
        looks = [self._addresses(resolver, each) for each in targets]
        of_targets = list(await asyncio.gather(*looks))
        answers = dict(zip(targets, of_targets, strict=True))
        self._last = {key: last for key, last in self._last.items() if key[0] in {name, *targets}}
        servers = [
            _server(
                address,
                record.port,
                weight=max(1, record.weight),
                backup=record.priority > records[0].priority,
            )
            for record in records
            for address in answers[record.target.to_text()].texts
        ]
        failures = [found.failure, *(each.failure for each in of_targets)]
        failure = next(filter(None, failures), "")
        why_none = failure or f"{name} has no SRV records with an address"
        ttl_s = min([found.ttl_s, *(each.ttl_s for each in of_targets)])
        return Answer(_distinct(servers, why_none), ttl_s, failure)

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Make a resolver; each time, because the machine's own may be others by now.

        Raises:
            FindError: this machine has none.
        """
        try:
            resolver = dns.asyncresolver.Resolver(configure=not self._conf.resolvers)
        except dns.exception.DNSException as error:
            raise FindError(str(error)) from None
        resolver.lifetime = self._conf.timeout_s
        if self._conf.resolvers:
            addresses = [parse_address(text).sockaddr for text in self._conf.resolvers]
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(str(address[0]), int(address[1]))
                for address in addresses
            ]
        return resolver

    async def _addresses(self, resolver: dns.asyncresolver.Resolver, host: str) -> _Addresses:
        answers = await asyncio.gather(*(self._ask(resolver, host, t) for t in ("A", "AAAA")))
        return _Addresses(
            sorted(str(record) for answer in answers for record in answer.records),
            min(answer.ttl_s for answer in answers),
            next(filter(None, (answer.failure for answer in answers)), ""),
        )

    async def _ask(self, resolver: dns.asyncresolver.Resolver, name: str, kind: str) -> _Records:
        of_machine = not self._conf.resolvers  # whose search list then counts as well
        try:
            answer = await resolver.resolve(name, kind, raise_on_no_answer=False, search=of_machine)
        except (dns.exception.DNSException, OSError) as error:
            failure = f"{name} {kind}: {_why(error)}"
            return _Records(self._last.get((name, kind), ()), float("inf"), failure)
        records = tuple(answer.rrset or ())
        self._last[name, kind] = records
        return _Records(records, answer.chaining_result.minimum_ttl)


def _why(error: Exception) -> str:
    """Say the same of the same failure: dnspython's own texts have times in them."""
    if isinstance(error, dns.resolver.NXDOMAIN):
        return "no such name"
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no name server answers"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no name server can tell"
    return str(error)


def _server(address: str, port: int, *, weight: int = 1, backup: bool = False) -> Server | None:
    """Return a server; None for an address that cannot be connected to, such as 0.0.0.0."""
    host = f"[{address}]" if ":" in address else address
    try:
        text = parse_server_address(f"{host}:{port}").text
    except ValueError:
        return None
    return Server(address=text, weight=weight, backup=backup)


def _distinct(servers: Iterable[Server | None], why_none: str) -> tuple[Server, ...]:
    first: dict[str, Server] = {}
    for server in servers:
        if server is not None:
            first.setdefault(server.address, server)
    if not first:
        raise FindError(why_none)
    if len(first) > MAX_SERVERS:
        log.warning("%d servers were found; the first %d count", len(first), MAX_SERVERS)
    return tuple(list(first.values())[:MAX_SERVERS])

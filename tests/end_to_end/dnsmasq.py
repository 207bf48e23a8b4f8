"""A real name server for tests: Debian's dnsmasq on loopback."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.bench.name_server import NameServer, name_server
from tests.proxy import needs, reserve_port


@contextlib.contextmanager
def dnsmasq() -> Iterator[NameServer]:
    """Run a name server that knows nothing yet."""
    needs("dnsmasq")
    with contextlib.ExitStack() as own:
        directory = own.enter_context(TemporaryDirectory(prefix="dns-"))
        yield own.enter_context(name_server(Path(directory), reserve_port(own)))

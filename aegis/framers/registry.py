"""From a protocol's name to its framer."""

from collections.abc import Callable

from aegis.framers.contract import Framer
from aegis.framers.http1 import Http1
from aegis.framers.line import Line
from aegis.framers.memcached import Memcached
from aegis.framers.resp import Resp


def make_framer(protocol: str) -> Framer:
    """Make the framer of a listener's protocol; `raw` has none."""
    makers: dict[str, Callable[[], Framer]] = {
        "http1": Http1,
        "line": Line,
        "memcached": Memcached,
        "resp": Resp,
    }
    return makers[protocol]()

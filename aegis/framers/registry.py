"""From a protocol's name to its framer: a built-in one, or one that another package brings."""

from collections.abc import Callable

from aegis.framers.contract import Framer
from aegis.framers.entry_points import GROUP, FramerError, installed_framers, load_framer
from aegis.framers.http1 import Http1
from aegis.framers.line import Line
from aegis.framers.memcached import Memcached
from aegis.framers.resp import Resp


def make_framer(protocol: str) -> Framer:
    """Make the framer of a listener's protocol; `raw` has none.

    Raises:
        FramerError: no package brings it any more, or what it brings is no framer.
    """
    makers: dict[str, Callable[[], Framer]] = {
        "http1": Http1,
        "line": Line,
        "memcached": Memcached,
        "resp": Resp,
    }
    if protocol in makers:
        return makers[protocol]()
    entry_point = installed_framers().get(protocol)
    if entry_point is None:
        raise FramerError(f'no entry point "{protocol}" of group {GROUP} is installed')
    return load_framer(entry_point)

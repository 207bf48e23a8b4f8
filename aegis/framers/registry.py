"""From a protocol's name to its framer: a built-in one, or one that another package brings.

Only those that are asked for are imported: every process of a proxy, and each `aegis-ctl`, would
spend more on compiling the patterns of all than on the rest of its start.
"""

from importlib import import_module

from aegis.framers.contract import Framer
from aegis.framers.entry_points import GROUP, FramerError, installed_framers, load_framer

_BUILT = {"http1": "Http1", "line": "Line", "memcached": "Memcached", "resp": "Resp"}
"""Protocol, which is also the name of its module → class."""


def make_framer(protocol: str) -> Framer:
    """Make the framer of a listener's protocol; `raw` has none.

    Raises:
        FramerError: no package brings it any more, or what it brings is no framer.
    """
    if protocol in _BUILT:
        made: Framer = getattr(import_module(f"aegis.framers.{protocol}"), _BUILT[protocol])()
        return made
    entry_point = installed_framers().get(protocol)
    if entry_point is None:
        raise FramerError(f'no entry point "{protocol}" of group {GROUP} is installed')
    return load_framer(entry_point)

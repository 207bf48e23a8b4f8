"""Framers that other packages bring, by entry points of the group `aegis.framers`.

    [project.entry-points."aegis.framers"]
    myproto = "my_package:MyFramer"         called without arguments, makes a contract.Framer

The name is what a configuration says (`protocol = "myproto"`). Whoever reads a configuration loads
the framers it names, so that `aegis-ctl check` finds what a worker would stumble over; the code of
an installed package that no configuration names is not run.
"""

from typing import TYPE_CHECKING, Any

from aegis.errors import AegisError
from aegis.framers.contract import Framer, Replies, Requests, Setup

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "aegis.framers"
KNOWN_POOLINGS = ("warm", "session", "multiplex")


class FramerError(AegisError):
    """An entry point that brings no framer; the text says which, and what is wrong with it."""


def installed_framers() -> "dict[str, EntryPoint]":
    """Return the entry points by name; of one name in two packages the first that is found."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - few need it, and it is slow

    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=GROUP):
        found.setdefault(each.name, each)
    return found


def load_framer(entry_point: "EntryPoint") -> Framer:
    """Import the entry point, make its framer and hold it to the contract.

    Raises:
        FramerError: it cannot be imported or made, or lacks what the contract asks for.
    """
    place = f'entry point "{entry_point.name}" of group {GROUP} ({entry_point.value})'
    try:
        made = entry_point.load()()
        wrong = _lacking(made, Framer, "it") or _mistaken(made, entry_point.name)
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - anybody's code, fails in any way
        text = " ".join(f"{type(failure).__name__}: {failure}".split())
        wrong = ["".join(c if c.isprintable() else "?" for c in text)]
    if wrong:
        raise FramerError(f"{place} brings no framer: {'; '.join(wrong)}")
    return made  # type: ignore[no-any-return] # it has all the contract asks for


def _lacking(made: object, contract: Any, what: str) -> list[str]:
    names = {*contract.__annotations__, *vars(contract)}
    missing = sorted(name for name in names if name[0] != "_" and not hasattr(made, name))
    return [f"{what} has no {', '.join(missing)}"] if missing else []


def _mistaken(framer: Any, name: str) -> list[str]:
    """Say what is wrong with what a framer has and makes."""
    poolings = framer.poolings
    known = isinstance(poolings, tuple) and set(poolings) <= set(KNOWN_POOLINGS)
    reset = isinstance(framer.reset, Setup)
    checks = {
        f'its name is {framer.name!r}, not "{name}"': framer.name == name,
        f"its poolings are {poolings!r}, not a tuple of {', '.join(KNOWN_POOLINGS)}": known,
        f"its in_flight is {framer.in_flight!r}, not a number above 0": (
            isinstance(framer.in_flight, int) and framer.in_flight > 0
        ),
        f"its ping is {framer.ping!r}, not bytes": isinstance(framer.ping, bytes),
        f"its reset is {framer.reset!r}, not a Setup": reset,
        "its error() returns no bytes": isinstance(framer.error("protocol_error"), bytes),
    }
    return [
        *(what for what, right in checks.items() if not right),
        *_lacking(framer.requests(), Requests, "what its requests() makes"),
        *_lacking(framer.replies(), Replies, "what its replies() makes"),
    ]

"""What comes of looking for a backend's servers."""

from typing import NamedTuple

from aegis.config_backend import Dns, Server


class Find(NamedTuple):
    """What is to be found."""

    backend: str
    discover: str
    """As the configuration says it."""
    dns: Dns


class Found(NamedTuple):
    """The servers there are, as far as that is known."""

    find: Find
    servers: tuple[Server, ...]
    """Empty: nothing was ever found."""
    failure: str = ""
    """Why it is not known well: these are, in part or all, those of before."""


class FindError(Exception):
    """The servers could not be found; the text says why."""

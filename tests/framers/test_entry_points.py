"""Framers of other packages: what a configuration says of one that is there, broken, or missing."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.config_file import config_from_tables
from aegis.errors import ConfigError
from aegis.framers.contract import Framer
from aegis.framers.entry_points import FramerError
from aegis.framers.line import Line
from aegis.framers.registry import make_framer

_numbers = itertools.count()

GOOD = """
from aegis.framers.line import Line

class Mine(Line):
    name = "mine"
"""


class Packages:
    """Makes installed packages, each with one module and one entry point."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.modules: list[str] = []

    def install(self, name: str, source: str, attribute: str = "Mine") -> str:
        """Bring framer `name`; returns what the entry point says."""
        module = f"aegis_test_framer_{next(_numbers)}"
        self.modules.append(module)
        (self.directory / f"{module}.py").write_text(source)
        info = self.directory / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        value = f"{module}:{attribute}"
        (info / "entry_points.txt").write_text(f"[aegis.framers]\n{name} = {value}\n")
        return value


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Packages(tmp_path)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)


def problems(protocol: str, pooling: str = "multiplex") -> list[str]:
    """Check a configuration with that listener."""
    listener = {"name": "a", "bind": "127.0.0.1:8081", "backend": "b"}
    listener |= {"protocol": protocol, "pooling": pooling}
    backend = {"name": "b", "servers": ["127.0.0.1:8080"]}
    try:
        config_from_tables({"listener": [listener], "backend": [backend]}, "a.toml")
    except ConfigError as error:
        return error.problems
    return []


def test_a_framer_of_another_package_is_known_by_its_entry_points_name(packages: Packages) -> None:
    packages.install("mine", GOOD)
    assert problems("mine") == []
    assert problems("mine", "session") == []
    assert problems("mine", "off") == []
    assert isinstance(make_framer("mine"), Line)


def test_it_supports_what_it_says_and_off(packages: Packages) -> None:
    packages.install("mine", GOOD + '    poolings = ("warm", "session")\n')
    assert problems("mine", "off") == []
    assert problems("mine", "session") == []
    (problem,) = problems("mine", "multiplex")
    assert problem.startswith(
        'a.toml: listener[0].pooling = "multiplex": protocol "mine" supports "off"'
    )


def test_an_unknown_protocol_lists_the_built_in_and_the_installed_ones(packages: Packages) -> None:
    packages.install("mine", "raise SystemExit")  # its code is not run
    packages.install("another", GOOD)
    assert problems("yours") == [
        'a.toml: listener[0].protocol = "yours": known protocols: "raw", "line", "resp", '
        '"memcached" and "http1"; by entry points: "another" and "mine"'
    ]


def test_a_built_in_protocol_cannot_be_replaced(packages: Packages) -> None:
    packages.install("line", "raise SystemExit")
    assert problems("line") == []
    assert type(make_framer("line")) is Line


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 +", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit('bye')", "SystemExit: bye"),
        ("raise OSError('two\\nlines \\x1b[31m')", "OSError: two lines ?[31m"),
        ("Yours = 1", "AttributeError: module"),
        ("Mine = 1", "TypeError: 'int' object is not callable"),
        ("class Mine:\n    def __init__(self, x): ...", "TypeError: Mine.__init__() missing 1"),
        ("Mine = object", "it has no error, error_closes, in_flight, name, ping, poolings,"),
        (
            "from aegis.framers.simple import SimpleFramer as Mine",
            "it has no name, replies, requests",
        ),
        (GOOD + "    name = 'other'", "its name is 'other', not \"mine\""),
        (GOOD + "    in_flight = 0", "its in_flight is 0, not a number above 0"),
        (GOOD + "    poolings = ('all',)", "its poolings are ('all',), not a tuple of warm,"),
        (GOOD + "    reset = b'RESET'", "its reset is b'RESET', not a Setup"),
        (GOOD + "    ping = 'PING'", "its ping is 'PING', not bytes"),
        (GOOD + "    def error(self, why): return why", "its error() returns no bytes"),
        (
            GOOD + "    def requests(self): return 1",
            "what its requests() makes has no clean, close",
        ),
        (GOOD + "    def replies(self): raise KeyError(7)", "KeyError: 7"),
        (
            "from aegis.framers.sized import SizedFramer\n"
            "class Mine(SizedFramer):\n    name = 'mine'",
            "AttributeError: 'Mine' object has no attribute 'head_bytes'",
        ),
    ],
)
def test_what_is_wrong_with_a_framer_is_told_with_its_place(
    packages: Packages, source: str, why: str
) -> None:
    value = packages.install("mine", source)
    (problem,) = problems("mine")
    assert problem.isprintable()
    place = f'entry point "mine" of group aegis.framers ({value}) brings no framer: '
    assert problem.startswith('a.toml: listener[0].protocol = "mine": ' + place + why)


def test_a_framer_that_is_gone_when_the_worker_starts_is_named() -> None:
    with pytest.raises(FramerError, match=r'no entry point "gone" of group aegis\.framers'):
        make_framer("gone")


def test_the_built_in_framers_are_what_is_asked_of_others(packages: Packages) -> None:
    for name in ("line", "resp", "memcached", "http1"):
        framer: Framer = make_framer(name)
        kind = type(framer)
        source = f"from {kind.__module__} import {kind.__name__}\n"
        packages.install(f"my-{name}", source + f"class Mine({kind.__name__}): name = 'my-{name}'")
        assert problems(f"my-{name}") == []

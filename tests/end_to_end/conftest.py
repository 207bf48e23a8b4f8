"""Fixtures for tests of a whole proxy."""

from collections.abc import Iterator

import pytest

from tests.browser import Page, chromium
from tests.end_to_end.echo import Echo
from tests.proxy import Proxies, made


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    """Whole proxies; all that a test leaves of them is ended, and none has logged a traceback."""
    with made() as proxies:
        yield proxies
        logs = "".join(aegis.log() for aegis in proxies.all)
        assert "Traceback" not in logs, logs


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server that says back what it hears."""
    with Echo() as server:
        yield server


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's window, in which nothing has been loaded."""
    with chromium() as page:
        yield page

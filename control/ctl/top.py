"""aegis-ctl top: the HUD in a terminal, from the exporter's /status.json."""

import http.client
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Annotated

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.styled import Styled
from rich.text import Text

from aegis.addresses import parse_tcp_address
from aegis.config import Metrics
from aegis.errors import AegisError, BusError
from aegis.limits import HEARTBEAT_S, REQUEST_TIMEOUT_S
from aegis.runtime import default_runtime_dir
from control.ctl.client import controller_claim, fetch_status
from control.ctl.elsewhere import elsewhere
from control.ctl.top_screen import SORTS, Shown, screen
from control.options import (
    RuntimeDirOption,
)

_decode = msgspec.json.Decoder(Shown).decode
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LOOK_S = 0.1  # for a key, or a terminal that has another size now
_KEYS = "q quit · s sort · r refresh"


def _known(sort: str) -> str:
    if sort not in SORTS:
        raise typer.BadParameter(f"{sort!r}: {', '.join(SORTS)}")
    return sort


def top(
    once: Annotated[bool, typer.Option("--once", help="Print once, for scripts.")] = False,
    sort: Annotated[
        str,
        typer.Option("--sort", help=f"Order of workers: {', '.join(SORTS)}.", callback=_known),
    ] = "slot",
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Between two looks.")
    ] = HEARTBEAT_S,
    exporter: Annotated[
        str | None,
        typer.Option(
            "--exporter", metavar="ADDRESS", help="Of the exporter; default: this proxy's."
        ),
    ] = None,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Show rates, workers, listeners, backends and servers, live; q ends it."""
    address = exporter or _exporter_of(runtime_dir or default_runtime_dir())
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(screen(_fetch(address), sort, console.width))
        return
    try:
        with _keys() as key:
            _watch(console, address, sort, interval, key)
    except KeyboardInterrupt:
        return


def _watch(console: Console, address: str, sort: str, interval: float, keys: Iterator[str]) -> None:
    """Look again after each interval, at a key, and when the terminal has another size."""
    sorts = list(SORTS)
    look_at, size, now = 0.0, console.size, _fetch(address)
    trouble = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for key in keys:
            if key == "q":
                return
            if key == "s":
                sort = sorts[(sorts.index(sort) + 1) % len(sorts)]
            if key == "r" or monotonic() >= look_at:
                look_at = monotonic() + interval
                try:
                    now, trouble = _fetch(address), ""
                except AegisError as error:
                    trouble = str(error)
            elif not key and console.size == size:
                continue
            size = console.size
            live.update(_whole(now, sort, trouble, size.width, size.height), refresh=True)


def _whole(now: Shown, sort: str, trouble: str, width: int, height: int) -> RenderableType:
    shown = screen(now, sort, width, height - 1)
    foot = Text(f"{_KEYS} · by {sort}", style="dim")
    if trouble:
        # What stands before the first bracket says it; the rest is for a command that ends there.
        short = trouble.partition(" (")[0].removeprefix("the ")
        at = datetime.fromtimestamp(now.at).astimezone()
        foot = Text(f"{short} · q quit · as of {at:%H:%M:%S}", style="bold red")
        shown = Styled(shown, "dim")
    foot.no_wrap, foot.overflow = True, "ellipsis"
    whole = Layout()
    whole.split_column(Layout(shown), Layout(foot, size=1))
    return whole


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Give the keys that are pressed, and an empty string each time that none was for a moment."""
    terminal = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield _no_keys()
        return
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield _typed(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _typed(terminal: int) -> Iterator[str]:
    while True:
        ready = select.select([terminal], [], [], _LOOK_S)[0]
        yield os.read(terminal, 1).decode(errors="replace") if ready else ""


def _no_keys() -> Iterator[str]:
    while True:
        select.select([], [], [], _LOOK_S)
        yield ""


def _exporter_of(directory: Path) -> str:
    """Return where the exporter answers; without a controller that knows, the default.

    Raises:
        AegisError: the controller is on another machine, and its exporter nobody knows where.
    """
    if where := elsewhere().requests:
        raise AegisError(f"--controller {where} does not say where the exporter is: --exporter")
    if controller_claim(directory) is not None:
        try:
            known = fetch_status(directory).exporter
        except BusError:
            known = None
        if known is not None:
            return known.bind
    return Metrics().bind


def _fetch(address: str) -> Shown:
    """Ask the exporter for the picture of now.

    Raises:
        AegisError: no answer, or not the exporter's.
    """
    try:
        sockaddr = parse_tcp_address(address).sockaddr
    except ValueError as error:
        raise AegisError(f"--exporter {address}: {error}") from None
    host, port = str(sockaddr[0]), int(sockaddr[1])
    connection = http.client.HTTPConnection(
        _EVERYWHERE.get(host, host), port, timeout=REQUEST_TIMEOUT_S
    )
    try:
        connection.request("GET", "/status.json")
        return _decode(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        raise AegisError(
            f"the exporter at {address} does not answer ({error}); --exporter says where it is"
        ) from None
    except msgspec.MsgspecError as error:
        raise AegisError(f"{address} is not an exporter of this version: {error}") from None
    finally:
        connection.close()

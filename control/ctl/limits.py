"""aegis-ctl limits."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aegis.runtime import default_runtime_dir
from aegis.session_messages import LimitStatus
from control.ctl.client import fetch_status, need_controller
from control.options import (
    RuntimeDirOption,
)


def limits(
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    runtime_dir: RuntimeDirOption = None,
) -> None:
    """Show each limit that is set, its use now, and how many clients were refused for it."""
    directory = runtime_dir or default_runtime_dir()
    need_controller(directory)
    found = fetch_status(directory).limits
    if json:
        encoded = msgspec.json.encode({"limits": msgspec.to_builtins(found)})
        typer.echo(msgspec.json.format(encoded))
        return
    if not found:
        typer.echo("no limits are set")
        return
    Console(highlight=False).print(_table(found))


def _table(found: list[LimitStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("limit", overflow="fold")
    for title in ("of", "used", "waiting", "refused"):
        table.add_column(title, justify="right")
    for each in found:
        full = each.used is not None and each.used >= each.limit
        used = "-" if each.used is None else f"{each.used:,}"
        table.add_row(
            escape(each.key),
            f"{each.limit:,g}" if each.limit % 1 else f"{each.limit:,.0f}",
            f"[bold red]{used}[/]" if full else used,
            f"{each.waiting:,}",
            f"{each.refused:,}",
        )
    return table

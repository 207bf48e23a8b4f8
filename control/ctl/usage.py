"""What a command line may say: numbers with their range, and one of some commands.

An error names what was said and what is allowed, in one line.
"""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

NEGATIVES = {"ignore_unknown_options": True}
"""Context settings of a command with a number: -1 is one that is out of range, and no option."""


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers."""
    return lambda text: int(_bounded(text, int, least, most))


def seconds(most: float) -> Callable[[str], float]:
    """Return a parser of durations."""
    return lambda text: float(_bounded(text, float, 0, most))


def _bounded(text: str, kind: type[int] | type[float], least: float, most: float) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = kind(least - 1)
    if not least <= number <= most:  # nan is not
        raise typer.BadParameter(f"{text}: allowed is {least:.0f} to {most:.0f}")
    return number


class Choices(TyperGroup):
    """Commands of which one has to be said: what is none is told which there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments begin with."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}; there are: {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

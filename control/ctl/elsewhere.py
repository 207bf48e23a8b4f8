"""aegis-ctl on another machine than Aegis: where the controller is, and the key that opens it.

`--controller` and `--keys` come before the command, whichever it is; like the variables that stand
for them, they hold for the whole process.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from aegis.config_bus import LOCAL, Bus, parse_reached_endpoint
from aegis.errors import AegisError

_CONTROLLER, _KEYS = "AEGIS_CONTROLLER", "AEGIS_KEYS"


def _note_controller(endpoint: str | None) -> str | None:
    if endpoint:
        try:
            parse_reached_endpoint(endpoint)
        except ValueError as error:
            raise typer.BadParameter(f"{endpoint!r}: {error}") from None
        os.environ[_CONTROLLER] = endpoint
    return endpoint


def _note_keys(directory: Path | None) -> Path | None:
    if directory is not None:
        os.environ[_KEYS] = str(directory.absolute())
    return directory


ControllerOption = Annotated[
    str | None,
    typer.Option(
        "--controller",
        metavar="tcp://ADDRESS",
        envvar=_CONTROLLER,
        callback=_note_controller,
        help="Of an Aegis on another machine: bus.requests of its configuration. Needs --keys.",
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        envvar=_KEYS,
        callback=_note_keys,
        help="Directory with operator.key_secret and proxy.key, for --controller.",
    ),
]


def elsewhere() -> Bus:
    """Return how the controller of another machine is reached; without `requests`: it is not.

    Raises:
        AegisError: a controller is named, and no keys.
    """
    endpoint = os.environ.get(_CONTROLLER)
    if not endpoint:
        return LOCAL
    keys = os.environ.get(_KEYS)
    if not keys:
        raise AegisError(f"--controller {endpoint} needs --keys DIR")
    return Bus(requests=endpoint, keys=keys)


def only_here(command: str) -> None:
    """Refuse a command that needs to be where Aegis is.

    Raises:
        AegisError: it is not.
    """
    if elsewhere().requests:
        raise AegisError(f"{command}: only on the machine itself, without --controller")

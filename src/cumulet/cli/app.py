"""The root of the command: global options, and how failures are shown."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from cumulet.cli import cost, demo, group, images, lifecycle, principal, registry, role, rooms
from cumulet.cli.output import fail
from cumulet.common.arm import ArmError
from cumulet.common.config import ConfigError
from cumulet.common.entra import AuthenticationError

app = typer.Typer(
    name="cumulet",
    help="Run the serverless-pod path of AKS, ACR and ACI on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        print(metadata.version("cumulet"))
        raise typer.Exit


@app.callback()
def root(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the installation.",
            envvar="CUMULET_DATA_DIR",
            show_default="the user data directory",
            file_okay=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Run the serverless-pod path of AKS, ACR and ACI on one machine."""
    if data_dir is not None:
        # The environment carries the directory to the commands that we start.
        os.environ["CUMULET_DATA_DIR"] = str(data_dir.absolute())


for module in (lifecycle, rooms, demo, cost):
    module.add_to(app)
app.add_typer(group.app, name="group")
app.add_typer(registry.app, name="registry")
app.add_typer(images.app, name="images")
app.add_typer(principal.app, name="sp")
app.add_typer(role.app, name="role")


def main() -> None:
    """Run the console script. Each failure is one line; `CUMULET_DEBUG=1` shows the traceback."""
    try:
        app()
    except Exception as error:
        if os.environ.get("CUMULET_DEBUG") == "1":
            raise
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe has ended. Without this, the interpreter reports it again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(fail(describe(error)))


def describe(error: Exception) -> str:
    """Return one line with the error and the next step."""
    match error:
        case ArmError():
            return f"({error.code}) {error}"
        case AuthenticationError() | ConfigError():
            return str(error)
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno) if error.errno else str(error)
            return f"cannot connect to {error.host}:{error.port}: {reason}. Start the installation with `cumulet up`"
        case PermissionError():
            return f"permission denied: {error.filename or error}. Run the command as the user that ran `cumulet up`"
        case OSError() if not isinstance(error, aiohttp.ClientError | TimeoutError):
            return str(error)
        case TimeoutError():
            return "the server did not answer in time. Check the installation with `cumulet status`"
        case aiohttp.ClientError():
            return f"{type(error).__name__}: {error}. Check the installation with `cumulet status`"
    return f"unexpected {type(error).__name__}: {error}. Set CUMULET_DEBUG=1 to see the traceback"

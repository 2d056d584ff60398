"""The root of the command: options that every verb has, and how failures are shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from cumulet import __version__
from cumulet.cli import cost, demo, group, lifecycle, principal, registry, role, rooms
from cumulet.cli.output import fail
from cumulet.common.arm import ArmError
from cumulet.common.config import ConfigError
from cumulet.common.entra import AuthenticationError

app = typer.Typer(
    name="cumulet",
    help="The serverless-pod path of AKS, ACR and ACI on one machine, for real.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where all state is kept.", envvar="CUMULET_DATA_DIR", show_default="the user data directory"
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Options of every verb."""
    if version:
        print(__version__)
        raise typer.Exit
    if data_dir is not None:
        # One place says where state is, for us and for the commands that we start.
        os.environ["CUMULET_DATA_DIR"] = str(data_dir.absolute())


for module in (lifecycle, rooms, demo, cost):
    module.add_to(app)
app.add_typer(group.app, name="group")
app.add_typer(registry.app, name="registry")
app.add_typer(principal.app, name="sp")
app.add_typer(role.app, name="role")


def main() -> None:
    """The console script."""
    try:
        app()
    except (ArmError, AuthenticationError, ConfigError) as error:
        code = f"({error.code}) " if isinstance(error, ArmError) else ""
        sys.exit(fail(f"{code}{error}"))
    except aiohttp.ClientConnectorError as error:
        sys.exit(fail(f"{error}. Is it up? See `cumulet status`, start it with `cumulet up`"))
    except (aiohttp.ClientError, TimeoutError) as error:
        sys.exit(fail(f"{type(error).__name__}: {error}"))

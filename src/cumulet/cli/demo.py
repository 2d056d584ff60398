"""`cumulet demo`: the whole path, shown."""

from __future__ import annotations

from typing import Annotated

import typer

from cumulet.cli.output import fail
from cumulet.common import config as settings
from cumulet.demo.terminal import StepError
from cumulet.demo.walk import walk


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Wait for Enter between the steps.")] = False,
    port: Annotated[
        list[str] | None, typer.Option(metavar="ROOM=PORT", help="As for `cumulet up`; all=0 picks free ports.")
    ] = None,
) -> None:
    """Walk the path: build, push, grant, deploy, pull, run, serve, look, bill, clean up."""
    data_dir = settings.default_data_dir() / "demo"
    options = tuple(f"--port {option}" for option in port or ())
    try:
        well = walk(data_dir, keep=keep, pause=pause, up_options=options)
    except StepError as reason:
        raise typer.Exit(fail(str(reason))) from None
    if not well:
        raise typer.Exit(1)

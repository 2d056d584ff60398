"""`cumulet demo`: the whole path as a demonstration."""

from __future__ import annotations

import shlex
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
    keep: Annotated[bool, typer.Option("--keep", help="Leave the installation running at the end.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Wait for Enter between steps.")] = False,
    port: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROOM=PORT",
            help="Same as for `cumulet up`. `all=0` picks a free port for every room. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run the whole path in a separate installation: build, push, deploy, serve, bill, and clean up."""
    data_dir = settings.default_data_dir() / "demo"
    options = tuple(f"--port {shlex.quote(option)}" for option in port or ())
    try:
        succeeded = walk(data_dir, keep=keep, pause=pause, up_options=options)
    except StepError as reason:
        raise typer.Exit(fail(str(reason))) from None
    if not succeeded:
        raise typer.Exit(1)

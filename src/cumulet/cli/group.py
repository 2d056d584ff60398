"""`cumulet group`: resource groups, like `az group`."""

from __future__ import annotations

from typing import Annotated

import typer

from cumulet.cli.azure import RESOURCES, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show

app = typer.Typer(help="Manage resource groups.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the resource group.")]


@app.command()
def create(
    name: Name,
    location: Annotated[str, typer.Option("--location", "-l", help="Azure region.")] = "eastus",
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create a resource group. If it exists, leave it unchanged."""
    show(
        run(lambda azure: azure.arm("PUT", azure.group_id(name), {"location": location}, api_version=RESOURCES)),
        output,
        query,
    )


@app.command("show")
def show_(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """Show a resource group."""
    show(run(lambda azure: azure.arm("GET", azure.group_id(name), api_version=RESOURCES)), output, query)


@app.command("list")
def list_(output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List resource groups."""
    show(run(lambda azure: azure.items(f"{azure.subscription}/resourceGroups", api_version=RESOURCES)), output, query)


@app.command()
def delete(name: Name) -> None:
    """Delete a resource group and all resources in it."""
    run(lambda azure: azure.arm("DELETE", azure.group_id(name), api_version=RESOURCES))

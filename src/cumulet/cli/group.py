"""`cumulet group`: resource groups, as `az group`."""

from __future__ import annotations

from typing import Annotated

import typer

from cumulet.cli.azure import RESOURCES, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show

app = typer.Typer(help="Resource groups.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the resource group.")]


@app.command()
def create(
    name: Name,
    location: Annotated[str, typer.Option("--location", "-l")] = "eastus",
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create a resource group, or leave it as it is."""
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
    """List the resource groups."""
    path = "/resourceGroups"
    found = run(lambda azure: azure.arm("GET", azure.subscription + path, api_version=RESOURCES))
    show(found["value"], output, query)


@app.command()
def delete(name: Name) -> None:
    """Delete a resource group with everything in it."""
    run(lambda azure: azure.arm("DELETE", azure.group_id(name), api_version=RESOURCES))

"""`cumulet registry`: private registries, as `az acr`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cumulet.cli.azure import REGISTRIES, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show

app = typer.Typer(help="Private registries.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the registry, such as acrdemo2ss.")]


@app.command()
def create(
    name: Name,
    group: Annotated[str, typer.Option("--resource-group", "-g")],
    sku: Annotated[str, typer.Option(help="Basic, Standard or Premium.")] = "Basic",
    admin_enabled: Annotated[bool, typer.Option(help="Switch the admin user on.")] = False,
    location: Annotated[str, typer.Option("--location", "-l")] = "eastus",
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create a registry in a resource group."""
    body = {"location": location, "sku": {"name": sku}, "properties": {"adminUserEnabled": admin_enabled}}

    async def work(azure: Azure) -> Any:
        path = f"{azure.group_id(group)}/providers/Microsoft.ContainerRegistry/registries/{name}"
        return await azure.arm("PUT", path, body, api_version=REGISTRIES)

    show(run(work), output, query)


@app.command("show")
def show_(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """Show a registry."""
    show(run(lambda azure: azure.find_registry(name)), output, query)


@app.command("list")
def list_(output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List the registries of the subscription."""
    path = "/providers/Microsoft.ContainerRegistry/registries"
    found = run(lambda azure: azure.arm("GET", azure.subscription + path, api_version=REGISTRIES))
    show(found["value"], output, query)


@app.command()
def update(
    name: Name,
    admin_enabled: Annotated[bool | None, typer.Option(help="Switch the admin user on or off.")] = None,
    anonymous_pull: Annotated[bool | None, typer.Option(help="Let everyone pull, or not.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Change a registry."""
    wanted = {"adminUserEnabled": admin_enabled, "anonymousPullEnabled": anonymous_pull}
    properties = {key: value for key, value in wanted.items() if value is not None}

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.arm("PATCH", registry["id"], {"properties": properties}, api_version=REGISTRIES)

    show(run(work), output, query)


@app.command()
def credential(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """Show the admin user's name and passwords."""

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.arm("POST", f"{registry['id']}/listCredentials", api_version=REGISTRIES)

    show(run(work), output, query)


@app.command()
def repositories(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List the repositories of a registry."""

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.registry_data(registry, "/acr/v1/_catalog", "registry:catalog:*")

    show(run(work).get("repositories") or [], output, query)


@app.command()
def tags(
    name: Name,
    repository: Annotated[str, typer.Argument(help="Name of the repository, such as app3/acr-app3.")],
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """List the tags of a repository."""

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        scope = f"repository:{repository}:metadata_read,pull"
        return await azure.registry_data(registry, f"/acr/v1/{repository}/_tags", scope)

    show([tag["name"] for tag in run(work).get("tags") or []], output, query)


@app.command()
def gc(
    name: Annotated[str | None, typer.Argument(help="Name of the registry; all of them by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    output: FormatOption = Format.TABLE,
    query: QueryOption = None,
) -> None:
    """Remove what nothing needs any more, beside whatever is being pushed."""

    async def work(azure: Azure) -> Any:
        if name is not None:
            registries = [await azure.find_registry(name)]
        else:
            path = "/providers/Microsoft.ContainerRegistry/registries"
            registries = (await azure.arm("GET", azure.subscription + path, api_version=REGISTRIES))["value"]
        rows = []
        for registry in registries:
            path = f"{registry['id']}/collectGarbage"
            report = await azure.arm("POST", path, {"dryRun": dry_run}, api_version=REGISTRIES)
            rows.append({"registry": registry["name"], **report})
        return rows

    show(run(work), output, query)


@app.command()
def delete(name: Name) -> None:
    """Delete a registry with all that was pushed to it."""

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.arm("DELETE", registry["id"], api_version=REGISTRIES)

    run(work)

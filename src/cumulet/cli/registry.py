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


@app.command("import")
def import_(
    name: Name,
    source: Annotated[str, typer.Option(help="The image, as server/repository:tag.")],
    image: Annotated[list[str] | None, typer.Option(help="Repository and tag to have it under.")] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="For the source.")] = None,
    password: Annotated[str | None, typer.Option("--password", "-p", help="For the source.")] = None,
    force: Annotated[bool, typer.Option(help="Move tags that are there.")] = False,
) -> None:
    """Take an image over from another registry, without pulling it here first."""
    server, _, what = source.partition("/")
    credentials = {"username": username or "", "password": password} if password is not None else None
    body = {
        "source": {"registryUri": server, "sourceImage": what, "credentials": credentials},
        "targetTags": image,
        "mode": "Force" if force else "NoForce",
    }

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.arm("POST", f"{registry['id']}/importImage", body, api_version=REGISTRIES)

    run(work)


@app.command()
def token(
    name: Name,
    token_name: Annotated[str, typer.Argument(metavar="TOKEN", help="Name of the token.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="REPOSITORY:ACTION", help="Such as app3/*:content/read; several times."),
    ] = None,
    scope_map: Annotated[str | None, typer.Option(help="Name of a scope map, such as _repositories_pull.")] = None,
    expiry: Annotated[str | None, typer.Option(help="When its password ends, in RFC 3339.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Make a token for some repositories, or give it other rights, and show its new password, which is kept nowhere."""
    if (allow is None) is (scope_map is None):
        raise typer.BadParameter("give either what it is allowed or a scope map", param_hint="--allow, --scope-map")

    async def work(azure: Azure) -> Any:
        registry = (await azure.find_registry(name))["id"]
        used = scope_map or f"{token_name}-scope-map"
        if allow is not None:
            lines = [f"repositories/{line.rpartition(':')[0]}/{line.rpartition(':')[2]}" for line in allow]
            body: dict[str, Any] = {"properties": {"actions": lines}}
            await azure.arm("PUT", f"{registry}/scopeMaps/{used}", body, api_version=REGISTRIES)
        body = {"properties": {"scopeMapId": f"{registry}/scopeMaps/{used}"}}
        await azure.arm("PUT", f"{registry}/tokens/{token_name}", body, api_version=REGISTRIES)
        body = {"tokenId": f"{registry}/tokens/{token_name}", "name": "password1", "expiry": expiry}
        return await azure.arm("POST", f"{registry}/generateCredentials", body, api_version=REGISTRIES)

    show(run(work), output, query)


@app.command()
def delete(name: Name) -> None:
    """Delete a registry with all that was pushed to it."""

    async def work(azure: Azure) -> Any:
        registry = await azure.find_registry(name)
        return await azure.arm("DELETE", registry["id"], api_version=REGISTRIES)

    run(work)

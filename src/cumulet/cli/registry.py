"""`cumulet registry`: private registries, like `az acr`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from cumulet.cli.azure import AUTHORIZATION, MANAGED_IDENTITIES, REGISTRIES, Azure, Registry, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.cli.role import assign_role, find_assignments
from cumulet.common.node_names import kubelet_identity

app = typer.Typer(help="Manage private registries.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registry, such as acrdemo2ss.")]


_PULL = "AcrPull"


class _IdentityProperties(msgspec.Struct, frozen=True, rename="camel"):
    principal_id: str


class _Identity(msgspec.Struct, frozen=True):
    """A user-assigned identity: the fields that verbs need."""

    properties: _IdentityProperties


class _Tag(msgspec.Struct, frozen=True):
    name: str


class _Tags(msgspec.Struct, frozen=True):
    """A page of `GET /acr/v1/{name}/_tags`."""

    tags: list[_Tag] | None = None


class _Catalog(msgspec.Struct, frozen=True):
    """A page of `GET /acr/v1/_catalog`."""

    repositories: list[str] | None = None


@app.command()
def create(
    name: Name,
    group: Annotated[str, typer.Option("--resource-group", "-g", metavar="NAME", help="Name of the resource group.")],
    sku: Annotated[str, typer.Option(help="SKU: Basic, Standard or Premium.")] = "Basic",
    admin_enabled: Annotated[bool, typer.Option(help="Enable the admin user.")] = False,
    location: Annotated[str, typer.Option("--location", "-l", help="Azure region.")] = "eastus",
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create a registry in a resource group."""
    body = {"location": location, "sku": {"name": sku}, "properties": {"adminUserEnabled": admin_enabled}}

    async def work(azure: Azure) -> object:
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
    show(run(lambda azure: azure.registries()), output, query)


@app.command()
def update(
    name: Name,
    admin_enabled: Annotated[bool | None, typer.Option(help="Enable or disable the admin user.")] = None,
    anonymous_pull: Annotated[bool | None, typer.Option(help="Allow or deny anonymous pull.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Update a registry."""
    given = {"adminUserEnabled": admin_enabled, "anonymousPullEnabled": anonymous_pull}
    properties = {key: value for key, value in given.items() if value is not None}

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        return await azure.arm("PATCH", registry.id, {"properties": properties}, api_version=REGISTRIES)

    show(run(work), output, query)


@app.command()
def credential(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """Show the user name and passwords of the admin user."""

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        return await azure.arm("POST", f"{registry.id}/listCredentials", api_version=REGISTRIES)

    show(run(work), output, query)


@app.command()
def attach(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """Let the ordinary nodes pull from a registry, like `az aks update --attach-acr`: their identity gets the role AcrPull."""

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        principal = await _kubelet_principal(azure)
        existing = await find_assignments(azure, principal, _PULL, registry.id)
        return existing[0] if existing else await assign_role(azure, principal, _PULL, registry.id)

    show(run(work), output, query)


@app.command()
def detach(name: Name) -> None:
    """Take the role AcrPull on a registry from the identity of the ordinary nodes."""

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        for assignment in await find_assignments(azure, await _kubelet_principal(azure), _PULL, registry.id):
            await azure.arm("DELETE", str(assignment["id"]), api_version=AUTHORIZATION)
        return None

    run(work)


async def _kubelet_principal(azure: Azure) -> str:
    """Return the object id of the identity with which the ordinary nodes pull. Raises `ArmError`."""
    found = await azure.arm("GET", kubelet_identity(azure.config), api_version=MANAGED_IDENTITIES)
    return msgspec.convert(found, _Identity).properties.principal_id


@app.command()
def repositories(name: Name, output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List the repositories of a registry."""

    async def work(azure: Azure) -> list[str]:
        registry = await azure.registry(name)
        page = await azure.registry_data(registry, "/acr/v1/_catalog", "registry:catalog:*", _Catalog)
        return page.repositories or []

    show(run(work), output, query)


@app.command()
def tags(
    name: Name,
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="Name of the repository, such as app3/acr-app3.")
    ],
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """List the tags of a repository."""

    async def work(azure: Azure) -> list[str]:
        registry = await azure.registry(name)
        scope = f"repository:{repository}:metadata_read,pull"
        page = await azure.registry_data(registry, f"/acr/v1/{repository}/_tags", scope, _Tags)
        return [tag.name for tag in page.tags or []]

    show(run(work), output, query)


@app.command()
def gc(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of the registry. The default is all registries.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be removed without removing it.")
    ] = False,
    output: FormatOption = Format.TABLE,
    query: QueryOption = None,
) -> None:
    """Remove unreferenced content. Safe while clients push."""

    async def work(azure: Azure) -> list[dict[str, object]]:
        if name is not None:
            registries = [await azure.registry(name)]
        else:
            registries = msgspec.convert(await azure.registries(), list[Registry])
        rows = []
        for registry in registries:
            path = f"{registry.id}/collectGarbage"
            report = await azure.arm("POST", path, {"dryRun": dry_run}, api_version=REGISTRIES)
            rows.append({"registry": registry.name, **msgspec.convert(report, dict[str, object])})
        return rows

    show(run(work), output, query)


@app.command("import")
def import_(
    name: Name,
    source: Annotated[str, typer.Option(metavar="IMAGE", help="Source image as SERVER/REPOSITORY:TAG.")],
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPOSITORY:TAG", help="Target repository and tag. The default is the source's. Repeatable."
        ),
    ] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="User name for the source.")] = None,
    password: Annotated[str | None, typer.Option("--password", "-p", help="Password for the source.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite existing target tags.")] = False,
) -> None:
    """Import an image from another registry, without a local pull and push."""
    server, _, reference = source.partition("/")
    credentials = {"username": username or "", "password": password} if password is not None else None
    body = {
        "source": {"registryUri": server, "sourceImage": reference, "credentials": credentials},
        "targetTags": image,
        "mode": "Force" if force else "NoForce",
    }

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        return await azure.arm("POST", f"{registry.id}/importImage", body, api_version=REGISTRIES)

    run(work)


@app.command()
def token(
    name: Name,
    token_name: Annotated[str, typer.Argument(metavar="TOKEN", help="Name of the token.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="REPOSITORY:ACTION", help="Permission, such as app3/*:content/read. Repeatable."),
    ] = None,
    scope_map: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of a scope map, such as _repositories_pull.")
    ] = None,
    expiry: Annotated[str | None, typer.Option(metavar="TIME", help="Expiry of the password, in RFC 3339.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create or update a repository token and generate a password. The password is shown once."""
    if (allow is None) is (scope_map is None):
        raise typer.BadParameter("set exactly one of them", param_hint="--allow, --scope-map")
    actions = [_action(permission) for permission in allow or ()]

    async def work(azure: Azure) -> object:
        registry = (await azure.registry(name)).id
        used = scope_map or f"{token_name}-scope-map"
        if allow is not None:
            body: dict[str, object] = {"properties": {"actions": actions}}
            await azure.arm("PUT", f"{registry}/scopeMaps/{used}", body, api_version=REGISTRIES)
        body = {"properties": {"scopeMapId": f"{registry}/scopeMaps/{used}"}}
        await azure.arm("PUT", f"{registry}/tokens/{token_name}", body, api_version=REGISTRIES)
        body = {"tokenId": f"{registry}/tokens/{token_name}", "name": "password1", "expiry": expiry}
        return await azure.arm("POST", f"{registry}/generateCredentials", body, api_version=REGISTRIES)

    show(run(work), output, query)


def _action(permission: str) -> str:
    """Return the scope map's action for REPOSITORY:ACTION. Raises `BadParameter`."""
    repository, colon, action = permission.rpartition(":")
    if not colon or not repository or not action:
        raise typer.BadParameter(f"{permission!r} is not REPOSITORY:ACTION", param_hint="--allow")
    return f"repositories/{repository}/{action}"


@app.command()
def delete(name: Name) -> None:
    """Delete a registry and all its images."""

    async def work(azure: Azure) -> object:
        registry = await azure.registry(name)
        return await azure.arm("DELETE", registry.id, api_version=REGISTRIES)

    run(work)

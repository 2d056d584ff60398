"""`cumulet sp`: service principals, like `az ad sp`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from cumulet.cli.azure import Azure, Page, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.cli.role import assign_role, find_role

app = typer.Typer(help="Manage service principals.", no_args_is_help=True)

AppId = Annotated[str, typer.Argument(metavar="APP_ID", help="Application (client) id.")]
EndDate = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Expiry of the secret in RFC 3339, such as 2027-01-31T12:00:00Z. The default is two years from now.",
    ),
]


class _PasswordCredential(msgspec.Struct, frozen=True, rename="camel"):
    key_id: str


class _Application(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of Graph's `application` that verbs need."""

    id: str
    app_id: str
    display_name: str
    password_credentials: list[_PasswordCredential] = []


class _Secret(msgspec.Struct, frozen=True, rename="camel"):
    secret_text: str


class _Principal(msgspec.Struct, frozen=True):
    id: str


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Display name, such as acr-sp-demo.")],
    role: Annotated[str | None, typer.Option(help="Role to assign, such as AcrPull. Requires --scope.")] = None,
    scope: Annotated[
        str | None, typer.Option(metavar="ID", help="Resource id on which to assign the role, such as a registry's.")
    ] = None,
    end_date: EndDate = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create a service principal with a secret. The secret is shown once."""
    if (role is None) != (scope is None):
        raise typer.BadParameter("set both or neither", param_hint="--role, --scope")

    async def work(azure: Azure) -> dict[str, str]:
        if role is not None and scope is not None:
            await find_role(azure, role, scope)  # an unknown role must not leave a principal behind
        application = msgspec.convert(await azure.graph("POST", "/applications", {"displayName": name}), _Application)
        principal = await azure.graph("POST", "/servicePrincipals", {"appId": application.app_id})
        made = await _add_secret(azure, application, end_date)
        if role is not None and scope is not None:
            await assign_role(azure, msgspec.convert(principal, _Principal).id, role, scope)
        return made

    show(run(work), output, query)


@app.command()
def reset(
    app_id: AppId, end_date: EndDate = None, output: FormatOption = Format.JSON, query: QueryOption = None
) -> None:
    """Replace all secrets of a service principal with a new one. The secret is shown once."""

    async def work(azure: Azure) -> dict[str, str]:
        application = msgspec.convert(await azure.graph("GET", f"/applications(appId='{app_id}')"), _Application)
        made = await _add_secret(azure, application, end_date)
        for old in application.password_credentials:
            await azure.graph("POST", f"/applications/{application.id}/removePassword", {"keyId": old.key_id})
        return made

    show(run(work), output, query)


async def _add_secret(azure: Azure, application: _Application, end_date: str | None) -> dict[str, str]:
    """Add a secret to an application and return it in the form of `az ad sp create-for-rbac`. Raises `ArmError`."""
    body = {"passwordCredential": {"endDateTime": end_date}} if end_date else {}
    secret = await azure.graph("POST", f"/applications/{application.id}/addPassword", body)
    return {
        "appId": application.app_id,
        "displayName": application.display_name,
        "password": msgspec.convert(secret, _Secret).secret_text,
        "tenant": azure.config.tenant_id,
    }


@app.command("list")
def list_(output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List service principals."""
    page = msgspec.convert(run(lambda azure: azure.graph("GET", "/servicePrincipals")), Page)
    show(page.value, output, query)


@app.command()
def delete(app_id: AppId) -> None:
    """Delete a service principal and its application."""
    run(lambda azure: azure.graph("DELETE", f"/applications(appId='{app_id}')"))

"""`cumulet sp`: service principals, as `az ad sp`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cumulet.cli.azure import Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.cli.role import assign_role, find_role

app = typer.Typer(help="Service principals.", no_args_is_help=True)

AppId = Annotated[str, typer.Argument(help="The application's (client) id.")]
EndDate = Annotated[
    str | None, typer.Option(help="When the secret expires, as 2027-01-31T12:00:00Z; two years from now by default.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Display name, such as acr-sp-demo.")],
    role: Annotated[str | None, typer.Option(help="Role to assign at once, such as AcrPull.")] = None,
    scope: Annotated[str | None, typer.Option(help="Scope of that role, such as a registry's id.")] = None,
    end_date: EndDate = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create an application with a service principal and a secret, which is shown this once."""
    if (role is None) != (scope is None):
        raise typer.BadParameter("--role and --scope go together")

    async def work(azure: Azure) -> dict[str, str]:
        if role is not None and scope is not None:
            await find_role(azure, role, scope)  # a name that is wrong leaves no principal behind
        application = await azure.graph("POST", "/applications", {"displayName": name})
        principal = await azure.graph("POST", "/servicePrincipals", {"appId": application["appId"]})
        made = await _add_secret(azure, application, end_date)
        if role is not None and scope is not None:
            await assign_role(azure, principal["id"], role, scope)
        return made

    show(run(work), output, query)


@app.command()
def reset(
    app_id: AppId, end_date: EndDate = None, output: FormatOption = Format.JSON, query: QueryOption = None
) -> None:
    """Give a service principal a new secret, shown this once, in place of those that it has."""

    async def work(azure: Azure) -> dict[str, str]:
        application = await azure.graph("GET", f"/applications(appId='{app_id}')")
        made = await _add_secret(azure, application, end_date)
        for old in application["passwordCredentials"]:
            body = {"keyId": old["keyId"]}
            await azure.graph("POST", f"/applications/{application['id']}/removePassword", body)
        return made

    show(run(work), output, query)


async def _add_secret(azure: Azure, application: dict[str, Any], end_date: str | None) -> dict[str, str]:
    """What `az ad sp create-for-rbac` prints: a new secret and whose it is."""
    body = {"passwordCredential": {"endDateTime": end_date}} if end_date else {}
    secret = await azure.graph("POST", f"/applications/{application['id']}/addPassword", body)
    return {
        "appId": application["appId"],
        "displayName": application["displayName"],
        "password": secret["secretText"],
        "tenant": azure.config.tenant_id,
    }


@app.command("list")
def list_(output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List the service principals."""
    show(run(lambda azure: azure.graph("GET", "/servicePrincipals"))["value"], output, query)


@app.command()
def delete(app_id: AppId) -> None:
    """Delete a service principal with its application."""

    async def work(azure: Azure) -> Any:
        await azure.graph("DELETE", f"/applications(appId='{app_id}')")

    run(work)

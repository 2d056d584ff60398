"""`cumulet sp`: service principals, as `az ad sp`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cumulet.cli.azure import Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.cli.role import assign_role

app = typer.Typer(help="Service principals.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Display name, such as acr-sp-demo.")],
    role: Annotated[str | None, typer.Option(help="Role to assign at once, such as AcrPull.")] = None,
    scope: Annotated[str | None, typer.Option(help="Scope of that role, such as a registry's id.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """Create an application with a service principal and a secret, which is shown this once."""
    if (role is None) != (scope is None):
        raise typer.BadParameter("--role and --scope go together")

    async def work(azure: Azure) -> dict[str, str]:
        application = await azure.graph("POST", "/applications", {"displayName": name})
        principal = await azure.graph("POST", "/servicePrincipals", {"appId": application["appId"]})
        secret = await azure.graph("POST", f"/applications/{application['id']}/addPassword", {})
        if role is not None and scope is not None:
            await assign_role(azure, principal["id"], role, scope)
        return {
            "appId": application["appId"],
            "displayName": name,
            "password": secret["secretText"],
            "tenant": azure.config.tenant_id,
        }

    show(run(work), output, query)


@app.command("list")
def list_(output: FormatOption = Format.JSON, query: QueryOption = None) -> None:
    """List the service principals."""
    show(run(lambda azure: azure.graph("GET", "/servicePrincipals"))["value"], output, query)


@app.command()
def delete(app_id: Annotated[str, typer.Argument(help="The application's (client) id.")]) -> None:
    """Delete a service principal with its application."""

    async def work(azure: Azure) -> Any:
        await azure.graph("DELETE", f"/applications(appId='{app_id}')")

    run(work)

"""`cumulet role`: role assignments, as `az role assignment`."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from cumulet.cli.azure import AUTHORIZATION, Azure, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.common.arm import ArmError

app = typer.Typer(help="Roles.", no_args_is_help=True)

Assignee = Annotated[str, typer.Option(help="The principal's application (client) id.")]
Role = Annotated[str, typer.Option(help="Name of a role, such as AcrPull.")]
Scope = Annotated[str, typer.Option(help="Id of a registry, resource group or subscription.")]


async def find_role(azure: Azure, role: str, scope: str) -> str:
    """The id of the role of that name which can be assigned on a scope. Raises `ArmError`."""
    query = {"$filter": f"roleName eq '{role}'"}
    path = f"{_provider(scope)}/roleDefinitions"
    found = await azure.arm("GET", path, api_version=AUTHORIZATION, query=query)
    if not found["value"]:
        raise ArmError(404, "RoleDefinitionDoesNotExist", f"The role '{role}' does not exist.")
    definition: str = found["value"][0]["id"]
    return definition


async def assign_role(azure: Azure, principal_id: str, role: str, scope: str) -> Any:
    """Assign a role by its name to a principal's object id. Raises `ArmError`."""
    properties = {
        "roleDefinitionId": await find_role(azure, role, scope),
        "principalId": principal_id,
        "principalType": "ServicePrincipal",
    }
    path = f"{_provider(scope)}/roleAssignments/{uuid.uuid4()}"
    return await azure.arm("PUT", path, {"properties": properties}, api_version=AUTHORIZATION)


def _provider(scope: str) -> str:
    return f"{scope.rstrip('/')}/providers/Microsoft.Authorization"


@app.command()
def assign(
    assignee: Assignee, role: Role, scope: Scope, output: FormatOption = Format.JSON, query: QueryOption = None
) -> None:
    """Assign a role to a service principal on a scope."""

    async def work(azure: Azure) -> Any:
        found = await azure.graph("GET", "/servicePrincipals", query={"$filter": f"appId eq '{assignee}'"})
        if not found["value"]:
            raise ArmError(404, "PrincipalNotFound", f"No service principal has the application id '{assignee}'.")
        return await assign_role(azure, found["value"][0]["id"], role, scope)

    show(run(work), output, query)


@app.command("list")
def list_(
    scope: Annotated[str | None, typer.Option(help="Scope; the subscription by default.")] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """List the role assignments at and below a scope."""

    async def work(azure: Azure) -> Any:
        path = f"{scope or azure.subscription}/providers/Microsoft.Authorization/roleAssignments"
        return await azure.arm("GET", path, api_version=AUTHORIZATION)

    show(run(work)["value"], output, query)

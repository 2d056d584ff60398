"""`cumulet role`: role assignments, like `az role assignment`."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec
import typer

from cumulet.cli.azure import AUTHORIZATION, Azure, Page, run
from cumulet.cli.output import Format, FormatOption, QueryOption, show
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.common.rbac import AssignmentResource

app = typer.Typer(help="Manage role assignments.", no_args_is_help=True)

Assignee = Annotated[str, typer.Option(metavar="APP_ID", help="Application (client) id of the service principal.")]
Role = Annotated[str, typer.Option(metavar="NAME", help="Name of the role, such as AcrPull.")]
Scope = Annotated[str, typer.Option(metavar="ID", help="Id of a registry, resource group or subscription.")]


async def find_role(azure: Azure, role: str, scope: str) -> str:
    """Return the id of the role definition with a name that can be assigned at a scope. Raises `ArmError`."""
    path = f"{_provider(scope)}/roleDefinitions"
    found = await azure.items(path, api_version=AUTHORIZATION, query={"$filter": f"roleName eq {_literal(role)}"})
    if not found:
        raise ArmError(404, "RoleDefinitionDoesNotExist", f"The role '{role}' does not exist.")
    return str(found[0]["id"])


async def find_assignments(azure: Azure, principal_id: str, role: str, scope: str) -> list[dict[str, object]]:
    """Return the assignments of a role to a principal at a scope itself, not above or below it. Raises `ArmError`."""
    definition = await find_role(azure, role, scope)
    found = await azure.items(f"{_provider(scope)}/roleAssignments", api_version=AUTHORIZATION)
    assigned = [(item, msgspec.convert(item, AssignmentResource).properties) for item in found]
    return [
        item
        for item, properties in assigned
        if properties.principal_id == principal_id
        and fold(properties.scope) == fold(scope)
        and properties.role_definition_id.rpartition("/")[2] == definition.rpartition("/")[2]
    ]


async def assign_role(azure: Azure, principal_id: str, role: str, scope: str) -> object:
    """Assign a role by name to a principal's object id and return the assignment. Raises `ArmError`."""
    properties = {
        "roleDefinitionId": await find_role(azure, role, scope),
        "principalId": principal_id,
        "principalType": "ServicePrincipal",
    }
    path = f"{_provider(scope)}/roleAssignments/{uuid.uuid4()}"
    return await azure.arm("PUT", path, {"properties": properties}, api_version=AUTHORIZATION)


def _provider(scope: str) -> str:
    return f"{scope.rstrip('/')}/providers/Microsoft.Authorization"


def _literal(text: str) -> str:
    """Return an OData string literal (OData 4.01 ABNF, `string`)."""
    return "'" + text.replace("'", "''") + "'"


@app.command()
def assign(
    assignee: Assignee, role: Role, scope: Scope, output: FormatOption = Format.JSON, query: QueryOption = None
) -> None:
    """Assign a role to a service principal at a scope."""

    async def work(azure: Azure) -> object:
        page = await azure.graph("GET", "/servicePrincipals", query={"$filter": f"appId eq {_literal(assignee)}"})
        found = msgspec.convert(page, Page).value
        if not found:
            raise ArmError(404, "PrincipalNotFound", f"No service principal has the application id '{assignee}'.")
        return await assign_role(azure, str(found[0]["id"]), role, scope)

    show(run(work), output, query)


@app.command("list")
def list_(
    scope: Annotated[
        str | None, typer.Option(metavar="ID", help="Resource id of the scope. The default is the subscription.")
    ] = None,
    output: FormatOption = Format.JSON,
    query: QueryOption = None,
) -> None:
    """List the role assignments at a scope and below it."""

    async def work(azure: Azure) -> list[dict[str, object]]:
        return await azure.items(
            f"{_provider(scope or azure.subscription)}/roleAssignments", api_version=AUTHORIZATION
        )

    show(run(work), output, query)

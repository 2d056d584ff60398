"""Role definitions and role assignments through the front door, with Microsoft's own client and with plain requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.authorization import AuthorizationManagementClient

from cumulet.common.entra import Credential
from tests.cloud import Answer, Cloud
from tests.microsoft import management

AUTHORIZATION = "providers/Microsoft.Authorization"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


@pytest.fixture(scope="module")
def group(cloud: Cloud) -> str:
    """The id of a resource group."""
    path = f"{cloud.subscription}/resourceGroups/roles"
    assert cloud.arm("PUT", path, {"location": "eastus"}).status in (200, 201)
    return path


@pytest.fixture
def client(cloud: Cloud) -> Iterator[AuthorizationManagementClient]:
    """Microsoft's client, as the owner."""
    with management(AuthorizationManagementClient, cloud) as made:
        yield made


def custom(
    cloud: Cloud, scopes: list[str], as_: Credential | None = None, at: str = "", **permission: object
) -> Answer:
    """Create a custom role."""
    properties = {
        "roleName": f"custom {uuid.uuid4()}",
        "description": "for a test",
        "assignableScopes": scopes,
        "permissions": [permission],
    }
    path = f"{at or cloud.subscription}/{AUTHORIZATION}/roleDefinitions/{uuid.uuid4()}"
    return cloud.arm("PUT", path, {"properties": properties}, as_=as_)


def put_group(cloud: Cloud, name: str, who: Credential) -> int:
    path = f"{cloud.subscription}/resourceGroups/{name}"
    return cloud.arm("PUT", path, {"location": "eastus"}, as_=who).status


def test_a_custom_role_with_microsofts_client(
    cloud: Cloud, client: AuthorizationManagementClient, group: str
) -> None:
    who = cloud.principal("sdk")
    name = str(uuid.uuid4())
    made = client.role_definitions.create_or_update(
        cloud.subscription,
        name,
        {
            "properties": {
                "roleName": f"sdk {name}",
                "description": "d",
                "type": "CustomRole",
                "assignableScopes": [group],
                "permissions": [{"actions": ["*/read"], "notActions": ["Microsoft.Authorization/*"]}],
            }
        },
    )
    assert (made.role_type, made.permissions[0].not_actions) == ("CustomRole", ["Microsoft.Authorization/*"])
    assert name in {role.name for role in client.role_definitions.list(group, filter="type eq 'CustomRole'")}
    assert name not in {role.name for role in client.role_definitions.list(cloud.subscription)}
    given = client.role_assignments.create(
        group,
        str(uuid.uuid4()),
        {"properties": {"roleDefinitionId": made.id, "principalId": who.object_id}},
    )
    assert given.principal_type == "ServicePrincipal"
    at = client.role_assignments.list_for_scope(group, filter=f"assignedTo('{who.object_id}')")
    assert [item.name for item in at] == [given.name]
    assert cloud.arm("GET", group, as_=who).status == 200
    assert cloud.arm("GET", f"{group}/{AUTHORIZATION}/roleAssignments", as_=who).status == 403
    with pytest.raises(HttpResponseError, match="RoleDefinitionHasAssignments"):
        client.role_definitions.delete(cloud.subscription, name)
    client.role_assignments.delete_by_id(given.id)
    assert cloud.arm("GET", group, as_=who).status == 403
    client.role_definitions.delete(cloud.subscription, name)


def test_rights_are_inherited_and_end_with_the_assignment(cloud: Cloud, group: str) -> None:
    above, here = cloud.principal("above", Reader=cloud.subscription), cloud.principal("here", Reader=group)
    nobody = cloud.principal("nobody")
    for path, expected in (
        (group, {"above": 200, "here": 200, "nobody": 403}),
        (cloud.subscription, {"above": 200, "here": 403, "nobody": 403}),
    ):
        seen = {who.display_name: cloud.arm("GET", path, as_=who).status for who in (above, here, nobody)}
        assert seen == expected
    listed = cloud.arm("GET", f"{group}/{AUTHORIZATION}/roleAssignments?$filter=atScope()").body["value"]
    principals = {item["properties"]["principalId"]: item for item in listed}
    assert {above.object_id, here.object_id} <= principals.keys()
    assert cloud.arm("DELETE", principals[here.object_id]["id"]).status == 200
    assert cloud.arm("DELETE", principals[here.object_id]["id"]).status == 204
    assert cloud.arm("GET", group, as_=here).status == 403
    # An inherited assignment cannot be deleted at a lower scope.
    below = f"{group}/{AUTHORIZATION}/roleAssignments/{principals[above.object_id]['name']}"
    assert cloud.arm("DELETE", below).status == 204
    assert cloud.arm("GET", below).code == "RoleAssignmentNotFound"
    assert cloud.arm("GET", group, as_=above).status == 200


def test_lists_at_a_scope(cloud: Cloud, group: str) -> None:
    at, below = cloud.principal("at", Reader=cloud.subscription), cloud.principal("below", Reader=group)

    def principals(filter_: str) -> set[str]:
        query = f"?$filter={quote(filter_)}" if filter_ else ""
        found = cloud.arm("GET", f"{cloud.subscription}/{AUTHORIZATION}/roleAssignments{query}").body["value"]
        return {item["properties"]["principalId"] for item in found}

    assert {at.object_id, below.object_id} <= principals("")
    assert below.object_id not in principals("atScope()")
    assert principals(f"atScope() and assignedTo('{at.object_id}')") == {at.object_id}
    assert principals(f"principalId eq '{below.object_id}'") == {below.object_id}
    assert principals(f"principalId eq '{at.object_id}' and assignedTo('{below.object_id}')") == set()
    for wrong in ("roleName eq 'x'", "atScope", "principalId ne 'x'", "x", "startswith(principalId,'x')"):
        path = f"{cloud.subscription}/{AUTHORIZATION}/roleAssignments?$filter={quote(wrong)}"
        assert cloud.arm("GET", path).code == "UnsupportedQuery"


def test_not_actions_hold_at_the_door(cloud: Cloud) -> None:
    role = custom(
        cloud,
        [cloud.subscription],
        actions=["Microsoft.Resources/*"],
        notActions=["microsoft.resources/SUBSCRIPTIONS/resourceGroups/delete"],
    )
    assert role.status == 201
    who = cloud.principal("builder", **{role.body["properties"]["roleName"]: cloud.subscription})
    assert put_group(cloud, "built", who) == 201
    path = f"{cloud.subscription}/resourceGroups/built"
    assert cloud.arm("DELETE", path, as_=who).code == "AuthorizationFailed"
    changed = {**role.body["properties"], "permissions": [{"actions": ["Microsoft.Resources/*"]}]}
    assert cloud.arm("PUT", role.body["id"], {"properties": changed}).status == 201
    assert cloud.arm("DELETE", path, as_=who).status == 200


def test_data_actions_open_no_door(cloud: Cloud, group: str) -> None:
    role = custom(cloud, [cloud.subscription], dataActions=["*/read"])
    who = cloud.principal("data", **{role.body["properties"]["roleName"]: group})
    assert cloud.arm("GET", group, as_=who).status == 403


def test_nobody_grants_himself_more(cloud: Cloud, group: str) -> None:
    """The right to change roles at one scope does not apply to another."""
    contributor = cloud.principal("climber", Contributor=cloud.subscription)
    local = cloud.principal("local-owner", Owner=group)
    reader = f"{cloud.subscription}/{AUTHORIZATION}/roleDefinitions/{READER}"
    for who, scope in ((contributor, group), (contributor, cloud.subscription), (local, cloud.subscription)):
        properties = {"roleDefinitionId": reader, "principalId": who.object_id}
        path = f"{scope}/{AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
        assert cloud.arm("PUT", path, {"properties": properties}, as_=who).code == "AuthorizationFailed"
    assert custom(cloud, [group], contributor, at=group, actions=["*"]).code == "AuthorizationFailed"
    assert custom(cloud, [group], local, at=group, actions=["*/read"]).status == 201
    assert custom(cloud, [cloud.subscription], local, at=group, actions=["*"]).code == "LinkedAuthorizationFailed"
    # A role of the whole subscription cannot be changed or deleted through a group.
    whole = custom(cloud, [cloud.subscription, group], actions=["*/read"]).body
    from_within = f"{group}/{AUTHORIZATION}/roleDefinitions/{whole['name']}"
    changed = {**whole["properties"], "assignableScopes": [group], "permissions": [{"actions": ["*"]}]}
    assert cloud.arm("PUT", from_within, {"properties": changed}, as_=local).code == "LinkedAuthorizationFailed"
    assert cloud.arm("DELETE", from_within, as_=local).code == "LinkedAuthorizationFailed"
    assert cloud.arm("GET", whole["id"]).body["properties"]["permissions"][0]["actions"] == ["*/read"]


def test_a_role_is_given_once_and_never_turned_into_another(cloud: Cloud, group: str) -> None:
    who = cloud.principal("once")
    first = cloud.assign(who.object_id, "Reader", group)
    assert first.status == 201
    again = cloud.assign(who.object_id, "Reader", group.upper().replace("SUBSCRIPTIONS", "subscriptions"))
    assert (again.status, again.code) == (409, "RoleAssignmentExists")
    assert first.body["name"].replace("-", "") in again.body["error"]["message"]
    same = {"properties": first.body["properties"]}
    assert cloud.arm("PUT", first.body["id"], same).status == 200
    other = {"properties": {**first.body["properties"], "principalId": cloud.owner.object_id}}
    assert cloud.arm("PUT", first.body["id"], other).code == "RoleAssignmentUpdateNotPermitted"
    moved = f"{cloud.subscription}/{AUTHORIZATION}/roleAssignments/{first.body['name']}"
    assert cloud.arm("PUT", moved, same).code == "RoleAssignmentUpdateNotPermitted"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"principalId": str(uuid.uuid4())}, "PrincipalNotFound"),
        ({"principalId": ["x"]}, "PrincipalNotFound"),
        ({"roleDefinitionId": str(uuid.uuid4())}, "RoleDefinitionDoesNotExist"),
        ({"roleDefinitionId": {}}, "RoleDefinitionDoesNotExist"),
        ({"principalType": "User"}, "UnmatchedPrincipalType"),
    ],
)
def test_bad_assignments(cloud: Cloud, group: str, changed: dict[str, object], code: str) -> None:
    properties = {"roleDefinitionId": READER, "principalId": cloud.owner.object_id, **changed}
    path = f"{group}/{AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
    answer = cloud.arm("PUT", path, {"properties": properties})
    assert (answer.status in (400, 404), answer.code) == (True, code)


def test_where_a_role_can_be_given(cloud: Cloud, group: str) -> None:
    role = custom(cloud, [group], at=group, actions=["*/read"]).body
    properties = {"roleDefinitionId": role["id"], "principalId": cloud.owner.object_id}
    path = f"{cloud.subscription}/{AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
    answer = cloud.arm("PUT", path, {"properties": properties})
    assert answer.code == "RoleAssignmentScopeNotAssignableToRoleDefinition"
    nowhere = f"{group}/providers/Microsoft.ContainerRegistry/registries/none/{AUTHORIZATION}/roleAssignments"
    answer = cloud.arm("PUT", f"{nowhere}/{uuid.uuid4()}", {"properties": properties})
    assert (answer.status, answer.code) == (404, "ResourceNotFound")
    named = f"{group}/{AUTHORIZATION}/roleAssignments/not-a-guid"
    assert cloud.arm("PUT", named, {"properties": properties}).code == "InvalidRequestUri"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"roleName": ""}, "InvalidRequestContent"),
        ({"roleName": 5}, "InvalidRequestContent"),
        ({"roleName": "owner"}, "RoleDefinitionWithSameNameExists"),
        ({"description": "x" * 2000}, "InvalidRequestContent"),
        ({"permissions": None}, "InvalidRequestContent"),
        ({"permissions": [1]}, "InvalidRequestContent"),
        ({"permissions": [{"actions": "x"}]}, "InvalidRequestContent"),
        ({"permissions": [{"actions": ["read"]}]}, "InvalidActionOrNotAction"),
        ({"permissions": [{"actions": ["a/b read"]}]}, "InvalidActionOrNotAction"),
        ({"permissions": [{"actions": ["a/" + "b" * 1000]}]}, "InvalidActionOrNotAction"),
        ({"permissions": [{"actions": ["a/b"] * 3000}]}, "InvalidRequestContent"),
        ({"assignableScopes": []}, "MissingAssignableScopes"),
        ({"assignableScopes": ["/"]}, "InvalidAssignableScopes"),
        ({"assignableScopes": ["/subscriptions/other"]}, "InvalidAssignableScopes"),
        ({"assignableScopes": "x"}, "InvalidRequestContent"),
    ],
)
def test_bad_roles(cloud: Cloud, changed: dict[str, object], code: str) -> None:
    properties = {"roleName": f"bad {uuid.uuid4()}", "permissions": [{"actions": ["*/read"]}], **changed}
    path = f"{cloud.subscription}/{AUTHORIZATION}/roleDefinitions/{uuid.uuid4()}"
    answer = cloud.arm("PUT", path, {"properties": properties})
    assert answer.status in (400, 409)
    assert answer.code == code


def test_built_in_roles_stay_as_they_are(cloud: Cloud) -> None:
    path = f"{cloud.subscription}/{AUTHORIZATION}/roleDefinitions/{READER}"
    shown = cloud.arm("GET", path).body
    assert cloud.arm("PUT", path, {"properties": shown["properties"]}).code == "RoleDefinitionUpdateNotAllowed"
    assert cloud.arm("DELETE", path).code == "RoleDefinitionUpdateNotAllowed"


def test_the_provider_takes_calls_from_the_front_door_only(cloud: Cloud) -> None:
    path = f"{cloud.subscription}/{AUTHORIZATION}/roleAssignments"
    for slashes in ("", "/", "//"):
        assert cloud.call("identity", "GET", slashes + path).status in (403, 404)
    assert cloud.call("identity", "GET", path, token=cloud.token()).code == "Forbidden"
    assert cloud.call("identity", "GET", path, show="registry").code == "Forbidden"
    assert cloud.call("identity", "GET", path, show="arm").status == 200

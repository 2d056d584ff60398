"""User-assigned managed identities: as resources, as principals, and their tokens, which only the platform gets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.msi import ManagedServiceIdentityClient

from cumulet.common.config import RoomName
from cumulet.common.entra import ARM_AUDIENCE
from tests.cloud import Answer, Cloud
from tests.microsoft import management

TYPE = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"


@pytest.fixture
def client(cloud: Cloud) -> Iterator[ManagedServiceIdentityClient]:
    """Microsoft's client, as the owner."""
    with management(ManagedServiceIdentityClient, cloud) as made:
        yield made


def make(cloud: Cloud, group: str = "identities") -> dict[str, Any]:
    """Create a managed identity in a resource group."""
    path = f"{cloud.subscription}/resourceGroups/{group}"
    assert cloud.arm("PUT", path, {"location": "eastus"}).status in (200, 201)
    answer = cloud.arm("PUT", f"{path}/{TYPE}/id-{uuid.uuid4()}", {"location": "eastus"})
    assert answer.status == 201
    made: dict[str, Any] = answer.body
    return made


def ask(cloud: Cloud, client_id: str, show: RoomName | None, **form: str) -> Answer:
    filled = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "scope": f"{ARM_AUDIENCE}/.default",
        **form,
    }
    return cloud.call("identity", "POST", f"/{cloud.config.tenant_id}/oauth2/v2.0/token", form=filled, show=show)


def test_its_life_with_microsofts_client(cloud: Cloud, client: ManagedServiceIdentityClient) -> None:
    assert cloud.arm("PUT", f"{cloud.subscription}/resourceGroups/sdk", {"location": "eastus"}).status == 201
    identities = client.user_assigned_identities
    made = identities.create_or_update("sdk", "mine", {"location": "eastus", "tags": {"a": "b"}})
    assert made.tenant_id == cloud.config.tenant_id
    same = identities.create_or_update("sdk", "MINE", {"location": "eastus", "tags": {"c": "d"}})
    assert (same.client_id, same.principal_id, same.tags) == (made.client_id, made.principal_id, {"c": "d"})
    assert [item.name for item in identities.list_by_resource_group("sdk")] == ["mine"]
    assert "mine" in {item.name for item in identities.list_by_subscription()}
    listed = cloud.arm("GET", f"{cloud.subscription}/resourceGroups/sdk/resources").body["value"]
    assert [item["type"] for item in listed] == ["Microsoft.ManagedIdentity/userAssignedIdentities"]
    principal = cloud.graph("GET", f"/servicePrincipals/{made.principal_id}").body
    assert principal["servicePrincipalType"] == "ManagedIdentity"
    identities.delete("sdk", "mine")
    with pytest.raises(ResourceNotFoundError):
        identities.get("sdk", "mine")
    assert cloud.graph("GET", f"/servicePrincipals/{made.principal_id}").status == 404


def test_only_its_platform_gets_its_tokens(cloud: Cloud) -> None:
    made = make(cloud)
    client_id, principal_id = made["properties"]["clientId"], made["properties"]["principalId"]
    answer = ask(cloud, client_id, "instances")
    assert answer.status == 200
    claims = jwt.decode(answer.body["access_token"], options={"verify_signature": False})
    assert (claims["oid"], claims["xms_mirid"]) == (principal_id, made["id"])
    assert cloud.assign(principal_id, "Reader", f"{cloud.subscription}/resourceGroups/identities").status == 201
    token = answer.body["access_token"]
    assert cloud.call("arm", "GET", made["id"], token=token).status == 200
    for room in (None, "registry", "arm", "node"):
        refused = ask(cloud, client_id, room, client_secret="x")
        assert (refused.status, refused.body["error"]) == (401, "invalid_client")
    # The platform's certificate authenticates managed identities and no other client.
    assert ask(cloud, cloud.owner.client_id, "instances").status == 401


def test_it_has_no_credentials_and_is_changed_by_its_resource_only(cloud: Cloud) -> None:
    made = make(cloud)["properties"]
    path = f"/servicePrincipals/{made['principalId']}"
    for method, more, body in (
        ("POST", "/addPassword", {}),
        ("PATCH", "", {"displayName": "other"}),
        ("PATCH", "", {"keyCredentials": []}),
        ("DELETE", "", None),
    ):
        assert cloud.graph(method, path + more, body).status == 403
    assert cloud.graph("GET", f"/applications(appId='{made['clientId']}')").status == 404
    assert cloud.graph("POST", "/servicePrincipals", {"appId": made["clientId"]}).status == 400


def test_it_goes_with_its_group(cloud: Cloud) -> None:
    made = make(cloud, "short-lived")
    assert cloud.assign(made["properties"]["principalId"], "Reader", cloud.subscription).status == 201
    assert cloud.arm("DELETE", f"{cloud.subscription}/resourceGroups/short-lived").status == 200
    assert ask(cloud, made["properties"]["clientId"], "instances").status == 400
    given = f"{cloud.subscription}/providers/Microsoft.Authorization/roleAssignments"
    filter_ = f"?$filter=principalId%20eq%20'{made['properties']['principalId']}'"
    assert cloud.arm("GET", given + filter_).body["value"] == []


def test_a_workload_runs_as_it_by_leave_of_who_may_assign_it(cloud: Cloud) -> None:
    made = make(cloud)
    group = f"{cloud.subscription}/resourceGroups/identities"
    registry = f"{group}/providers/Microsoft.ContainerRegistry/registries/asitself"
    body = {"location": "eastus", "identity": {"type": "UserAssigned", "userAssignedIdentities": {made["id"]: {}}}}
    role = {
        "roleName": "all but identities",
        "assignableScopes": [cloud.subscription],
        "permissions": [{"actions": ["*"], "notActions": ["Microsoft.ManagedIdentity/*"]}],
    }
    path = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
    assert cloud.arm("PUT", path, {"properties": role}).status == 201
    who = cloud.principal("builder", **{"all but identities": group})
    for method in ("PUT", "PATCH"):
        assert cloud.arm(method, registry, body, as_=who).code == "LinkedAuthorizationFailed"
    unknown = {**body, "identity": {"userAssignedIdentities": {f"{group}/{TYPE}/none": {}}}}
    assert cloud.arm("PUT", registry, unknown, as_=who).code == "FailedIdentityOperation"
    wrongs: list[Any] = [{"userAssignedIdentities": []}, "x", {"userAssignedIdentities": {"x": {}}}]
    for identity in wrongs:
        assert cloud.arm("PUT", registry, {**body, "identity": identity}, as_=who).status == 400


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("ab", {"location": "eastus"}, "ResourceNameInvalid"),
        ("-abc", {"location": "eastus"}, "ResourceNameInvalid"),
        ("a" * 129, {"location": "eastus"}, "ResourceNameInvalid"),
        ("abc", {}, "LocationRequired"),
        ("abc", {"location": 5}, "LocationRequired"),
        ("abc", {"location": "eastus", "tags": []}, "InvalidRequestContent"),
        ("abc", {"location": "eastus", "tags": {"a": 1}}, "InvalidRequestContent"),
    ],
)
def test_bad_identities(cloud: Cloud, name: str, body: dict[str, object], code: str) -> None:
    group = make(cloud)["id"].rpartition("/providers/")[0]
    answer = cloud.arm("PUT", f"{group}/{TYPE}/{name}", body)
    assert (answer.status, answer.code) == (400, code)
    assert name not in {item["name"] for item in cloud.arm("GET", f"{group}/{TYPE}").body["value"]}

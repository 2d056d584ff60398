"""Resource groups and generic lists, with Microsoft's client of Azure Resource Manager and with plain requests."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.mgmt.resource.resources import ResourceManagementClient

from tests.cloud import Answer, Cloud
from tests.microsoft import management

REGISTRIES = "providers/Microsoft.ContainerRegistry/registries"


def make_group(cloud: Cloud, name: str, **tags: str) -> str:
    path = f"{cloud.subscription}/resourceGroups/{name}"
    assert cloud.arm("PUT", path, {"location": "eastus", "tags": tags}).status in (200, 201)
    return path


def make_registry(cloud: Cloud, group: str, name: str = "", **tags: str) -> str:
    path = f"{group}/{REGISTRIES}/{name or 'r' + uuid.uuid4().hex[:20]}"
    answer = cloud.arm("PUT", path, {"location": "eastus", "sku": {"name": "Basic"}, "tags": tags})
    assert answer.status in (200, 201), answer.body
    return path


def names(answer: Answer) -> list[str]:
    return [item["name"] for item in answer.body["value"]]


def test_a_group_lives(cloud: Cloud) -> None:
    path = f"{cloud.subscription}/resourceGroups/lives"
    made = cloud.arm("PUT", path, {"location": "East US", "tags": {"a": "b"}})
    assert made.status == 201
    assert made.body["location"] == "eastus"
    assert made.body["properties"] == {"provisioningState": "Succeeded"}
    assert cloud.arm("PUT", path, {"location": "eastus"}).status == 200
    assert cloud.arm("GET", path.upper().replace("/LIVES", "/Lives")).body["name"] == "lives"
    assert cloud.arm("HEAD", path).status == 204
    assert cloud.arm("PATCH", path, {"tags": {"c": "d"}}).body["tags"] == {"c": "d"}
    assert cloud.arm("DELETE", path).status == 200
    assert cloud.arm("HEAD", path).status == 404
    assert cloud.arm("GET", path).code == "ResourceGroupNotFound"


def test_its_life_with_microsofts_client(cloud: Cloud) -> None:
    with management(ResourceManagementClient, cloud) as client:
        groups = client.resource_groups
        made = groups.create_or_update("sdk", {"location": "eastus", "tags": {"sdk": "yes"}})
        assert made.properties is not None
        assert made.properties.provisioning_state == "Succeeded"
        make_registry(cloud, made.id or "")
        assert [item.name for item in groups.list(filter="tagName eq 'sdk' and tagValue eq 'yes'")] == ["sdk"]
        found = list(client.resources.list_by_resource_group("sdk", filter=f"resourceType eq '{REGISTRIES[10:]}'"))
        assert [item.type for item in found] == ["Microsoft.ContainerRegistry/registries"]
        assert client.providers.get("Microsoft.ContainerRegistry").registration_state == "Registered"
        assert groups.check_existence("sdk")
        groups.begin_delete("sdk").result(30)
        with pytest.raises(ResourceNotFoundError):
            groups.get("sdk")


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("ends.", {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("a b", {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("x" * 91, {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("bad", {}, 400, "LocationRequired"),
        ("bad", {"location": ["eastus"]}, 400, "LocationRequired"),
        ("bad", {"location": "eastus", "tags": ["a"]}, 400, "InvalidRequestContent"),
        ("bad", {"location": "eastus", "tags": {"a": None}}, 400, "InvalidRequestContent"),
    ],
)
def test_bad_groups(cloud: Cloud, name: str, body: object, status: int, code: str) -> None:
    path = f"{cloud.subscription}/resourceGroups/{quote(name)}"
    answer = cloud.arm("PUT", path, body)
    assert (answer.status, answer.code) == (status, code)
    assert cloud.arm("HEAD", path).status == 404


def test_a_group_stays_where_it_is(cloud: Cloud) -> None:
    group = make_group(cloud, "stays")
    assert cloud.arm("PUT", group, {"location": "westeurope"}).code == "InvalidResourceGroupLocation"
    assert cloud.arm("GET", group).body["location"] == "eastus"
    assert cloud.arm("POST", group).code == "MethodNotAllowed"


def test_lists_are_narrowed_and_paged(cloud: Cloud) -> None:
    marker = uuid.uuid4().hex
    for number in range(5):
        make_group(cloud, f"{marker}-{number}", marker=marker, number=str(number))
    groups = f"{cloud.subscription}/resourceGroups"
    where = quote(f"tagName eq 'Marker' and tagValue eq '{marker}'")
    assert len(names(cloud.arm("GET", f"{groups}?$filter={where}"))) == 5
    found: list[str] = []
    url = f"{groups}?$filter={where}&$top=2"
    while url:
        page = cloud.arm("GET", url)
        found += names(page)
        url = page.body.get("nextLink", "").removeprefix(cloud.config.url("arm"))
    assert found == [f"{marker}-{number}" for number in range(5)]


def test_resources_are_listed_as_they_come_and_go(cloud: Cloud) -> None:
    group = make_group(cloud, "comes")
    registry = make_registry(cloud, group, kind="demo")
    other = make_registry(cloud, make_group(cloud, "other"))
    name = registry.rsplit("/", 1)[-1]
    resources = f"{cloud.subscription}/resources"
    everywhere = names(cloud.arm("GET", resources))
    assert {name, other.rsplit("/", 1)[-1]} <= set(everywhere)
    for filter_, expected in (
        ("resourceType eq 'microsoft.containerregistry/registries'", [name]),
        ("resourceType eq 'Microsoft.Other/things'", []),
        (f"name eq '{name}'", [name]),
        ("tagName eq 'kind' and tagValue eq 'demo'", [name]),
    ):
        assert names(cloud.arm("GET", f"{group}/resources?$filter={quote(filter_)}")) == expected
    assert cloud.arm("DELETE", registry).status in (200, 202)
    assert names(cloud.arm("GET", f"{group}/resources")) == []


def test_one_sees_what_one_may_read(cloud: Cloud) -> None:
    group = make_group(cloud, "partly")
    mine, other = make_registry(cloud, group), make_registry(cloud, group)
    who = cloud.principal("partly", Reader=mine)
    name = mine.rsplit("/", 1)[-1]
    for path in (
        f"{cloud.subscription}/resources",
        f"{group}/resources",
        f"{group}/{REGISTRIES}",
        f"{cloud.subscription}/{REGISTRIES}",
    ):
        answer = cloud.arm("GET", path, as_=who)
        assert (answer.status, names(answer)) == (200, [name]), path
    assert cloud.arm("GET", mine, as_=who).status == 200
    assert cloud.arm("GET", other, as_=who).code == "AuthorizationFailed"
    assert names(cloud.arm("GET", f"{cloud.subscription}/resourceGroups", as_=who)) == []
    assert cloud.arm("GET", "/subscriptions", as_=who).body["value"][0]["state"] == "Enabled"
    nobody = cloud.principal("nobody-here")
    assert cloud.arm("GET", "/subscriptions", as_=nobody).body["value"] == []
    for path in ("resources", "resourceGroups", REGISTRIES):
        assert cloud.arm("GET", f"{cloud.subscription}/{path}", as_=nobody).code == "AuthorizationFailed"


def test_a_pull_right_manages_nothing(cloud: Cloud) -> None:
    registry = make_registry(cloud, make_group(cloud, "pulls"))
    who = cloud.principal("puller", AcrPull=registry)
    for method, path in (
        ("GET", registry),
        ("PUT", registry),
        ("PATCH", registry),
        ("DELETE", registry),
        ("POST", f"{registry}/listCredentials"),
    ):
        answer = cloud.arm(method, path, {"location": "eastus"}, as_=who)
        assert (answer.status, answer.code) == (403, "AuthorizationFailed")
        assert who.object_id in answer.body["error"]["message"]


# Deletion.


def test_a_group_goes_with_everything_in_it(cloud: Cloud) -> None:
    group = make_group(cloud, "whole")
    registry = make_registry(cloud, group)
    who = cloud.principal("left-behind", AcrPull=registry, Reader=group)
    assert cloud.arm("DELETE", group).status == 200
    assert make_group(cloud, "whole") == group
    assert cloud.arm("GET", registry).code == "ResourceNotFound"
    given = f"{cloud.subscription}/providers/Microsoft.Authorization/roleAssignments"
    filter_ = quote(f"principalId eq '{who.object_id}'")
    assert cloud.arm("GET", f"{given}?$filter={filter_}").body["value"] == []
    # Rights on a deleted group do not apply to a new group of the same name.
    assert cloud.arm("GET", group, as_=who).code == "AuthorizationFailed"


def test_a_deletion_outlives_a_provider_that_is_away_and_the_front_door(cloud: Cloud) -> None:
    group = make_group(cloud, "slow")
    registry = make_registry(cloud, group)
    cloud.stop("registry")
    accepted = cloud.arm("DELETE", group)
    assert accepted.status == 202
    operation = accepted.headers["Location"].removeprefix(cloud.config.url("arm"))
    assert cloud.arm("GET", operation).status == 202
    assert cloud.arm("GET", group).body["properties"]["provisioningState"] == "Deleting"
    assert cloud.arm("PUT", group, {"location": "eastus"}).code == "ResourceGroupBeingDeleted"
    assert cloud.arm("PUT", f"{group}/{REGISTRIES}/late0", {"location": "eastus"}).code == "ResourceGroupBeingDeleted"
    cloud.kill("arm")
    assert cloud.arm("GET", operation).status == 202
    cloud.start("registry")
    while (answer := cloud.arm("GET", operation)).status == 202:
        assert answer.headers["Retry-After"]
    assert answer.status == 200
    assert cloud.arm("GET", group).code == "ResourceGroupNotFound"
    assert make_group(cloud, "slow") == group
    assert cloud.arm("GET", registry).code == "ResourceNotFound"


def test_what_was_acknowledged_is_there_after_a_kill(cloud: Cloud) -> None:
    group = make_group(cloud, "kept", a="b")
    registry = make_registry(cloud, group)
    cloud.kill("arm")
    assert cloud.arm("GET", group).body["tags"] == {"a": "b"}
    assert [item["id"] for item in cloud.arm("GET", f"{group}/resources").body["value"]] == [registry]


def test_a_refused_resource_leaves_nothing(cloud: Cloud) -> None:
    group = make_group(cloud, "refuses")
    for body in ({}, {"location": "eastus", "sku": {"name": "None"}}):
        assert cloud.arm("PUT", f"{group}/{REGISTRIES}/no", body).status == 400
    assert names(cloud.arm("GET", f"{group}/resources")) == []
    assert cloud.arm("PUT", f"{cloud.subscription}/resourceGroups/none/{REGISTRIES}/orphan", {}).code == (
        "ResourceGroupNotFound"
    )


def test_the_front_door_says_that_somebody_behind_it_is_away(cloud: Cloud) -> None:
    group = make_group(cloud, "waits")
    answer = cloud.arm("GET", f"{group}/providers/Microsoft.ContainerInstance/containerGroups/x")
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")

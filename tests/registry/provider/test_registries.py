"""Registries as resources: created, read, changed and deleted with Microsoft's client, and invalid requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from tests.cloud import Cloud
from tests.microsoft import management
from tests.registry.login_server import AcrRegistry, granted

GROUP = "group"


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[ContainerRegistryManagementClient]:
    with management(ContainerRegistryManagementClient, cloud) as made:
        yield made


def test_the_life_of_a_registry(cloud: Cloud, client: ContainerRegistryManagementClient) -> None:
    name = "AcrLife"
    assert client.registries.check_name_availability(
        {"name": name, "type": "Microsoft.ContainerRegistry/registries"}
    ).name_available
    made = client.registries.begin_create(
        GROUP,
        name,
        {
            "location": "westeurope",
            "sku": {"name": "Standard"},
            "tags": {"a": "b"},
            "properties": {
                "adminUserEnabled": True,
                "policies": {"retentionPolicy": {"status": "enabled", "days": 3}},
            },
        },
    ).result()
    assert (made.name, made.location, made.tags, made.sku.name) == (name, "westeurope", {"a": "b"}, "Standard")
    assert (made.login_server, made.admin_user_enabled) == ("acrlife.azurecr.io", True)
    assert made.provisioning_state == "Succeeded"
    policies = made.as_dict()["properties"]["policies"]
    assert policies["retentionPolicy"] == {"status": "enabled", "days": 3}
    taken = client.registries.check_name_availability(
        {"name": "acrlife", "type": "Microsoft.ContainerRegistry/registries"}
    )
    assert (taken.name_available, taken.reason) == (False, "AlreadyExists")
    assert client.registries.get(GROUP, "acrlife").id == made.id
    assert name in {item.name for item in client.registries.list_by_resource_group(GROUP)}
    assert name in {item.name for item in client.registries.list()}

    changed = client.registries.begin_update(
        GROUP,
        name,
        {
            "sku": {"name": "Premium"},
            "tags": {"c": "d"},
            "properties": {
                "adminUserEnabled": False,
                "anonymousPullEnabled": True,
                "policies": {"softDeletePolicy": {"status": "enabled", "retentionDays": 5}},
            },
        },
    ).result()
    assert (changed.sku.name, changed.tags, changed.location) == ("Premium", {"c": "d"}, "westeurope")
    assert (changed.admin_user_enabled, changed.anonymous_pull_enabled) == (False, True)
    policies = changed.as_dict()["properties"]["policies"]
    assert policies["softDeletePolicy"]["retentionDays"] == 5
    assert policies["retentionPolicy"]["days"] == 3
    with pytest.raises(HttpResponseError, match="admin user is disabled"):
        client.registries.list_credentials(GROUP, name)
    client.registries.begin_update(GROUP, name, {"properties": {"adminUserEnabled": True}}).result()
    before = client.registries.list_credentials(GROUP, name)
    after = client.registries.regenerate_credential(GROUP, name, {"name": "password2"})
    assert before.username == after.username == name
    (first, second), (kept, renewed) = (
        [item.value for item in credentials.passwords or []] for credentials in (before, after)
    )
    assert first == kept
    assert second != renewed
    usages = {usage.name: usage for usage in client.registries.list_usages(GROUP, name).value or []}
    assert (usages["Size"].current_value, usages["Size"].unit) == (0, "Bytes")
    assert usages["Webhooks"].current_value == 0
    client.registries.begin_delete(GROUP, name).result()
    with pytest.raises(ResourceNotFoundError):
        client.registries.get(GROUP, name)
    client.registries.begin_delete(GROUP, name).result()


def test_the_host_name_selects_the_registry(cloud: Cloud) -> None:
    one, two = (AcrRegistry(cloud, f"acrtwin{number}", adminUserEnabled=True) for number in range(2))
    one.push("app", "v1")
    scope = "repository:app:pull"
    assert one.manifest("app", "v1", token=one.admin_token(scope)).status == 200
    assert two.manifest("app", "v1", token=two.admin_token(scope)).status == 404
    assert two.ask(*one.admin(), scope).status == 401
    port = cloud.config.addresses["registry"].port
    named = one.call("GET", "/v2/", headers={"Host": f"ACRTWIN1.azurecr.io:{port}"})
    assert (
        f'realm="https://ACRTWIN1.azurecr.io:{port}/oauth2/token",service="{two.server}"'
        in named.headers["WWW-Authenticate"]
    )
    # Another name, or an address, selects the oldest registry.
    oldest = {
        one.call("GET", "/v2/", headers={"Host": host}).headers["WWW-Authenticate"].rpartition("service=")[2]
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:443", "elsewhere")
    }
    assert len(oldest) == 1
    user, password = two.admin()
    assert granted(two.token(user, password, scope)) == {"app": ["pull"]}


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("abc", {"location": "eastus"}, "RegistryNameNotValid"),
        ("with-dash", {"location": "eastus"}, "RegistryNameNotValid"),
        ("a" * 51, {"location": "eastus"}, "RegistryNameNotValid"),
        ("acrbad", {}, "LocationRequired"),
        ("acrbad", {"location": 1}, "LocationRequired"),
        ("acrbad", {"location": "eastus", "sku": {"name": "Gold"}}, "InvalidSku"),
        ("acrbad", {"location": "eastus", "properties": []}, "InvalidRequestContent"),
        ("acrbad", {"location": "eastus", "tags": {"a": 1}}, "InvalidRequestContent"),
        ("acrbad", {"location": "eastus", "properties": {"adminUserEnabled": "yes"}}, "InvalidRequestContent"),
        ("acrbad", {"location": "eastus", "properties": {"roleAssignmentMode": "x"}}, "InvalidRequestContent"),
        (
            "acrbad",
            {"location": "eastus", "properties": {"policies": {"retentionPolicy": 1}}},
            "InvalidRequestContent",
        ),
        (
            "acrbad",
            {"location": "eastus", "properties": {"policies": {"retentionPolicy": {"days": 400}}}},
            "InvalidRequestContent",
        ),
    ],
)
def test_bad_registries(cloud: Cloud, name: str, body: dict[str, object], code: str) -> None:
    path = f"{cloud.subscription}/resourceGroups/group/providers/Microsoft.ContainerRegistry/registries/{name}"
    answer = cloud.arm("PUT", path, body)
    assert (answer.status, answer.code) == (400, code)
    assert cloud.arm("GET", path).status == 404


def test_names_are_unique_in_all_groups(cloud: Cloud) -> None:
    AcrRegistry(cloud, "acrtaken")
    other = f"{cloud.subscription}/resourceGroups/other"
    assert cloud.arm("PUT", other, {"location": "eastus"}).status in (200, 201)
    path = f"{other}/providers/Microsoft.ContainerRegistry/registries/acrTAKEN"
    answer = cloud.arm("PUT", path, {"location": "eastus"})
    assert (answer.status, answer.code) == (409, "AlreadyInUse")
    assert cloud.arm("DELETE", path).status == 204
    assert cloud.arm("POST", f"{path}/listCredentials").code == "ResourceNotFound"


def test_the_provider_accepts_only_the_front_door(cloud: Cloud, acr: AcrRegistry) -> None:
    for path in (acr.id, f"/{acr.id}", f"{acr.id}/tokens", f"{acr.id}/listCredentials"):
        assert cloud.call("registry", "GET", path, token=cloud.token()).status in (403, 404)
        assert cloud.call("registry", "POST", path, show="instances", body={}).status in (403, 404)

"""Container groups by Azure Resource Manager: images that cannot be pulled, managed identities, and the bill."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.cli.cost_estimate import estimate
from tests.cases.azure import AzureClient, container_group
from tests.cases.path import IMAGE, LOGIN_SERVER, ThePath, pod

ACR_PULL = "7f951dda-4ed3-4680-a7ca-43fe172d538d"


@pytest.fixture(scope="module")
def azure(path: ThePath) -> AzureClient:
    return AzureClient(path.installation)


@pytest.fixture(scope="module")
def groups(azure: AzureClient) -> str:
    return f"{azure.subscription}/resourceGroups/aks-rg2/providers/Microsoft.ContainerInstance/containerGroups"


def credential(path: ThePath, password: str | None = None) -> list[dict[str, str]]:
    user, _, secret = path.credentials.partition(":")
    return [{"server": LOGIN_SERVER, "username": user, "password": password or secret}]


@pytest.mark.parametrize(("image", "password"), [(f"{LOGIN_SERVER}/nope:1", None), (IMAGE, "wrong")])
def test_a_group_whose_image_is_not_accessible_is_refused(
    path: ThePath, azure: AzureClient, groups: str, image: str, password: str | None
) -> None:
    body = container_group(image, imageRegistryCredentials=credential(path, password))
    answer = azure.call("PUT", f"{groups}/c51", body)
    assert (answer.status, answer.body["error"]["code"]) == (400, "InaccessibleImage")
    assert answer.body["error"]["message"].startswith(
        f"The image '{image}' in container group 'c51' is not accessible. Please check the image and registry credential."
    )
    assert azure.call("GET", f"{groups}/c51").status == 404


def test_a_command_that_is_not_there_ends_the_operation(path: ThePath, azure: AzureClient, groups: str) -> None:
    body = container_group(IMAGE, "/nope", imageRegistryCredentials=credential(path))
    operation = azure.finish(azure.call("PUT", f"{groups}/c51b", body))
    assert operation["status"] == "Failed"
    assert "/nope" in operation["error"]["message"]
    deleted = azure.call("DELETE", f"{groups}/c51b")
    assert deleted.status == 202
    assert azure.finish(deleted)["status"] == "Succeeded"
    assert azure.call("DELETE", f"{groups}/c51b").status == 204


@pytest.fixture(scope="module")
def identity(azure: AzureClient) -> dict[str, Any]:
    """A user-assigned identity."""
    where = (
        f"{azure.subscription}/resourceGroups/aks-rg2/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull"
    )
    answer = azure.call("PUT", where, {"location": "eastus"})
    assert answer.status == 201
    return dict(answer.body)


def assign_pull(azure: AzureClient, principal: str) -> None:
    registry = (
        f"{azure.subscription}/resourceGroups/aks-rg2/providers/Microsoft.ContainerRegistry/registries/acrdemo2ss"
    )
    role = f"{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions/{ACR_PULL}"
    where = f"{registry}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    assigned = {"roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal"}
    assert azure.call("PUT", where, {"properties": assigned}).status == 201


def test_an_image_is_pulled_with_a_managed_identity_that_may(
    azure: AzureClient, groups: str, identity: dict[str, Any]
) -> None:
    by = [{"server": LOGIN_SERVER, "identity": identity["id"]}]
    body = container_group(IMAGE, "sleep", "300", imageRegistryCredentials=by, terminationGracePeriodSeconds=0)
    # The identity of a credential must be one of the group's.
    assert azure.call("PUT", f"{groups}/c52", body).body["error"]["code"] == "InvalidImageRegistryCredentialIdentity"
    body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    refused = azure.call("PUT", f"{groups}/c52", body)
    assert (refused.status, refused.body["error"]["code"]) == (400, "InaccessibleImage")
    assign_pull(azure, identity["properties"]["principalId"])
    assert azure.finish(azure.call("PUT", f"{groups}/c52", body))["status"] == "Succeeded"
    found = azure.call("GET", f"{groups}/c52").body
    assert found["identity"]["userAssignedIdentities"] == {
        identity["id"]: {name: identity["properties"][name] for name in ("principalId", "clientId")}
    }
    assert found["properties"]["imageRegistryCredentials"][0]["identity"] == identity["id"]
    # An Entra token goes to no server of somebody else.
    elsewhere = container_group("registry.test/a:1", imageRegistryCredentials=[{**by[0], "server": "registry.test"}])
    elsewhere["identity"] = body["identity"]
    assert "login server" in azure.call("PUT", f"{groups}/c52b", elsewhere).body["error"]["message"]
    azure.finish(azure.call("DELETE", f"{groups}/c52"))


def test_a_group_pulls_with_its_own_identity(path: ThePath, azure: AzureClient, groups: str) -> None:
    by = credential(path)
    body = container_group(IMAGE, "sleep", "300", imageRegistryCredentials=by, terminationGracePeriodSeconds=0)
    body["identity"] = {"type": "SystemAssigned"}
    created = azure.call("PUT", f"{groups}/own", body)
    assert azure.finish(created)["status"] == "Succeeded"
    own = created.body["identity"]
    assert own["type"] == "SystemAssigned"
    assert own["tenantId"] == azure.settings["tenant_id"]
    body["properties"]["imageRegistryCredentials"] = [{"server": LOGIN_SERVER, "identity": "system"}]
    assert azure.call("PUT", f"{groups}/own", body).body["error"]["code"] == "InaccessibleImage"
    assign_pull(azure, own["principalId"])
    assert azure.finish(azure.call("PUT", f"{groups}/own", body))["status"] == "Succeeded"
    azure.finish(azure.call("DELETE", f"{groups}/own"))
    # The identity is gone with the group: one of the same name is another.
    again_properties = {**body["properties"], "imageRegistryCredentials": by}
    again = azure.call("PUT", f"{groups}/own", {**body, "properties": again_properties})
    assert again.body["identity"]["principalId"] != own["principalId"]
    azure.finish(again)
    without = azure.call(
        "PUT", f"{groups}/own", {**body, "identity": {"type": "None"}, "properties": again_properties}
    )
    assert "identity" not in without.body
    azure.finish(azure.call("DELETE", f"{groups}/own"))


@pytest.fixture(scope="module")
def billed(path: ThePath) -> Iterator[list[dict[str, Any]]]:
    """The bill of two pods with labels, one of which has ended."""
    made = [pod(f"billed-{name}", [{"name": "main", "command": command}]) for name, command in
            (("on", ["sleep", "1000"]), ("off", ["true"]))]  # fmt: skip
    for item in made:
        item["metadata"]["labels"] = {"example.com/team": "blue"}
    made[1]["spec"]["restartPolicy"] = "Never"
    path.apply(*made)
    path.wait_phase("billed-on", "Running")
    path.wait_phase("billed-off", "Succeeded")
    yield path.installation.cumulet("cost", "-o", "json")
    path.kubectl("delete", "pod", "billed-on", "billed-off", "--wait=false")


def test_the_bill_has_a_total_and_is_added_up(path: ThePath, billed: list[dict[str, Any]]) -> None:
    *rows, total = billed
    assert total["name"] == "Total"
    assert total["seconds"] == sum(row["seconds"] for row in rows)
    mine = [row for row in rows if "billed-" in row["name"]]
    assert sorted(row["state"] for row in mine) == ["running", "stopped"]
    (off,) = [row for row in mine if row["state"] == "stopped"]
    assert float(off["cost"]) == pytest.approx(off["seconds"] * (0.0405 + 1.5 * 0.00445) / 3600, abs=1e-6)
    by_label = path.installation.cumulet("cost", "--by", "label=example.com/team", "-o", "json")
    assert "blue" in [row["name"] for row in by_label]
    days = path.installation.cumulet("cost", "--by", "day", "-o", "json")
    assert sum(row["seconds"] for row in days[:-1]) == days[-1]["seconds"]
    assert (
        path.installation.cumulet("cost", "--by", "namespace", "--until", "2020-01-01", "-o", "json")[0]["seconds"]
        == 0
    )


def test_manifests_are_estimated_before_they_are_applied(tmp_path: Path) -> None:
    template = {"spec": pod("x", [{"name": "main", "resources": {"limits": {"cpu": "2", "memory": "4G"}}}])["spec"]}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                  "spec": {"replicas": 3, "template": template}}  # fmt: skip
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"},
            "spec": {"jobTemplate": {"spec": {"template": template}}}}  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment, cron]}))
    first, run, total = estimate([str(tmp_path)])
    hour = 3 * (2 * 0.0405 + 4 * 0.00445)
    assert (first["pods"], first["vcpu"], first["gb"], first["note"]) == (3, 2.0, 4.0, "")
    assert [float(str(first[name])) for name in ("hour", "day", "month")] == pytest.approx(
        [hour, 24 * hour, 730 * hour]
    )
    assert (run["hour"], total["month"]) == (f"{hour / 3:.6f}", first["month"])

"""Microsoft's libraries in containers, unmodified: managed identities of groups, and workload identity of pods."""

from __future__ import annotations

import json
import uuid
from typing import Any

import jwt
import pytest

from cumulet.common import config as settings
from cumulet.common.doors import METADATA, api_server, door
from tests.cases.azure import AzureClient, container_group
from tests.cases.path import LOGIN_SERVER, ThePath, pod
from tests.cases.python_image import python_layers

#: The image has 90 MB.
pytestmark = pytest.mark.timeout(300)

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
ARM = "https://management.azure.com"

#: Prints the client id and issuer of a token of each kind of credential, and the answer of Azure Resource Manager.
MANAGED = """
import json, os, sys, urllib.request
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
scope = "https://management.azure.com/.default"
found = {"default": DefaultAzureCredential().get_token(scope).token}
found["app service"] = ManagedIdentityCredential().get_token(scope).token
named = {"client_id": sys.argv[1]}
found["named"] = ManagedIdentityCredential(**named).get_token("https://vault.azure.net/.default").token
found["resource"] = ManagedIdentityCredential(identity_config={"resource_id": sys.argv[2]}).get_token(scope).token
del os.environ["IDENTITY_ENDPOINT"]
found["metadata service"] = ManagedIdentityCredential(**named).get_token(scope).token
try:
    ManagedIdentityCredential(client_id="00000000-0000-0000-0000-000000000000").get_token(scope)
except Exception as error:
    found["other"] = str(error)
print(json.dumps(found), flush=True)
"""

FEDERATED = """
import json, os, ssl, urllib.request
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential, WorkloadIdentityCredential
scope = "https://management.azure.com/.default"
found = {}
for kind in (DefaultAzureCredential, WorkloadIdentityCredential, ManagedIdentityCredential):
    found[kind.__name__] = kind(disable_instance_discovery=True).get_token(scope).token
request = urllib.request.Request(os.environ["ARM"], headers={"Authorization": "Bearer " + found["DefaultAzureCredential"]})
with urllib.request.urlopen(request) as answer:
    found["groups"] = [item["name"] for item in json.load(answer)["value"]]
print(json.dumps(found), flush=True)
"""

#: Prints which addresses accept a connection; packets to the others are dropped.
REACHED = """
import json, socket, sys
found = {}
for name, place in json.loads(sys.argv[1]).items():
    try:
        socket.create_connection(tuple(place), 5).close()
        found[name] = True
    except TimeoutError:
        found[name] = False
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def azure(path: ThePath) -> AzureClient:
    return AzureClient(path.installation)


@pytest.fixture(scope="module")
def group(azure: AzureClient) -> str:
    return f"{azure.subscription}/resourceGroups/aks-rg2"


@pytest.fixture(scope="module")
def image(path: ThePath) -> str:
    """Python with azure-identity."""
    return path.push("python:1", python_layers(), Env=["PYTHONPATH=/site", "HOME=/tmp"])


@pytest.fixture(scope="module")
def identity(azure: AzureClient, group: str) -> dict[str, Any]:
    """A user-assigned identity that may read the resource group."""
    where = f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"
    made: dict[str, Any] = azure.call("PUT", where, {"location": "eastus"}).body
    role = f"{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions/{READER}"
    assigned = {"roleDefinitionId": role, "principalId": made["properties"]["principalId"]}
    assignment = f"{group}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    assert azure.call("PUT", assignment, {"properties": assigned}).status == 201
    return made


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return decoded


def credential(path: ThePath) -> list[dict[str, str]]:
    user, _, password = path.credentials.partition(":")
    return [{"server": LOGIN_SERVER, "username": user, "password": password}]


def test_managed_identities_of_a_group(
    path: ThePath, azure: AzureClient, group: str, image: str, identity: dict[str, Any]
) -> None:
    mine = identity["properties"]
    command = ("python3", "-c", MANAGED, mine["clientId"], identity["id"])
    body = container_group(image, *command, imageRegistryCredentials=credential(path), restartPolicy="Never")
    body["identity"] = {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    url = f"{group}/providers/Microsoft.ContainerInstance/containerGroups/managed"
    created = azure.call("PUT", url, body)
    assert azure.finish(created)["status"] == "Succeeded"

    def printed() -> list[str]:
        log = azure.call("GET", f"{url}/containers/main/logs").body["content"]
        return [line for line in log.splitlines() if line.startswith("{")]

    found = json.loads(path.until(printed, "output")[0])
    own = created.body["identity"]["principalId"]
    assert "Identity not found" in found.pop("other")
    objects = {kind: claims(token)["oid"] for kind, token in found.items()}
    assert objects == {
        "default": own,
        "app service": own,
        "named": mine["principalId"],
        "resource": mine["principalId"],
        "metadata service": mine["principalId"],
    }
    assert claims(found["named"])["aud"] == "https://vault.azure.net"
    azure.finish(azure.call("DELETE", url))


def test_workload_identity_of_a_pod(
    path: ThePath, azure: AzureClient, group: str, image: str, identity: dict[str, Any]
) -> None:
    config = settings.load(path.installation.data_dir)
    trusted = {
        "issuer": path.installation.environment["CUMULET_OIDC_ISSUER"],
        "subject": "system:serviceaccount:default:federated",
        "audiences": ["api://AzureADTokenExchange"],
    }
    where = f"{identity['id']}/federatedIdentityCredentials/pod"
    assert azure.call("PUT", where, {"properties": trusted}).status == 201
    mine = identity["properties"]
    annotations = {"azure.workload.identity/client-id": mine["clientId"]}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "federated", "annotations": annotations},
    }
    arm = f"{door(config, 'arm').url}{group}/resources?api-version=2024-03-01"
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", FEDERATED],
        "env": [{"name": "ARM", "value": arm}],
    }
    made = pod("federated", [container], restartPolicy="Never", serviceAccountName="federated")
    made["metadata"]["labels"]["azure.workload.identity/use"] = "true"
    path.apply(account, made)
    found = json.loads(path.output("federated").splitlines()[-1])
    assert "app" in found.pop("groups")
    assert {claims(token)["oid"] for token in found.values()} == {mine["principalId"]}
    assert len(found) == 3
    path.kubectl("delete", "pod", "federated", "--wait=false")


def test_a_pod_without_an_identity_reaches_no_door_of_identities(path: ThePath, image: str) -> None:
    config = settings.load(path.installation.data_dir)
    doors = {
        "api": api_server(config),
        "identity": door(config, "identity"),
        "arm": door(config, "arm"),
        "metadata": METADATA,
    }
    places = {name: (address.host, address.port) for name, address in doors.items()}
    command = ["python3", "-c", REACHED, json.dumps(places)]
    path.apply(pod("nobody", [{"name": "main", "image": image, "command": command}], restartPolicy="Never"))
    found = json.loads(path.output("nobody"))
    assert found == {"api": True, "identity": False, "arm": False, "metadata": True}
    path.kubectl("delete", "pod", "nobody", "--wait=false")

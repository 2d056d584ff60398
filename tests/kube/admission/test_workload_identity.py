"""Pods with workload identity get what the webhook of azure-workload-identity gives them."""

from __future__ import annotations

import uuid
from typing import Any

import jwt
import pytest

from tests.kube.conftest import Server

PREFIX = "azure.workload.identity"
TOKENS, AUTHORITIES = "/var/run/secrets/azure/tokens", "/var/run/secrets/azure/ca"


@pytest.fixture(scope="module")
def path(server: Server) -> str:
    """A namespace with the service account of an application."""
    made = server.namespace(f"n{uuid.uuid4().hex[:10]}")
    annotations = {f"{PREFIX}/client-id": "the-client", f"{PREFIX}/service-account-token-expiration": "7200"}
    server.make(f"{made}/serviceaccounts", {"metadata": {"name": "app", "annotations": annotations}})
    other = {f"{PREFIX}/tenant-id": "another-tenant"}
    server.make(f"{made}/serviceaccounts", {"metadata": {"name": "other", "annotations": other}})
    return made


def pod(*containers: dict[str, Any], label: str = "true", account: str = "app", **annotations: str) -> dict[str, Any]:
    metadata = {
        "generateName": "p-",
        "labels": {f"{PREFIX}/use": label},
        "annotations": {f"{PREFIX}/{name.replace('_', '-')}": value for name, value in annotations.items()},
    }
    spec = {"serviceAccountName": account, "containers": containers or [{"name": "c", "image": "x"}]}
    return {"metadata": metadata, "spec": spec}


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("env") or []}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    found = container.get("volumeMounts") or []
    return {item["name"]: item["mountPath"] for item in found if item["name"].startswith("azure-")}


def test_environment_volume_and_mounts(server: Server, path: str) -> None:
    sent = pod({"name": "c", "image": "x", "env": [{"name": "AZURE_TENANT_ID", "value": "mine"}]})
    sent["spec"]["initContainers"] = [{"name": "i", "image": "x"}]
    made = server.make(f"{path}/pods", sent)["spec"]
    config = server.cloud.config
    gateway = config.pod_cidr.replace("0.0/16", "0.1")
    expected = {
        "AZURE_CLIENT_ID": "the-client",
        "AZURE_TENANT_ID": config.tenant_id,
        "AZURE_FEDERATED_TOKEN_FILE": f"{TOKENS}/azure-identity-token",
        "AZURE_AUTHORITY_HOST": f"https://{gateway}:8444/",
        "SSL_CERT_FILE": f"{AUTHORITIES}/ca-bundle.crt",
        "REQUESTS_CA_BUNDLE": f"{AUTHORITIES}/ca-bundle.crt",
    }
    (init,), (container,) = made["initContainers"], made["containers"]
    assert variables(init) == expected
    assert variables(container) == {**expected, "AZURE_TENANT_ID": "mine"}
    assert mounts(init) == mounts(container) == {"azure-identity-token": TOKENS, "azure-ca-bundle": AUTHORITIES}
    volumes = {item["name"]: item for item in made["volumes"]}
    (source,) = volumes["azure-identity-token"]["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "audience": "api://AzureADTokenExchange",
        "expirationSeconds": 7200,
        "path": "azure-identity-token",
    }
    assert volumes["azure-ca-bundle"]["configMap"]["name"] == "azure-ca-bundle"


def test_annotations(server: Server, path: str) -> None:
    containers = [{"name": name, "image": "x"} for name in ("a", "b", "c")]
    sent = pod(*containers, account="other", skip_containers="a; c", service_account_token_expiration="86400")
    made = server.make(f"{path}/pods", sent)["spec"]
    assert [bool(mounts(item)) for item in made["containers"]] == [False, True, False]
    assert [variables(item).get("AZURE_TENANT_ID") for item in made["containers"]] == [None, "another-tenant", None]
    assert "AZURE_CLIENT_ID" not in variables(made["containers"][1])
    token = next(item for item in made["volumes"] if item["name"] == "azure-identity-token")
    assert token["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 86400


def test_other_pods_get_nothing(server: Server, path: str) -> None:
    for label in ("false", "True", ""):
        made = server.make(f"{path}/pods", pod(label=label))["spec"]
        assert not mounts(made["containers"][0])
        assert not variables(made["containers"][0])


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("service_account_token_expiration", "3599"),
        ("service_account_token_expiration", "86401"),
        ("service_account_token_expiration", "1h"),
        ("inject_proxy_sidecar", "true"),
        ("proxy_sidecar_port", "8000"),
    ],
)
def test_refusals(server: Server, path: str, annotation: str, value: str) -> None:
    answer = server.call("POST", f"{path}/pods", pod(**{annotation: value}))
    assert answer.status == 403
    assert "workload identity: " in answer.body["message"]


def test_the_webhook_beside_it_changes_nothing(server: Server, path: str) -> None:
    made = server.make(f"{path}/pods", pod())
    again = {"metadata": {**pod()["metadata"]}, "spec": made["spec"]}
    spec = server.make(f"{path}/pods", again)["spec"]
    for key in ("containers", "volumes"):
        assert spec[key] == made["spec"][key]


def test_tokens_name_the_issuer_that_publishes_their_keys(server: Server, path: str) -> None:
    body = {"spec": {"audiences": ["api://AzureADTokenExchange"]}}
    token = server.make(f"{path}/serviceaccounts/app/token", body)["status"]["token"]
    issuer = server.cloud.config.oidc_issuer
    (key,) = server.cloud.call("kube", "GET", "/openid/v1/jwks").body["keys"]
    claims = jwt.decode(token, jwt.PyJWK(key).key, ["ES256"], audience="api://AzureADTokenExchange", issuer=issuer)
    assert claims["sub"] == f"system:serviceaccount:{path.rpartition('/')[2]}:app"

"""Aggregated API servers: registration, discovery, and requests with the user in headers."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.behind import SERVICES, Behind
from tests.kube.conftest import Program, Server, programs
from tests.kube.flow.test_flow_and_audit import as_user

Object = dict[str, Any]


@pytest.fixture
def behind(server: Server, tmp_path: Path) -> Iterator[Behind]:
    """A server that is not registered yet."""
    made = Behind(server, server.namespace(f"b{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.close()


def test_a_server_is_discovered_and_answers(server: Server, behind: Behind) -> None:
    assert behind.register().status == 201
    things = f"/apis/{behind.group}/v1/namespaces/{behind.namespace}/things"
    missing = behind.condition("ServiceNotFound")
    assert (missing["status"], missing["message"]) == (
        "False",
        f'service/s in "{behind.namespace}" is not present',
    )
    answer = server.call("GET", things)
    assert (answer.status, answer.body["message"]) == (503, "service unavailable")
    behind.serve()
    assert behind.condition("Passed")["status"] == "True"
    behind.requests.clear()
    answer = server.call("GET", f"{things}?limit=5", x_remote_user="root", authorization="")
    assert (answer.status, answer.body["items"][0]["metadata"]["name"]) == (200, "one")
    (method, path, headers, _), *_ = [item for item in behind.requests if "limit" in item[1]]
    assert (method, path) == ("GET", f"{things}?limit=5")
    assert (headers["X-Remote-User"], headers["peer"]) == ("kubernetes-admin", "front-proxy-client")
    assert "system:masters" in headers["groups"].split(",")
    server.call("POST", f"{things}/one/size/of/it", {"a": 1})
    assert behind.requests[-1][3] == {"a": 1}
    # A request that is not allowed is not forwarded.
    behind.requests.clear()
    refused = as_user(server, "stranger", "GET", things)
    assert refused.status == 403
    assert f'cannot list resource "things" in API group "{behind.group}"' in refused.body["message"]
    assert not [item for item in behind.requests if item[1] == things]


def test_discovery(server: Server, behind: Behind, tmp_path: Path) -> None:
    kubeconfig = server.cloud.config.kubeconfig_file("admin")
    kubectl = Program(programs("kubectl")[0], kubeconfig, behind.namespace, tmp_path)
    behind.serve()
    behind.register()
    behind.condition("Passed")
    assert server.call("GET", f"/apis/{behind.group}").body["versions"][0]["version"] == "v1"
    assert behind.group in [group["name"] for group in server.call("GET", "/apis").body["groups"]]
    assert server.call("GET", f"/apis/{behind.group}/v1").body["resources"][0]["name"] == "things"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    items = server.call("GET", "/apis", accept=accept).body["items"]
    (version,) = next(item for item in items if item["metadata"]["name"] == behind.group)["versions"]
    assert (version["freshness"], version["resources"][0]["subresources"][0]["subresource"]) == ("Current", "size")
    assert f"things.{behind.group}" in kubectl("api-resources", "-o", "name").split()
    assert kubectl("get", "th", "-o", "name").split() == [f"thing.{behind.group}/one"]
    row = kubectl("get", "apiservices", f"v1.{behind.group}", "--no-headers").split()
    assert row[:3] == [f"v1.{behind.group}", f"{behind.namespace}/s", "True"]


def test_a_server_must_prove_who_it_is(server: Server, behind: Behind) -> None:
    behind.serve()
    authority = base64.b64encode(server.cloud.config.ca_file.read_bytes()).decode()
    assert behind.register(caBundle=authority).status == 201
    behind.condition("FailedDiscoveryCheck", "certificate")
    assert not behind.requests


@pytest.mark.parametrize("insecure", [True, False])
def test_a_server_is_not_this_machine(server: Server, behind: Behind, insecure: bool) -> None:
    behind.serve()
    slice_ = f"/apis/discovery.k8s.io/v1/namespaces/{behind.namespace}/endpointslices/s"
    patch = {"endpoints": [{"addresses": ["127.0.0.1"]}]}
    assert server.call("PATCH", slice_, patch, content_type="application/merge-patch+json").status == 200
    assert behind.register(**({"caBundle": None, "insecureSkipTLSVerify": True} if insecure else {})).status == 201
    behind.condition("FailedDiscoveryCheck", "address not allowed")
    assert not behind.requests


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"groupPriorityMinimum": 0}, "spec.groupPriorityMinimum"),
        ({"versionPriority": 1001}, "spec.versionPriority"),
        ({"version": "v2"}, "metadata.name"),
        ({"insecureSkipTLSVerify": True}, "spec.insecureSkipTLSVerify"),
        ({"service": {"name": "s"}}, "spec.service.namespace"),
    ],
)
def test_registrations_that_are_refused(behind: Behind, spec: Object, field: str) -> None:
    answer = behind.register(**spec)
    assert answer.status == 422
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]]


def test_configuration_that_aggregated_servers_read(server: Server) -> None:
    data = server.call("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").body[
        "data"
    ]
    assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
    assert data["requestheader-client-ca-file"].startswith("-----BEGIN CERTIFICATE")


def test_an_empty_status(server: Server, behind: Behind) -> None:
    behind.serve()
    assert behind.register().status == 201
    behind.condition("Passed")
    path = f"{SERVICES}/v1.{behind.group}"
    status: Object = {"status": {"conditions": [{}]}}
    answer = server.call("PATCH", f"{path}/status", status, content_type="application/merge-patch+json")
    assert answer.status == 200
    assert behind.condition("Passed")["status"] == "True"


@pytest.mark.parametrize("resources", [5, "x", [5, None], {"a": 1}], ids=str)
def test_invalid_discovery(server: Server, behind: Behind, resources: Any) -> None:
    behind.answers[f"/apis/{behind.group}/v1"] = {"kind": "APIResourceList", "resources": resources}
    behind.serve()
    assert behind.register().status == 201
    assert behind.condition("Passed")["status"] == "True"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    items = server.call("GET", "/apis", accept=accept).body["items"]
    (version,) = next(item for item in items if item["metadata"]["name"] == behind.group)["versions"]
    assert version["resources"] == []


def test_an_invalid_bundle(server: Server, behind: Behind) -> None:
    behind.serve()
    assert behind.register(caBundle=base64.b64encode(b"x").decode()).status == 201
    behind.condition("FailedDiscoveryCheck")
    # A client may write that the server is available.
    path = f"{SERVICES}/v1.{behind.group}/status"
    status = {"status": {"conditions": [{"type": "Available", "status": "True"}]}}
    things = f"/apis/{behind.group}/v1/namespaces/{behind.namespace}/things"
    server.call("PATCH", path, status, content_type="application/merge-patch+json")
    assert server.call("GET", things).status == 503


def test_a_request_that_names_the_server(server: Server, behind: Behind) -> None:
    behind.serve()
    behind.register()
    behind.condition("Passed")
    things = f"/apis/{behind.group}/v1/namespaces/{behind.namespace}/things"
    assert server.call("GET", f"https://u@elsewhere:1{things}?limit=1").status == 200
    assert behind.requests[-1][1] == f"{things}?limit=1"

"""Metadata that Kubernetes' controllers and kubelets write through `/status` beside the status."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kube.conftest import Server

Object = dict[str, Any]


@pytest.fixture
def space(server: Server) -> str:
    """The name of a namespace."""
    name = f"s{uuid.uuid4().hex[:8]}"
    server.namespace(name)
    return name


def _annotated(server: Server, path: str) -> Object:
    """Write a status with one more label and annotation, as client-go does, and return the object's metadata."""
    obj = server.call("GET", path).body
    obj["metadata"].setdefault("annotations", {})["example.com/revision"] = "1"
    obj["metadata"].setdefault("labels", {})["example.com/label"] = "1"
    answer = server.call("PUT", f"{path}/status", obj)
    assert answer.status == 200, answer.body
    metadata: Object = server.call("GET", path).body["metadata"]
    return metadata


def test_the_revision_of_a_deployment(server: Server, space: str) -> None:
    path = f"/apis/apps/v1/namespaces/{space}/deployments"
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    server.make(path, {"metadata": {"name": "web"}, "spec": spec})
    metadata = _annotated(server, f"{path}/web")
    assert metadata["annotations"] == {"example.com/revision": "1"}
    assert "labels" not in metadata  # only users write the labels of a deployment


def test_labels_of_a_job_and_nothing_of_a_policy(server: Server, space: str) -> None:
    jobs = f"/apis/batch/v1/namespaces/{space}/jobs"
    template = {"spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}}
    server.make(jobs, {"metadata": {"name": "j"}, "spec": {"template": template}})
    assert _annotated(server, f"{jobs}/j")["labels"]["example.com/label"] == "1"
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    rules = [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["none"]}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}]}
    server.make(policies, {"metadata": {"name": space}, "spec": spec})
    assert {"labels", "annotations"} & _annotated(server, f"{policies}/{space}").keys() == set()
    server.call("DELETE", f"{policies}/{space}")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"podIP": "10.1.1.1"}, ("10.1.1.1", ["10.1.1.1"])),
        ({"podIPs": [{"ip": "10.1.1.2"}]}, ("10.1.1.2", ["10.1.1.2"])),
        ({"podIP": "10.1.1.3", "podIPs": [{"ip": "10.1.1.4"}]}, ("10.1.1.3", ["10.1.1.3"])),
    ],
)
def test_one_address_and_the_list_of_them(
    server: Server, space: str, sent: Object, kept: tuple[str, list[str]]
) -> None:
    path = f"/api/v1/namespaces/{space}/pods"
    server.make(path, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    patch = "application/strategic-merge-patch+json"
    answer = server.call("PATCH", f"{path}/p/status", {"status": sent}, content_type=patch)
    assert answer.status == 200, answer.body
    status = server.call("GET", f"{path}/p").body["status"]
    assert (status["podIP"], [item["ip"] for item in status["podIPs"]]) == kept


def test_scales_are_patched_while_others_write(server: Server, space: str) -> None:
    path = f"/apis/apps/v1/namespaces/{space}/deployments"
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    server.make(
        path, {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    )
    media = "application/merge-patch+json"

    def write(number: int) -> int:
        part, patch = (
            ("/scale", {"spec": {"replicas": number}}),
            ("", {"metadata": {"labels": {"n": str(number)}}}),
        )[number % 2]
        return server.call("PATCH", f"{path}/web{part}", patch, content_type=media).status

    with ThreadPoolExecutor(8) as writers:
        assert set(writers.map(write, range(200))) == {200}

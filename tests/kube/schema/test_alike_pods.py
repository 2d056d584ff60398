"""Pods that differ in the random name of one volume share a validation result. Other differences are validated again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.kube.conftest import Server

Object = dict[str, Any]

TOKEN_VOLUME = "kube-api-access-"


@pytest.fixture(scope="module")
def pods(server: Server) -> str:
    return server.namespace(f"a{uuid.uuid4().hex[:8]}") + "/pods"


def pod(*volumes: str, **spec: Any) -> Object:
    """Return a pod with empty volumes of these names."""
    container = {"name": "c", "image": "x"}
    found = [{"name": name, "emptyDir": {}} for name in volumes]
    return {"metadata": {"generateName": "p-"}, "spec": {"containers": [container], "volumes": found, **spec}}


def names(made: Object) -> list[str]:
    return [volume["name"] for volume in made["spec"]["volumes"]]


def duplicate(server: Server, pods: str, obj: Object) -> bool:
    answer = server.call("POST", pods, obj)
    return answer.status == 422 and "Duplicate value" in answer.body["message"]


def test_every_pod_keeps_the_name_of_its_own_volume(server: Server, pods: str) -> None:
    made = [server.make(pods, pod()) for _ in range(3)]
    assert len({names(one)[0] for one in made}) == 3
    assert all(one["spec"]["containers"][0]["volumeMounts"][0]["name"] == names(one)[0] for one in made)


def test_a_repeated_volume_name_is_found(server: Server, pods: str) -> None:
    no_token = {"automountServiceAccountToken": False}
    for name in (f"{TOKEN_VOLUME}abcde", f"{TOKEN_VOLUME}00000"):
        assert names(server.make(pods, pod(name, **no_token))) == [name]
        assert duplicate(server, pods, pod(name, name, **no_token))
        assert names(server.make(pods, pod(name)))[0] == name
        assert duplicate(server, pods, pod(name, name))
    server.make(pods, pod(f"{TOKEN_VOLUME}abcde", f"{TOKEN_VOLUME}00000", **no_token))


def test_a_mount_without_a_volume_is_not_the_token(server: Server, pods: str) -> None:
    obj = pod()
    mount = {"name": f"{TOKEN_VOLUME}zzzzz", "mountPath": "/elsewhere"}
    obj["spec"]["containers"][0]["volumeMounts"] = [mount]
    answer = server.call("POST", pods, obj)
    assert answer.status == 422
    assert f'Not found: "{TOKEN_VOLUME}zzzzz"' in answer.body["message"]


def test_each_pod_gets_its_errors(server: Server, pods: str) -> None:
    for policy in ("No", "No", "Neither"):
        answer = server.call("POST", pods, pod(dnsPolicy=policy))
        assert answer.status == 422
        assert f'spec.dnsPolicy: Unsupported value: "{policy}"' in answer.body["message"]


def test_each_pod_gets_its_warnings(server: Server, pods: str) -> None:
    """Including warnings that contain the differing name."""
    selector = {"beta.kubernetes.io/os": "linux"}
    said = [server.call("POST", pods, pod(nodeSelector=selector)).headers.get("Warning", "") for _ in range(3)]
    assert all("spec.nodeSelector[beta.kubernetes.io/os]: deprecated" in text for text in said)
    old = {"scheduler.alpha.kubernetes.io/critical-pod": ""}
    for given, is_told in ((old, True), ({}, False), (old, True)):
        obj = pod()
        obj["metadata"]["annotations"] = given
        answer = server.call("POST", pods, obj)
        assert answer.status == 201
        assert ("critical-pod" in answer.headers.get("Warning", "")) is is_told


def test_the_pod_name_matters_for_volumes_named_after_it(server: Server, pods: str) -> None:
    claim = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    for name, status in ((f"s{uuid.uuid4().hex[:8]}", 201), ("l" * 250, 422)):
        obj = pod()
        obj["metadata"] = {"name": name}
        obj["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": claim}}]
        assert server.call("POST", pods, obj).status == status

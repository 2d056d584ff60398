"""Tokens of service accounts are good as long as what they are of and bound to is there, and no longer."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.cloud import Answer, Cloud
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

_POD = {"containers": [{"name": "c", "image": "x"}], "serviceAccountName": "default"}
_SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
def space(server: Server) -> str:
    """The path of a namespace with a pod and a secret."""
    made = server.namespace(f"t{uuid.uuid4().hex[:8]}")
    server.make(f"{made}/pods", {"metadata": {"name": "p"}, "spec": _POD})
    server.make(f"{made}/secrets", {"metadata": {"name": "s"}})
    return made


def token(server: Server, space: str, bound: dict[str, Any] | None = None) -> str:
    spec = {"boundObjectRef": bound} if bound else {}
    made = server.make(f"{space}/serviceaccounts/default/token", {"spec": spec})
    return str(made["status"]["token"])


def used(cloud: Cloud, text: str) -> Answer:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return cloud.call("kube", "POST", _SELF, token=text, body=body)


@pytest.mark.parametrize(
    ("kind", "path"), [("Pod", "pods/p"), ("Secret", "secrets/s"), (None, "serviceaccounts/default")]
)
def test_a_token_ends_with_what_it_is_bound_to(
    cloud: Cloud, server: Server, space: str, kind: str | None, path: str
) -> None:
    bound = {"kind": kind, "apiVersion": "v1", "name": path.partition("/")[2]} if kind else None
    text = token(server, space, bound)
    assert used(cloud, text).status == 201
    before = server.call("GET", f"{space}/{path}").body
    assert server.call("DELETE", f"{space}/{path}?gracePeriodSeconds=0").status == 200
    assert used(cloud, text).status == 401
    # Another of the same name is another.
    again = {"metadata": {"name": before["metadata"]["name"]}, "spec": _POD} if kind == "Pod" else None
    server.make(f"{space}/{path.partition('/')[0]}", again or {"metadata": {"name": before["metadata"]["name"]}})
    assert used(cloud, text).status == 401
    review = server.make("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": text}})
    assert not review["status"].get("authenticated")


def test_a_token_ends_with_its_namespace(cloud: Cloud, server: Server, space: str) -> None:
    text = token(server, space)
    assert used(cloud, text).status == 201
    server.call("DELETE", f"{space}/serviceaccounts/default")
    assert used(cloud, text).status == 401


@pytest.mark.parametrize(
    ("bound", "status"),
    [
        ({"kind": "Pod", "name": "none"}, 404),
        ({"kind": "ConfigMap", "name": "kube-root-ca.crt"}, 400),
        ({"kind": "Pod", "name": "p", "uid": "other"}, 409),
        ({"kind": "pod", "name": "p"}, 400),
        ({"kind": "Pod", "name": "../p"}, 404),
        ({"kind": "ſecret", "name": "s"}, 400),
    ],
)
def test_what_a_token_cannot_be_bound_to(server: Server, space: str, bound: dict[str, Any], status: int) -> None:
    answer = server.call("POST", f"{space}/serviceaccounts/default/token", {"spec": {"boundObjectRef": bound}})
    assert answer.status == status


def test_a_pod_of_another_account_binds_nothing(server: Server, space: str) -> None:
    server.make(f"{space}/serviceaccounts", {"metadata": {"name": "other"}})
    spec = {"boundObjectRef": {"kind": "Pod", "name": "p"}}
    assert server.call("POST", f"{space}/serviceaccounts/other/token", {"spec": spec}).status == 400


def test_a_token_for_another_audience_is_not_for_this_server(cloud: Cloud, server: Server, space: str) -> None:
    made = server.make(f"{space}/serviceaccounts/default/token", {"spec": {"audiences": ["vault"]}})
    assert used(cloud, made["status"]["token"]).status == 401

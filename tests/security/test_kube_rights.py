"""What the default roles allow of connections into pods, and of acting as somebody else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
_WEBSOCKET = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec_websocket_version": "13",
    "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec_websocket_protocol": "v5.channel.k8s.io",
}
_SPDY = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x_stream_protocol_version": "v4.channel.k8s.io"}


@pytest.fixture(scope="module")
def space(server: Server) -> str:
    """The path of a namespace with a pod that is on no node."""
    made = server.namespace(f"r{uuid.uuid4().hex[:8]}")
    spec = {"containers": [{"name": "c", "image": "x"}]}
    server.make(f"{made}/pods", {"metadata": {"name": "p"}, "spec": spec})
    return made


def bound(server: Server, space: str, role: str) -> str:
    """A user with a role in the namespace."""
    user = f"u{uuid.uuid4().hex[:8]}"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    binding = {"metadata": {"name": user}, "roleRef": reference, "subjects": [subject]}
    server.make(f"{RBAC}/namespaces/{space.rpartition('/')[2]}/rolebindings", binding)
    return user


@pytest.mark.parametrize("subresource", ["exec?command=id&stdout=true", "attach?stdout=true", "portforward?ports=80"])
@pytest.mark.parametrize(("role", "allowed"), [("view", False), ("edit", True), ("admin", True)])
def test_connections_into_pods(server: Server, space: str, role: str, allowed: bool, subresource: str) -> None:
    user = bound(server, space, role)
    for method, headers in (("GET", _WEBSOCKET), ("POST", _SPDY), ("GET", _SPDY), ("POST", {})):
        answer = server.call(method, f"{space}/pods/p/{subresource}", None, impersonate_user=user, **headers)
        # Whoever may is told what is wrong with the pod or the request.
        assert answer.status == (400 if allowed else 403), (method, answer.body)


@pytest.mark.parametrize("verb", ["get", "create"])
@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward"])
def test_to_read_is_not_to_connect(server: Server, space: str, verb: str, subresource: str) -> None:
    role = f"only-{verb}-{subresource}-{uuid.uuid4().hex[:6]}"
    rule = {"apiGroups": [""], "resources": [f"pods/{subresource}"], "verbs": [verb]}
    server.make(f"{RBAC}/clusterroles", {"metadata": {"name": role}, "rules": [rule]})
    user = bound(server, space, role)
    path = f"{space}/pods/p/{subresource}?command=id&stdout=true&ports=80"
    answers = {
        method: server.call(method, path, None, impersonate_user=user, **headers).status
        for method, headers in (("GET", _WEBSOCKET), ("POST", _SPDY))
    }
    # A WebSocket begins with GET and needs both rights.
    assert answers == ({"GET": 403, "POST": 403} if verb == "get" else {"GET": 403, "POST": 400})


def test_a_view_sees_no_secrets_and_proxies_nowhere(server: Server, space: str) -> None:
    user = bound(server, space, "view")
    for path in ("secrets", "pods/p/proxy/", "services/s/proxy/", "serviceaccounts/default/token"):
        method = "POST" if path.endswith("token") else "GET"
        body: dict[str, Any] | None = {"spec": {}} if method == "POST" else None
        assert server.call(method, f"{space}/{path}", body, impersonate_user=user).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Impersonate-Group": "system:masters"},
        {"Impersonate-Uid": "1"},
        {"Impersonate-Extra-Scopes": "x"},
        {"Impersonate-User": "system:admin"},
        {"Impersonate-User": "system:admin", "Impersonate-Group": "system:masters"},
        {"impersonate-user": "system:serviceaccount:kube-system:default"},
        {"Impersonate-User": "system:serviceaccount::"},
        {"IMPERSONATE-USER": "system:node:x", "Impersonate-Group": "system:nodes"},
        {"Impersonate-User": "sýstem:admin"},
    ],
)
def test_nobody_else_without_the_right(cloud: Cloud, server: Server, space: str, headers: dict[str, str]) -> None:
    made = server.make(f"{space}/serviceaccounts/default/token", {"spec": {}})
    sent = {key: value.encode().decode("latin-1") for key, value in headers.items()}
    answer = cloud.call("kube", "GET", "/api/v1/namespaces", token=made["status"]["token"], headers=sent)
    assert answer.status in (400, 403), answer.body
    # Nor without any credential.
    assert cloud.call("kube", "GET", "/api/v1/namespaces", headers=sent).status in (400, 401, 403)


def test_names_that_only_look_like_headers_do_nothing(cloud: Cloud, server: Server, space: str) -> None:
    made = server.make(f"{space}/serviceaccounts/default/token", {"spec": {}})
    sent = {"Impersonate_User": "system:admin", "X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = cloud.call("kube", "POST", path, token=made["status"]["token"], body=body, headers=sent)
    assert answer.body["status"]["userInfo"]["username"].startswith("system:serviceaccount:")

"""Authentication with Entra ID's tokens, the node authorizer, and the limits on granting rights."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest

from tests.cloud import Answer, Cloud
from tests.kube.conftest import Server

AKS = "6dae42f8-4368-4678-94ff-3960e28e3630"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def whoami(cloud: Cloud, token: str) -> Answer:
    body: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return cloud.call("kube", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", token=token, body=body)


def test_a_service_principal_is_known_by_its_object_id(cloud: Cloud, server: Server) -> None:
    token = cloud.token(audience=AKS)
    answer = whoami(cloud, token)
    assert answer.status == 201, answer.body
    user = answer.body["status"]["userInfo"]
    assert user["username"] == cloud.owner.object_id
    assert user["groups"] == ["system:authenticated"]
    assert user["extra"]["tid"] == [cloud.config.tenant_id]

    space = server.namespace(f"e{uuid.uuid4().hex[:8]}")
    assert cloud.call("kube", "GET", f"{space}/pods", token=token).status == 403
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": cloud.owner.object_id}
    name = space.rpartition("/")[2]
    binding = {"metadata": {"name": "owner"}, "roleRef": role, "subjects": [subject]}
    server.make(f"{RBAC}/namespaces/{name}/rolebindings", binding)
    assert cloud.call("kube", "GET", f"{space}/pods", token=token).status == 200
    assert cloud.call("kube", "GET", f"{space}/secrets", token=token).status == 403


def test_tokens_that_are_not_for_this_server(cloud: Cloud) -> None:
    good = cloud.token(audience=AKS)
    head, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "oid": "system:masters"}).encode()).rstrip(b"=").decode()
    for token in (cloud.token(), f"{head}.{forged}.{signature}", f"{head}.{payload}.", "a.b.c", "x", "x" * 8000):
        answer = whoami(cloud, token)
        assert answer.status == 401
        assert answer.body["message"] == "Unauthorized"


def test_a_token_review_knows_them(cloud: Cloud, server: Server) -> None:
    spec = {"token": cloud.token(audience=AKS)}
    status = server.make("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": spec})["status"]
    assert status["authenticated"] is True
    assert status["user"]["username"] == cloud.owner.object_id
    status = server.make("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "no"}})["status"]
    assert status["authenticated"] is False


@pytest.fixture
def node(server: Server) -> str:
    """The name of a node that is not the installation's."""
    name = f"n{uuid.uuid4().hex[:8]}"
    server.make("/api/v1/nodes", {"metadata": {"name": name}})
    return name


def as_node(server: Server, node: str, method: str, path: str, body: Any = None, **headers: str) -> int:
    who = {"impersonate_user": f"system:node:{node}", "impersonate_group": "system:nodes"}
    return server.call(method, path, body, **who, **headers).status


def test_a_node_sees_what_its_pods_need(server: Server, node: str) -> None:
    space = server.namespace(f"n{uuid.uuid4().hex[:8]}")
    for name in ("pull", "env", "volume", "other"):
        server.make(f"{space}/secrets", {"metadata": {"name": name}})
        server.make(f"{space}/configmaps", {"metadata": {"name": name}})
    container = {
        "name": "c",
        "image": "x",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}],
        "envFrom": [{"configMapRef": {"name": "env"}}],
    }
    volumes = [
        {"name": "a", "secret": {"secretName": "volume"}},
        {"name": "b", "projected": {"sources": [{"configMap": {"name": "volume"}}]}},
    ]
    spec = {"nodeName": node, "containers": [container], "volumes": volumes, "imagePullSecrets": [{"name": "pull"}]}
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": spec})
    for resource, names in (("secrets", ("pull", "env", "volume")), ("configmaps", ("env", "volume"))):
        for name in names:
            assert as_node(server, node, "GET", f"{space}/{resource}/{name}") == 200, (resource, name)
        assert as_node(server, node, "GET", f"{space}/{resource}/other") == 403
        assert as_node(server, node, "GET", f"{space}/{resource}") == 403
    assert as_node(server, "another", "GET", f"{space}/secrets/pull") == 403
    assert as_node(server, node, "POST", f"{space}/serviceaccounts/default/token", {"spec": {}}) == 201
    assert as_node(server, "another", "POST", f"{space}/serviceaccounts/default/token", {"spec": {}}) == 403


def test_a_node_writes_its_own(server: Server, node: str) -> None:
    space = server.namespace(f"n{uuid.uuid4().hex[:8]}")
    for name, where in (("mine", node), ("other", "another")):
        spec = {"nodeName": where, "containers": [{"name": "c", "image": "x"}]}
        server.make(f"{space}/pods", {"metadata": {"name": name}, "spec": spec})
    merge = {"content_type": "application/merge-patch+json"}
    running = {"status": {"phase": "Running"}}
    assert as_node(server, node, "PATCH", f"{space}/pods/mine/status", running, **merge) == 200
    assert as_node(server, node, "PATCH", f"{space}/pods/other/status", running, **merge) == 403
    assert as_node(server, node, "DELETE", f"{space}/pods/other") == 403
    assert as_node(server, node, "PATCH", f"/api/v1/nodes/{node}/status", {"status": {}}, **merge) == 200
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
    assert as_node(server, node, "PATCH", f"/api/v1/nodes/{node}", label, **merge) == 403
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    assert as_node(server, node, "PATCH", f"/api/v1/nodes/{node}", taint, **merge) == 403
    assert as_node(server, "another", "PATCH", f"/api/v1/nodes/{node}/status", {"status": {}}, **merge) == 403
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    assert as_node(server, node, "POST", leases, {"metadata": {"name": node}}) == 201
    assert as_node(server, node, "POST", leases, {"metadata": {"name": f"{node}-x"}}) == 403
    assert as_node(server, node, "GET", f"{leases}/{node}") == 200
    assert as_node(server, "another", "GET", f"{leases}/{node}") == 403


def test_the_virtual_node_watches_what_its_pods_may_name(cloud: Cloud, server: Server) -> None:
    space = server.namespace(f"n{uuid.uuid4().hex[:8]}")
    assert as_node(server, cloud.config.node_name, "GET", f"{space}/secrets") == 200
    assert as_node(server, cloud.config.node_name, "POST", f"{space}/secrets", {"metadata": {"name": "s"}}) == 403


def test_keys_of_service_account_tokens_are_published(server: Server) -> None:
    cloud = server.cloud
    found = cloud.call("kube", "GET", "/.well-known/openid-configuration").body  # for everybody, as AKS's issuer
    assert found["issuer"] == cloud.config.oidc_issuer
    assert found["jwks_uri"] == f"{found['issuer']}/openid/v1/jwks"
    (key,) = cloud.call("kube", "GET", "/openid/v1/jwks").body["keys"]
    assert (key["kty"], key["use"]) == ("EC", "sig")


SYSTEM_USERS = {
    "system:kube-scheduler": [
        ("list", "resource.k8s.io/v1", "", "resourceslices"),
        ("watch", "storage.k8s.io/v1", "", "csistoragecapacities"),
        ("list", "v1", "", "replicationcontrollers"),
        # Its own configuration and lease, each by name.
        ("list", "v1", "kube-system", "configmaps?fieldSelector=metadata.name%3Dextension-apiserver-authentication"),
        ("watch", "coordination.k8s.io/v1", "kube-system", "leases?fieldSelector=metadata.name%3Dkube-scheduler"),
    ],
    "system:serviceaccount:kube-system:deployment-controller": [("list", "apps/v1", "", "deployments")],
    "system:serviceaccount:kube-system:generic-garbage-collector": [("list", "v1", "", "secrets")],
}


@pytest.mark.parametrize(
    ("user", "verb", "version", "namespace", "what"),
    [(user, *asked) for user, all_ in SYSTEM_USERS.items() for asked in all_],
)
def test_what_parts_of_kubernetes_read(
    server: Server, user: str, verb: str, version: str, namespace: str, what: str
) -> None:
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    path = f"{root}/namespaces/{namespace}/{what}" if namespace else f"{root}/{what}"
    if verb == "watch":
        path += f"{'&' if '?' in path else '?'}watch=true&timeoutSeconds=1"
    assert server.call("GET", path, impersonate_user=user).status == 200


def test_a_right_by_name_is_for_that_name_alone(server: Server) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps"
    scheduler = "system:kube-scheduler"
    for selector in ("", "?fieldSelector=metadata.name%3Dkube-root-ca.crt", "?fieldSelector=metadata.name!%3Dx"):
        answer = server.call("GET", path + selector, impersonate_user=scheduler)
        assert answer.status == 403
    assert answer.body["message"] == (
        'configmaps is forbidden: User "system:kube-scheduler" cannot list resource "configmaps" in API group "" '
        'in the namespace "kube-system"'
    )


def test_roles_change_what_is_allowed_at_once(server: Server) -> None:
    name = f"r{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    assert server.call("GET", f"{space}/configmaps", impersonate_user="eve").status == 403
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    server.make(f"{RBAC}/namespaces/{name}/roles", {"metadata": {"name": "r"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}
    server.make(
        f"{RBAC}/namespaces/{name}/rolebindings", {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]}
    )
    assert server.call("GET", f"{space}/configmaps", impersonate_user="eve").status == 200
    assert server.call("DELETE", f"{RBAC}/namespaces/{name}/roles/r").status == 200
    assert server.call("GET", f"{space}/configmaps", impersonate_user="eve").status == 403


def test_a_selector_names_nothing_that_is_made(server: Server) -> None:
    space = server.namespace(f"e{uuid.uuid4().hex[:8]}")
    name, user = space.rpartition("/")[2], f"u{uuid.uuid4().hex[:8]}"
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"], "resourceNames": ["mine"]}
    server.make(f"{RBAC}/namespaces/{name}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    binding = {"metadata": {"name": "r"}, "roleRef": role, "subjects": [subject]}
    server.make(f"{RBAC}/namespaces/{name}/rolebindings", binding)
    selected = f"{space}/secrets?fieldSelector=metadata.name=mine"
    assert server.call("GET", selected, impersonate_user=user).status == 200
    for body in ({"metadata": {"name": "theirs"}}, {"metadata": {"name": "mine"}}):
        assert server.call("POST", selected, body, impersonate_user=user).status == 403


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"serviceAccountName": "default"}, "a service account"),
        ({"imagePullSecrets": [{"name": "s"}]}, "secrets"),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "secrets"),
        ({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}, "configmaps"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "persistentvolumeclaims"),
    ],
)
def test_a_node_shows_no_pods_that_give_it_rights(server: Server, spec: dict[str, Any], why: str) -> None:
    space, node = server.namespace(f"m{uuid.uuid4().hex[:8]}"), f"n{uuid.uuid4().hex[:8]}"
    metadata = {"name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}}
    plain = {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}
    who = {"impersonate_user": f"system:node:{node}", "impersonate_group": "system:nodes"}
    answer = server.call("POST", f"{space}/pods", {"metadata": metadata, "spec": {**plain, **spec}}, **who)
    assert answer.status == 403
    assert f'node "{node}" can not create pods that reference {why}' in answer.body["message"]
    made = server.call("POST", f"{space}/pods", {"metadata": metadata, "spec": plain}, **who)
    assert made.status == 201
    # No other rights are added.
    assert "serviceAccountName" not in made.body["spec"]
    assert "volumes" not in made.body["spec"]
    token = server.call("POST", f"{space}/serviceaccounts/default/token", {"spec": {}}, **who)
    assert token.status == 403


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"serviceAccountName": "default"}, "a mirror pod may not reference service accounts"),
        ({"imagePullSecrets": [{"name": "s"}]}, "a mirror pod may not reference secrets"),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "a mirror pod may not use ServiceAccountToken volume projections",
        ),
    ],
)
def test_mirror_pods_refer_to_no_objects(server: Server, spec: dict[str, Any], why: str) -> None:
    space = server.namespace(f"m{uuid.uuid4().hex[:8]}")
    metadata = {"name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}}
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "x"}], **spec}
    answer = server.call("POST", f"{space}/pods", {"metadata": metadata, "spec": spec})
    assert answer.status == 403
    assert why in answer.body["message"]


class Grants:
    """A namespace with a user that may write its roles and bindings, and read its config maps."""

    def __init__(self, server: Server, *more: dict[str, Any]) -> None:
        self.server = server
        self.user = f"u{uuid.uuid4().hex[:8]}"
        self.space = server.namespace(f"g{uuid.uuid4().hex[:8]}").rpartition("/")[2]
        self.path = f"{RBAC}/namespaces/{self.space}"
        resources = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"]
        verbs = ["create", "update", "patch", "get"]
        writes = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": resources, "verbs": verbs}
        rules = [writes, rule("configmaps", "get", "list"), *more]
        server.make(f"{RBAC}/clusterroles", {"metadata": {"name": self.user}, "rules": rules})
        server.make(f"{RBAC}/clusterrolebindings", {"metadata": {"name": self.user}, **self.binds(self.user)})

    def binds(self, name: str, kind: str = "ClusterRole") -> dict[str, Any]:
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.user}
        return {"roleRef": role, "subjects": [subject]}

    def call(self, method: str, path: str, body: Any, **headers: str) -> Answer:
        return self.server.call(method, path, body, impersonate_user=self.user, **headers)


def rule(resource: str, *verbs: str, **more: list[str]) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": [resource], "verbs": list(verbs), **more}


def test_a_user_cannot_grant_rights_that_it_lacks(server: Server) -> None:
    grants = Grants(server)
    roles = f"{grants.path}/roles"
    rules = [rule("secrets", "get", "list"), rule("configmaps", "list")]
    refused = grants.call("POST", roles, {"metadata": {"name": "r"}, "rules": rules})
    assert refused.status == 403
    assert refused.body["message"] == (
        f'roles.rbac.authorization.k8s.io "r" is forbidden: user "{grants.user}" (groups=["system:authenticated"]) is '
        'attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], '
        'Verbs:["get" "list"]}'
    )
    for rules in ([rule("configmaps", "get", "list")], [rule("configmaps", "get", resourceNames=["a"])], []):
        name = f"r{uuid.uuid4().hex[:8]}"
        assert grants.call("POST", roles, {"metadata": {"name": name}, "rules": rules}).status == 201
    for rules in (
        [rule("*", "get")],
        [rule("configmaps", "*")],
        [rule("configmaps/status", "get")],
        [{"apiGroups": ["*"], "resources": ["configmaps"], "verbs": ["get"]}],
        [{"nonResourceURLs": ["/x"], "verbs": ["get"]}],
    ):
        name = f"r{uuid.uuid4().hex[:8]}"
        assert grants.call("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules}).status == 403
    # Updates cannot add them either.
    patch = {"rules": [rule("secrets", "get")]}
    merge = {"content_type": "application/merge-patch+json"}
    server.make(roles, {"metadata": {"name": "mine"}, "rules": []})
    assert grants.call("PATCH", f"{roles}/mine", patch, **merge).status == 403
    server.make(roles, {"metadata": {"name": "theirs"}, "rules": patch["rules"]})
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert grants.call("PATCH", f"{roles}/theirs", labels, **merge).status == 403
    assert grants.call("PATCH", f"{roles}/theirs", {"metadata": {"finalizers": ["a/b"]}}, **merge).status == 200
    server.call("PATCH", f"{roles}/theirs", {"metadata": {"finalizers": None}}, **merge)
    # An aggregated role can gather any rule.
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    gathers = {"metadata": {"name": f"r{uuid.uuid4().hex[:8]}"}, "aggregationRule": selector}
    refused = grants.call("POST", f"{RBAC}/clusterroles", gathers)
    assert (refused.status, "must have cluster-admin privileges" in refused.body["message"]) == (403, True)


def test_a_user_cannot_bind_rights_that_it_lacks(server: Server) -> None:
    grants = Grants(server)
    bindings = f"{grants.path}/rolebindings"
    for name, status in (("cluster-admin", 403), ("none", 404), (grants.user, 201)):
        for path in (bindings, f"{RBAC}/clusterrolebindings"):
            binding = {"metadata": {"name": f"b{uuid.uuid4().hex[:8]}"}, **grants.binds(name)}
            assert grants.call("POST", path, binding).status == status
    server.make(f"{grants.path}/roles", {"metadata": {"name": "r"}, "rules": [rule("secrets", "get")]})
    binding = {"metadata": {"name": "b"}, **grants.binds("r", "Role")}
    assert grants.call("POST", bindings, binding).status == 403
    assert grants.call("GET", f"/api/v1/namespaces/{grants.space}/secrets", None).status == 403


def test_escalate_and_bind_are_rights(server: Server) -> None:
    group = {"apiGroups": ["rbac.authorization.k8s.io"]}
    may = [
        {**group, "resources": ["roles"], "verbs": ["escalate"], "resourceNames": ["r"]},
        {**group, "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"]},
    ]
    grants = Grants(server, *may)
    rules = [rule("secrets", "get")]
    for name, status in (("r", 201), ("s", 403)):
        role = {"metadata": {"name": name}, "rules": rules}
        assert grants.call("POST", f"{grants.path}/roles", role).status == status
    gathers = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    name = f"r{uuid.uuid4().hex[:8]}"
    server.make(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "aggregationRule": gathers})
    controller = Grants(server, {**group, "resources": ["clusterroles"], "verbs": ["escalate"]})
    for who, status in ((controller, 200), (grants, 403)):
        merge = {"content_type": "application/merge-patch+json"}
        patch = {"rules": [rule("secrets", "get", who.user)]}
        assert who.call("PATCH", f"{RBAC}/clusterroles/{name}", patch, **merge).status == status
    for name, status in (("view", 201), ("edit", 403)):
        binding = {"metadata": {"name": f"b-{name}"}, **grants.binds(name)}
        assert grants.call("POST", f"{grants.path}/rolebindings", binding).status == status


_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"nonResourceAttributes": {"path": "/"}}},
        ),
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}),
        ("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}}),
        ("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}}),
    ],
)
def test_a_resource_without_a_table_is_not_acceptable_as_one(server: Server, path: str, body: Any) -> None:
    refused = server.call("POST", path, body, accept=_TABLE)
    assert (refused.status, refused.body["reason"]) == (406, "NotAcceptable")
    assert server.call("POST", path, body, accept=f"{_TABLE},application/json").status == 201

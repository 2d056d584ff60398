"""What a caller may do: RBAC over the roles and bindings in the store, with the default ones of a new cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cumulet.kube.attributes import Attributes
from cumulet.kube.node_access import NODES, NodeAuthorizer
from cumulet.kube.store import Store, Stored
from cumulet.kube.users import User

_GROUP = "rbac.authorization.k8s.io"
_ROLES = f"roles.{_GROUP}"
_CLUSTER_ROLES = f"clusterroles.{_GROUP}"
_BINDINGS = f"rolebindings.{_GROUP}"
_CLUSTER_BINDINGS = f"clusterrolebindings.{_GROUP}"

READ = ["get", "list", "watch"]
_DECODED = 2048
WRITE = ["create", "delete", "deletecollection", "patch", "update"]


class Authorizer:
    """Decides by the rules of every role that is bound to the caller."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes = NodeAuthorizer(store)
        #: Roles and bindings by their revision, of which each is another object's or another state's.
        self._decoded: dict[int, dict[str, Any]] = {}

    def allows(self, user: User, attributes: Attributes) -> bool:
        """Whether a user may do that; members of system:masters may do everything."""
        if "system:masters" in user.groups:
            return True
        if NODES in user.groups and (
            self._nodes.allows(user, attributes) or any(_covers(rule, attributes) for rule in NODE_RULES)
        ):
            return True
        return any(_covers(rule, attributes) for rule in self.rules(user, attributes.namespace))

    def rules(self, user: User, namespace: str) -> Iterator[dict[str, Any]]:
        """The rules that hold for a user in the cluster, and in a namespace where one is given."""
        for stored in self._store.list(_CLUSTER_BINDINGS):
            yield from self._of(self._decode(stored), user, "")
        if namespace:
            for stored in self._store.list(_BINDINGS, namespace):
                yield from self._of(self._decode(stored), user, namespace)

    def _of(self, binding: dict[str, Any], user: User, namespace: str) -> Iterator[dict[str, Any]]:
        if not any(_is(subject, user, namespace) for subject in binding.get("subjects") or ()):
            return
        reference = binding["roleRef"]
        if reference["kind"] == "Role":
            stored = self._store.get(_ROLES, namespace, reference["name"])
        else:
            stored = self._store.get(_CLUSTER_ROLES, "", reference["name"])
        if stored is not None:
            yield from self._decode(stored).get("rules") or ()

    def _decode(self, stored: Stored) -> dict[str, Any]:
        """A role or binding, to be read and not to be changed."""
        found = self._decoded.get(stored.revision)
        if found is None:
            if len(self._decoded) >= _DECODED:
                self._decoded.clear()
            found = self._decoded[stored.revision] = stored.load()
        return found


def _is(subject: dict[str, Any], user: User, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            name = f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"
            return name == user.name
    return False


def _covers(rule: dict[str, Any], wanted: Attributes) -> bool:
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and wanted.verb not in verbs:
        return False
    if wanted.path:
        return any(
            path in ("*", wanted.path) or (path.endswith("*") and wanted.path.startswith(path[:-1]))
            for path in rule.get("nonResourceURLs") or ()
        )
    groups = rule.get("apiGroups") or ()
    if "*" not in groups and wanted.group not in groups:
        return False
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    names = ("*", full, f"*/{wanted.subresource}") if wanted.subresource else ("*", full)
    if not any(name in (rule.get("resources") or ()) for name in names):
        return False
    return not rule.get("resourceNames") or wanted.name in rule["resourceNames"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


_EVENTS = _rule(["", "events.k8s.io"], ["events"], ["create", "patch", "update"])
_LEASES = _rule(["coordination.k8s.io"], ["leases"], ["create", "get", "list", "update", "patch", "watch"])
_REVIEWS = _rule(
    ["authentication.k8s.io", "authorization.k8s.io"], ["tokenreviews", "subjectaccessreviews"], ["create"]
)
_WORKLOADS = [
    "pods",
    "pods/log",
    "configmaps",
    "endpoints",
    "events",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "serviceaccounts",
    "services",
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
    "controllerrevisions",
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
    "ingresses",
    "networkpolicies",
    "poddisruptionbudgets",
    "endpointslices",
]
_GROUPS = ["", "apps", "autoscaling", "batch", "networking.k8s.io", "policy", "discovery.k8s.io"]
_USAGE = _rule(["metrics.k8s.io"], ["pods", "nodes"], ["get", "list", "watch"])
_EDIT = [
    _USAGE,
    _rule(_GROUPS, _WORKLOADS, [*READ, *WRITE]),
    _rule([""], ["secrets", "pods/exec", "pods/attach", "pods/portforward", "pods/eviction"], [*READ, *WRITE]),
]

#: What every node may do; what its pods need is for `node_access` to say.
NODE_RULES = [
    _rule([""], ["pods"], [*READ, "create", "delete"]),
    _rule([""], ["pods/eviction"], ["create"]),
    _rule([""], ["pods/status", "nodes/status"], ["patch", "update", "get"]),
    _rule([""], ["nodes"], [*READ, "create", "patch", "update"]),
    _rule([""], ["services"], READ),
    _rule(["storage.k8s.io"], ["csidrivers", "csinodes", "volumeattachments"], READ),
    _rule(["node.k8s.io"], ["runtimeclasses"], READ),
    _rule(["certificates.k8s.io"], ["certificatesigningrequests"], ["create", "get", "list", "watch"]),
    _EVENTS,
    _REVIEWS,
]

#: What Azure's connector is given beside that by its chart: it watches what its pods may come to refer to.
VIRTUAL_NODE = "virtual-kubelet"
_VIRTUAL_NODE_RULES = [
    _rule([""], ["configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims", "events"], READ),
]

#: The cluster roles of a new cluster: upstream's for users, and what each of its components needs.
DEFAULT_ROLES: dict[str, list[dict[str, Any]]] = {
    "cluster-admin": [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    "admin": [*_EDIT, _rule([_GROUP], ["roles", "rolebindings"], [*READ, *WRITE])],
    "edit": _EDIT,
    "view": [_USAGE, _rule(_GROUPS, [*_WORKLOADS, "namespaces"], READ)],
    "system:basic-user": [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ],
    "system:discovery": [
        {
            "nonResourceURLs": [
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
            "verbs": ["get"],
        }
    ],
    "system:service-account-issuer-discovery": [
        {"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]}
    ],
    "system:public-info-viewer": [
        {"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}
    ],
    "system:kube-scheduler": [
        _rule([""], ["pods", "nodes", "namespaces", "persistentvolumeclaims", "persistentvolumes", "services"], READ),
        _rule([""], ["pods", "replicationcontrollers"], ["get", "delete"]),
        _rule(["apps"], ["replicasets", "statefulsets"], READ),
        _rule([""], ["pods/binding", "bindings"], ["create"]),
        _rule([""], ["pods/status"], ["patch", "update"]),
        _rule(["policy"], ["poddisruptionbudgets"], READ),
        _rule(["storage.k8s.io"], ["storageclasses"], READ),
        _rule([""], ["persistentvolumeclaims"], ["patch", "update"]),
        _rule(["scheduling.k8s.io"], ["priorityclasses"], READ),
        _EVENTS,
        _LEASES,
        _REVIEWS,
    ],
    "system:kube-controller-manager": [_rule(["*"], ["*"], ["*"])],
    "system:cloud-controller-manager": [
        _rule([""], ["services", "endpoints", "nodes", "pods"], READ),
        _rule([""], ["services/status"], ["patch", "update"]),
        _rule(["discovery.k8s.io"], ["endpointslices"], READ),
        _EVENTS,
        _LEASES,
        _REVIEWS,
    ],
    "system:node": NODE_RULES,
    VIRTUAL_NODE: _VIRTUAL_NODE_RULES,
}

#: Role, and the user or group that has it.
DEFAULT_BINDINGS: dict[str, list[tuple[str, str]]] = {
    "cluster-admin": [("Group", "system:masters")],
    "system:basic-user": [("Group", "system:authenticated")],
    "system:discovery": [("Group", "system:authenticated")],
    "system:service-account-issuer-discovery": [("Group", "system:serviceaccounts")],
    "system:public-info-viewer": [("Group", "system:authenticated"), ("Group", "system:unauthenticated")],
    "system:kube-scheduler": [("User", "system:kube-scheduler")],
    "system:kube-controller-manager": [("User", "system:kube-controller-manager")],
    "system:cloud-controller-manager": [("User", "system:cloud-controller-manager")],
    "system:node": [],
}

"""Authorization: RBAC over the roles and bindings in the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.node_authorization import NODES, NodeAuthorizer
from cumulet.kube.access.users import User
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PolicyRule

_GROUP = "rbac.authorization.k8s.io"
_ROLES = f"roles.{_GROUP}"
_CLUSTER_ROLES = f"clusterroles.{_GROUP}"
_BINDINGS = f"rolebindings.{_GROUP}"
_CLUSTER_BINDINGS = f"clusterrolebindings.{_GROUP}"

READ = ["get", "list", "watch"]
#: The number of users and namespaces whose rules are cached.
_KNOWN = 2048


class Authorizer:
    """Decides by the rules of every role that is bound to the caller."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes = NodeAuthorizer(store)
        #: The rules by user and namespace, until a role or a binding changes.
        self._known: dict[tuple[str, tuple[str, ...], str], list[PolicyRule]] = {}
        for key in (_ROLES, _CLUSTER_ROLES, _BINDINGS, _CLUSTER_BINDINGS):
            store.on_change(key, self._known.clear)

    def allows(self, user: User, attributes: Attributes) -> bool:
        """Return whether a user has a right; members of system:masters have all rights."""
        if "system:masters" in user.groups:
            return True
        if NODES in user.groups and (
            self._nodes.allows(user, attributes) or any(covers(rule, attributes) for rule in NODE_RULES)
        ):
            return True
        return any(covers(rule, attributes) for rule in self.rules(user, attributes.namespace))

    def rules(self, user: User, namespace: str) -> list[PolicyRule]:
        """Return a user's rules in the cluster, and in `namespace` unless it is empty. Read only."""
        key = (user.name, user.groups, namespace)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[key] = list(self._find(user, namespace))
        return known

    def _find(self, user: User, namespace: str) -> Iterator[PolicyRule]:
        for stored in self._store.list(_CLUSTER_BINDINGS):
            yield from self._of(stored.load(), user, "")
        if namespace:
            for stored in self._store.list(_BINDINGS, namespace):
                yield from self._of(stored.load(), user, namespace)

    def _of(self, binding: Object, user: User, namespace: str) -> Iterator[PolicyRule]:
        if not any(_is(subject, user, namespace) for subject in binding.get("subjects") or ()):
            return
        reference = binding["roleRef"]
        if reference["kind"] == "Role":
            stored = self._store.get(_ROLES, namespace, reference["name"])
        else:
            stored = self._store.get(_CLUSTER_ROLES, "", reference["name"])
        if stored is not None:
            yield from stored.load().get("rules") or ()


def _is(subject: Object, user: User, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            name = f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"
            return name == user.name
    return False


def covers(rule: PolicyRule, wanted: Attributes) -> bool:
    """Return whether a rule gives a right."""
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


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> PolicyRule:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


_EVENTS = _rule(["", "events.k8s.io"], ["events"], ["create", "patch", "update"])
_REVIEWS = _rule(
    ["authentication.k8s.io", "authorization.k8s.io"], ["tokenreviews", "subjectaccessreviews"], ["create"]
)

#: The rights of every node; `node_authorization` adds those that its pods need.
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

"""The roles and bindings of a new cluster: those of the Kubernetes 1.36 API server, and those of Cumulet.

`roles.json` lists them, one a line. A role that aggregates others has no rules there, as controllers fill it in.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from cumulet.common.config import DISK_DRIVER
from cumulet.common.kubernetes.objects import Object

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PolicyRule

GROUP = "rbac.authorization.k8s.io"
READ = ["get", "list", "watch"]

_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_CLOUD, _VIRTUAL_NODE, _NETWORK = "system:cloud-controller-manager", "virtual-kubelet", "cumulet:network"
_ISSUER = "cumulet:oidc-issuer"


def default_roles(node_name: str) -> list[Object]:
    """Return roles, cluster roles and bindings, with `kind`, and with `metadata.namespace` where they have one."""
    objects: list[Object] = msgspec.json.decode(resources.files(__package__).joinpath("roles.json").read_bytes())
    for role in objects:
        if "aggregationRule" in role:
            role["rules"] = _aggregated(role, objects)
    objects += [
        _cluster_role(
            _CLOUD,
            _rule([""], ["services", "endpoints", "nodes", "pods"], READ),
            _rule([""], ["services/status"], ["patch", "update"]),
            _rule(["discovery.k8s.io"], ["endpointslices"], READ),
            _rule(["", "events.k8s.io"], ["events"], ["create", "patch", "update"]),
        ),
        _binding(_CLOUD, _CLOUD, _CLOUD),
        # The chart of Azure's connector adds these to a node's rights, to watch everything that pods may refer to.
        _cluster_role(
            _VIRTUAL_NODE,
            _rule([""], ["configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims", "events"], READ),
        ),
        _binding(_VIRTUAL_NODE, _VIRTUAL_NODE, f"system:node:{node_name}"),
        # As the charts of the driver's provisioner and resizer.
        _cluster_role(
            DISK_DRIVER,
            _rule([""], ["persistentvolumes"], [*READ, "create", "delete", "patch", "update"]),
            _rule([""], ["persistentvolumeclaims"], [*READ, "patch", "update"]),
            _rule([""], ["persistentvolumeclaims/status"], ["patch", "update"]),
            _rule(["storage.k8s.io"], ["storageclasses"], READ),
            _rule([""], ["events"], ["create", "patch", "update"]),
        ),
        _binding(DISK_DRIVER, DISK_DRIVER, DISK_DRIVER),
        # Upstream, name servers and network policies have accounts of their own beside kube-proxy's.
        _cluster_role(
            _NETWORK,
            _rule([""], ["pods", "namespaces"], READ),
            _rule(["networking.k8s.io"], ["networkpolicies"], READ),
        ),
        _binding(_NETWORK, _NETWORK, "system:kube-proxy"),
        # The cluster's OIDC issuer is public, as AKS's is: its documents are public keys.
        _binding(_ISSUER, "system:service-account-issuer-discovery", "system:unauthenticated", kind="Group"),
        # It keeps the Service of the name server, which upstream's installer or add-on manager does.
        *_in_namespace(
            "kube-system",
            _NETWORK,
            "system:kube-proxy",
            _rule([""], ["services"], ["create", "patch", "delete"]),
            _rule(["discovery.k8s.io"], ["endpointslices"], ["create", "patch", "delete"]),
        ),
        # All our controllers share one user; upstream has an account for each.
        _binding("cumulet:controllers", "cluster-admin", "system:kube-controller-manager"),
    ]
    for item in objects:
        item["metadata"] = {
            **item["metadata"],
            "labels": {**_LABELS, **(item["metadata"].get("labels") or {})},
            "annotations": _ANNOTATIONS,
        }
    return objects


def with_current_rules(old: Object, default: Object) -> Object:
    """Return an existing object with the rules, or the additional subjects, of this version."""
    if (old["metadata"].get("annotations") or {}).get(next(iter(_ANNOTATIONS)), "true") == "false":
        return old
    if "aggregationRule" in default:
        return {**old, "aggregationRule": default["aggregationRule"]}
    if "rules" in default:
        return {**old, "rules": default["rules"]}
    subjects = old.get("subjects") or []
    missing = [item for item in default.get("subjects") or () if item not in subjects]
    return {**old, "subjects": [*subjects, *missing]} if missing else old


def _aggregated(role: Object, roles: list[Object]) -> list[PolicyRule]:
    """Return the rules of an aggregated role, so that a new cluster need not wait for the controllers."""
    wanted = [selector["matchLabels"].items() for selector in role["aggregationRule"]["clusterRoleSelectors"]]
    rules: list[PolicyRule] = []
    for other in roles:
        labels = (other["metadata"].get("labels") or {}).items()
        if other["kind"] == role["kind"] and any(selector <= labels for selector in wanted):
            nested = _aggregated(other, roles) if "aggregationRule" in other else other["rules"]
            rules += [rule for rule in nested if rule not in rules]
    return rules


def _cluster_role(name: str, *rules: PolicyRule) -> Object:
    return {"kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}


def _binding(name: str, role: str, subject: str, kind: str = "User") -> Object:
    return {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}],
    }


def _in_namespace(namespace: str, name: str, user: str, *rules: PolicyRule) -> list[Object]:
    """Return a role for one namespace, and its binding to a user."""
    metadata = {"name": name, "namespace": namespace}
    bound = {
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }
    return [{"kind": "Role", "metadata": metadata, "rules": list(rules)}, bound]


def _rule(groups: list[str], kinds: list[str], verbs: list[str]) -> PolicyRule:
    return {"apiGroups": groups, "resources": kinds, "verbs": verbs}

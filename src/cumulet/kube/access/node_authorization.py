"""The rights of a node's kubelet beyond its role: the objects that its pods need, and its own objects.

Follows upstream's authorizer "Node" and admission plug-in "NodeRestriction".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.catalog.resources import Row
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PodSpec, Taint

_CONTAINERS: tuple[Literal["initContainers", "containers", "ephemeralContainers"], ...] = (
    "initContainers",
    "containers",
    "ephemeralContainers",
)
NODES = "system:nodes"
#: The annotation of a mirror pod: a static pod that a node shows in the API.
MIRROR = "kubernetes.io/config.mirror"
_PREFIX = "system:node:"
_LEASES = "kube-node-lease"
_NEEDED = frozenset(("secrets", "configmaps", "persistentvolumeclaims"))
_RESTRICTED = "node-restriction.kubernetes.io/"


def node_of(user: User) -> str:
    """Return the name of the node that a user is, or an empty string."""
    return user.name.removeprefix(_PREFIX) if NODES in user.groups and user.name.startswith(_PREFIX) else ""


class NodeAuthorizer:
    """Allows a node to read the objects that its pods refer to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allows(self, user: User, wanted: Attributes) -> bool:
        """Return whether a pod on the user's node needs the object, or it is the node's own lease."""
        node = node_of(user)
        if not node:
            return False
        if wanted.group == "coordination.k8s.io" and wanted.resource == "leases":
            return wanted.namespace == _LEASES and (wanted.verb == "create" or wanted.name == node)
        if wanted.group or not wanted.name:
            return False
        if wanted.resource in _NEEDED and wanted.verb in ("get", "list", "watch") and not wanted.subresource:
            return any(
                (wanted.resource, wanted.name) in set(references(pod)) for pod in self._pods(node, wanted.namespace)
            )
        if (wanted.verb, wanted.resource, wanted.subresource) == ("create", "serviceaccounts", "token"):
            return any(
                pod["spec"].get("serviceAccountName") == wanted.name for pod in self._pods(node, wanted.namespace)
            )
        return False

    def _pods(self, node: str, namespace: str) -> Iterator[Object]:
        for stored in self._store.list("pods", namespace):
            if stored.fields["spec.nodeName"] == node:
                yield stored.load()


def references(pod: Object) -> Iterator[tuple[str, str]]:
    """Yield resource and name of every namespaced object that a pod refers to."""
    spec: PodSpec = pod["spec"]
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name", "")
    for volume in spec.get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if secret_source := source.get("secret"):
                yield "secrets", secret_source.get("secretName") or secret_source.get("name", "")
            if config_map := source.get("configMap"):
                yield "configmaps", config_map.get("name", "")
        if claim := volume.get("persistentVolumeClaim"):
            yield "persistentvolumeclaims", claim.get("claimName", "")
        for kind in volume.values():
            # Drivers name their secrets by the same two fields.
            for key in ("secretRef", "nodePublishSecretRef"):
                if isinstance(kind, dict) and isinstance(kind.get(key), dict):
                    yield "secrets", kind[key].get("name", "")
        if share := volume.get("azureFile"):
            yield "secrets", share.get("secretName", "")
    for key in _CONTAINERS:
        for container in spec.get(key) or ():
            for variable in container.get("env") or ():
                source = variable.get("valueFrom") or {}
                yield "secrets", (source.get("secretKeyRef") or {}).get("name", "")
                yield "configmaps", (source.get("configMapKeyRef") or {}).get("name", "")
            for source in container.get("envFrom") or ():
                yield "secrets", (source.get("secretRef") or {}).get("name", "")
                yield "configmaps", (source.get("configMapRef") or {}).get("name", "")


def restrict(user: User, operation: str, row: Row, subresource: str, obj: Object | None, old: Object | None) -> None:
    """Refuse a node's writes to objects of other nodes. Raises `ApiError` 403."""
    node = node_of(user)
    if not node or row.key not in ("nodes", "pods", "leases.coordination.k8s.io"):
        return
    there = obj if old is None else old
    assert there is not None
    name = there["metadata"].get("name", "")
    if row.key == "pods":
        why = _pod(node, operation, subresource, there)
    elif row.key == "nodes":
        why = _node(node, operation, name, obj, old)
    else:
        mine = name == node and there["metadata"].get("namespace") == _LEASES
        why = "" if mine else "can only access node lease with the same name as the requesting node"
    if why:
        raise forbidden(row.group, row.plural, name, why)


def _pod(node: str, operation: str, subresource: str, pod: Object) -> str:
    if operation == "CREATE":
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
        if pod["spec"].get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        # Otherwise a node could get access to any object by referring to it.
        if pod["spec"].get("serviceAccountName"):
            return f'node "{node}" can not create pods that reference a service account'
        return next(
            (f'node "{node}" can not create pods that reference {kind}' for kind, name in references(pod) if name), ""
        )
    if pod["spec"].get("nodeName") == node:
        return ""
    if operation == "DELETE":
        return f'node "{node}" can only delete pods with spec.nodeName set to itself'
    which = "pods with spec.nodeName set to itself"
    return f'node "{node}" can only update pod status for {which}'


def _node(node: str, operation: str, name: str, obj: Object | None, old: Object | None) -> str:
    if name != node:
        verb = {"CREATE": "create", "UPDATE": "modify", "DELETE": "delete"}[operation]
        return f'node "{node}" is not allowed to {verb} node "{name}"'
    if obj is None:
        return ""
    labels = obj["metadata"].get("labels") or {}
    before = ((old or {}).get("metadata") or {}).get("labels") or {}
    changed = [
        key for key in labels.keys() | before.keys() if labels.get(key) != before.get(key) and _RESTRICTED in key
    ]
    if changed:
        return f"is not allowed to modify labels: {', '.join(sorted(changed))}"
    if old is not None and _taints(obj) != _taints(old):
        return f'node "{node}" is not allowed to modify taints'
    return ""


def _taints(node: Object) -> list[Taint]:
    return (node.get("spec") or {}).get("taints") or []

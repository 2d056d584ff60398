"""Defaults of a pod that depend on other objects: service account and token, tolerations, priority."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.node_authorization import MIRROR, references
from cumulet.kube.apimachinery.names import suffix, unnamed
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ObjectMeta, PodSpec, VolumeProjection

_CONTAINERS: tuple[Literal["initContainers", "containers"], ...] = ("initContainers", "containers")
_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_CLASSES = "priorityclasses.scheduling.k8s.io"


class PodDefaults:
    """Plug-ins ServiceAccount, DefaultTolerationSeconds and Priority."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def complete(self, pod: Object) -> None:
        """Complete a new pod, in place. Raises `ApiError` 403."""
        self._service_account(pod)
        self.tolerate(pod)
        self._priority(pod)

    def _service_account(self, pod: Object) -> None:
        spec: PodSpec = pod["spec"]
        metadata: ObjectMeta = pod["metadata"]
        if MIRROR in (metadata.get("annotations") or {}):
            _check_mirror(pod)
            return
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        stored = self._store.get("serviceaccounts", metadata["namespace"], name)
        if stored is None:
            raise forbidden(
                "",
                "pods",
                unnamed(pod),
                f'error looking up service account {metadata["namespace"]}/{name}: serviceaccount "{name}" not found',
            )
        account = stored.load()
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)) is not False:
            _mount_token(spec)

    def tolerate(self, pod: Object) -> None:
        """Add the default tolerations of a node that is not ready or unreachable; an update gets them back."""
        spec: PodSpec = pod["spec"]
        tolerations = spec.setdefault("tolerations", [])
        for key in _NOT_READY:
            if not any(
                item.get("key") in (key, None, "")
                and item.get("effect") in ("NoExecute", None, "")
                and (item.get("key") or item.get("operator") == "Exists")
                for item in tolerations
            ):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )

    def _priority(self, pod: Object) -> None:
        spec: PodSpec = pod["spec"]
        name = unnamed(pod)
        priority_class: Object = {}
        if chosen := spec.get("priorityClassName"):
            stored = self._store.get(_CLASSES, "", chosen)
            if stored is None:
                raise forbidden("", "pods", name, f"no PriorityClass with name {chosen} was found")
            priority_class = stored.load()
        elif default := default_class(self._store):
            priority_class, spec["priorityClassName"] = default, default["metadata"]["name"]
        value = _value(priority_class)
        if spec.get("priority") not in (None, value):
            why = (
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name"
            )
            raise forbidden("", "pods", name, why)
        policy = priority_class.get("preemptionPolicy") or "PreemptLowerPriority"
        if spec.get("preemptionPolicy") not in (None, policy):
            why = (
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            )
            raise forbidden("", "pods", name, why)
        spec |= {"priority": value, "preemptionPolicy": policy}

    def keep(self, pod: Object, old: Object) -> None:
        """Keep priority and preemption policy where an update leaves them out, in place."""
        for key in ("priority", "preemptionPolicy"):
            if pod["spec"].get(key) is None and key in old["spec"]:
                pod["spec"][key] = old["spec"][key]

    def check_class(self, priority_class: Object) -> None:
        """Refuse a second default class. Raises `ApiError` 403."""
        name = priority_class["metadata"]["name"]
        default = default_class(self._store) if priority_class.get("globalDefault") else None
        if default is not None and default["metadata"]["name"] != name:
            why = f"PriorityClass {default['metadata']['name']} is already marked as default. Only one default can exist"
            raise forbidden("scheduling.k8s.io", "priorityclasses", name, why)


def _check_mirror(pod: Object) -> None:
    """Check a mirror pod: it runs already, and uses no objects of the cluster. Raises `ApiError` 403."""
    spec: PodSpec = pod["spec"]
    why = ""
    if spec.get("serviceAccountName"):
        why = "a mirror pod may not reference service accounts"
    elif any(kind == "secrets" and name for kind, name in references(pod)):
        why = "a mirror pod may not reference secrets"
    elif any(
        source.get("serviceAccountToken")
        for volume in spec.get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    ):
        why = "a mirror pod may not use ServiceAccountToken volume projections"
    if why:
        raise forbidden("", "pods", unnamed(pod), why)


def default_class(store: Store) -> Object | None:
    """Return the default class of pods; of several, the one with the lowest value."""
    classes = (stored.load() for stored in store.list(_CLASSES))
    return min((item for item in classes if item.get("globalDefault")), key=_value, default=None)


def _value(priority_class: Object) -> int:
    value: int = priority_class.get("value", 0)
    return value


def _mount_token(spec: PodSpec) -> None:
    """Mount the projected volume with the account's token, the cluster's authority and the namespace."""
    unmounted = [
        container
        for name in _CONTAINERS
        for container in spec.get(name) or ()
        if not any(mount.get("mountPath") == _MOUNT for mount in container.get("volumeMounts") or ())
    ]
    if not unmounted:
        return
    name = f"kube-api-access-{suffix(random.randrange)}"
    sources: list[VolumeProjection] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": 420}})
    for container in unmounted:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": _MOUNT})

"""What is looked at and added before an object is stored (upstream's admission plug-ins that are on by default)."""

from __future__ import annotations

import secrets
from typing import Any

from cumulet.kube.names import suffix
from cumulet.kube.resources import Row
from cumulet.kube.status import ApiError, forbidden, not_found
from cumulet.kube.store import Store

Object = dict[str, Any]

_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class Admission:
    """Runs on creates (`admit`) and deletes (`may_delete`)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def admit(self, row: Row, obj: Object) -> None:
        """Check and complete a new object, in place. Raises `ApiError` 403 and 404."""
        if row.namespaced:
            self._namespace(row, obj)
        if row.custom is not None:
            self._definition(row)
        if row.key == "pods":
            self._service_account(obj)
            self._tolerations(obj)
            self._priority(obj)
        elif row.key == "jobs.batch":
            _job_labels(obj)
        elif row.key == "nodes":
            _taint(obj)

    def may_delete(self, row: Row, name: str) -> None:
        """Raises `ApiError` 403 for what a cluster cannot be without."""
        if row.key == "namespaces" and name in ("default", "kube-public", "kube-system"):
            raise forbidden("", "namespaces", name, "this namespace may not be deleted")

    def _namespace(self, row: Row, obj: Object) -> None:
        namespace = obj["metadata"]["namespace"]
        stored = self._store.get("namespaces", "", namespace)
        if stored is None:
            raise not_found("", "namespaces", namespace)
        if stored.fields.get("status.phase") == "Terminating":
            raise forbidden(
                row.group,
                row.plural,
                obj["metadata"]["name"],
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )

    def _definition(self, row: Row) -> None:
        """Nothing new comes of a kind that is on its way out."""
        stored = self._store.get("customresourcedefinitions.apiextensions.k8s.io", "", row.key)
        if stored is not None and stored.load()["metadata"].get("deletionTimestamp"):
            why = "create not allowed while custom resource definition is terminating"
            raise ApiError(405, "MethodNotAllowed", why, {})

    def _service_account(self, pod: Object) -> None:
        spec, metadata = pod["spec"], pod["metadata"]
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        stored = self._store.get("serviceaccounts", metadata["namespace"], name)
        if stored is None:
            raise forbidden(
                "",
                "pods",
                metadata["name"],
                f'error looking up service account {metadata["namespace"]}/{name}: serviceaccount "{name}" not found',
            )
        account = stored.load()
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)) is not False:
            _mount_token(spec)

    def _tolerations(self, pod: Object) -> None:
        tolerations = pod["spec"].setdefault("tolerations", [])
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
        spec = pod["spec"]
        name = spec.get("priorityClassName", "")
        value, policy = 0, "PreemptLowerPriority"
        if name in _SYSTEM_PRIORITIES:
            value = _SYSTEM_PRIORITIES[name]
        elif name:
            stored = self._store.get("priorityclasses.scheduling.k8s.io", "", name)
            if stored is None:
                raise forbidden("", "pods", pod["metadata"]["name"], f"no PriorityClass with name {name} was found")
            found = stored.load()
            value, policy = found.get("value", 0), found.get("preemptionPolicy", policy)
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", policy)


def _taint(node: Object) -> None:
    """A new node takes no pods until the node lifecycle controller has seen that it is ready."""
    taints = node.setdefault("spec", {}).setdefault("taints", [])
    if not any(taint.get("key") == _NOT_READY[0] and taint.get("effect") == "NoSchedule" for taint in taints):
        taints.append({"key": _NOT_READY[0], "effect": "NoSchedule"})


def _mount_token(spec: Object) -> None:
    """The projected volume with the account's token, the cluster's authority and the namespace."""
    wanting = [
        container
        for name in ("initContainers", "containers")
        for container in spec.get(name) or ()
        if not any(mount.get("mountPath") == _MOUNT for mount in container.get("volumeMounts") or ())
    ]
    if not wanting:
        return
    name = f"kube-api-access-{suffix(secrets.randbelow)}"
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": 420}})
    for container in wanting:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": _MOUNT})


def _job_labels(job: Object) -> None:
    """A job's pods are selected by the job's own uid, unless it says otherwise."""
    spec, metadata = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    labels = {
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": metadata["name"],
        "controller-uid": metadata["uid"],
        "job-name": metadata["name"],
    }
    template = spec["template"].setdefault("metadata", {})
    template["labels"] = {**(template.get("labels") or {}), **labels}
    metadata["labels"] = {**labels, **(metadata.get("labels") or template["labels"])}
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}

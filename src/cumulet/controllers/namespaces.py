"""Namespaces: what a new one needs, and what becomes of all that is in one that is deleted."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import CONFIGMAPS, METADATA_LIST_ONLY, NAMESPACES, PODS, SERVICEACCOUNTS
from cumulet.common.kubernetes.informer import Handler
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.discovery import discover
from cumulet.controllers.pods import condition_of

#: Seconds until a namespace that is not empty yet is looked at again.
_AGAIN = 0.2
_KUBERNETES = "kubernetes"


class NamespaceController:
    """Empties a namespace that is being deleted, then lets it go (`pkg/controller/namespace`)."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=_AGAIN, ceiling=30)
        self._client = context.client
        self._namespaces = context.informer(NAMESPACES)
        self._namespaces.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        context.informer(PODS).add_handler(self._pod_gone)

    def _pod_gone(self, change: str, pod: Object, _: Object | None) -> None:
        namespace = pod["metadata"]["namespace"]
        found = self._namespaces.get(namespace)
        if change == "DELETED" and found is not None and found["metadata"].get("deletionTimestamp"):
            self.queue.add(("", namespace))

    async def reconcile(self, key: Key) -> None:
        """Delete what is in it; once nothing is, take the finalizer away."""
        namespace = self._namespaces.get(key[1])
        if (
            namespace is None
            or not namespace["metadata"].get("deletionTimestamp")
            or _KUBERNETES not in (namespace["spec"].get("finalizers") or ())
        ):
            return
        left: dict[str, int] = {}
        finalizers: dict[str, int] = {}
        failures: list[str] = []
        for served in await discover(self._client):
            resource = served.resource
            if resource.namespaced and {"list", "delete"} <= served.verbs:
                try:
                    await self._empty(resource, key[1], left, finalizers, can_all="deletecollection" in served.verbs)
                except KubernetesError as error:
                    failures.append(str(error))
        if left or failures:
            await self._tell(namespace, left, finalizers, failures)
            self.queue.retry(key)
            return
        remaining = [item for item in namespace["spec"]["finalizers"] if item != _KUBERNETES]
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": key[1]},
            "spec": {"finalizers": remaining},
        }
        try:
            await self._client.request("PUT", f"/api/v1/namespaces/{key[1]}/finalize", body=body)
        except KubernetesError as error:
            if error.code != 404:
                raise

    async def _empty(
        self, resource: Resource, namespace: str, left: dict[str, int], finalizers: dict[str, int], *, can_all: bool
    ) -> None:
        found = await self._client.list(resource, namespace, accept=METADATA_LIST_ONLY)
        if not found["items"]:
            return
        if can_all:
            path = resource.path(namespace)
            await self._client.request("DELETE", path, params={"propagationPolicy": "Background"})
        else:
            for item in found["items"]:
                await self._client.delete(resource, item["metadata"]["name"], namespace)
        found = await self._client.list(resource, namespace, accept=METADATA_LIST_ONLY)
        if found["items"]:
            left[f"{resource.plural}.{resource.group}"] = len(found["items"])
        for item in found["items"]:
            for name in item["metadata"].get("finalizers") or ():
                finalizers[name] = finalizers.get(name, 0) + 1

    async def _tell(
        self, namespace: Object, left: dict[str, int], finalizers: dict[str, int], failures: list[str]
    ) -> None:
        """What holds it up, as conditions of the namespace."""
        content = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(left.items()))
        held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        conditions = [
            _condition(
                namespace,
                "NamespaceDeletionDiscoveryFailure",
                None,
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            _condition(
                namespace,
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            _condition(
                namespace,
                "NamespaceDeletionContentFailure",
                ("ContentDeletionFailed", "; ".join(failures)) if failures else None,
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            _condition(
                namespace,
                "NamespaceContentRemaining",
                ("SomeResourcesRemain", f"Some resources are remaining: {content}") if left else None,
                ("ContentRemoved", "All content successfully removed"),
            ),
            _condition(
                namespace,
                "NamespaceFinalizersRemaining",
                ("SomeFinalizersRemain", f"Some content in the namespace has finalizers remaining: {held}")
                if finalizers
                else None,
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ]
        status = namespace.get("status") or {}
        kinds = {condition["type"] for condition in conditions}
        others = [item for item in status.get("conditions") or () if item["type"] not in kinds]
        if [*others, *conditions] == status.get("conditions"):
            return
        try:
            changed = {**namespace, "status": {**status, "conditions": [*others, *conditions]}}
            await self._client.update(NAMESPACES, changed, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _condition(namespace: Object, kind: str, holds: tuple[str, str] | None, else_: tuple[str, str]) -> Object:
    old = condition_of(namespace, kind)
    status = "True" if holds is not None else "False"
    reason, message = holds or else_
    same = old.get("status") == status
    since = old["lastTransitionTime"] if same else clock.rfc3339()
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


_ROOT = "kube-root-ca.crt"
_DESCRIBED = "kubernetes.io/description"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


class ServiceAccountController:
    """Gives every namespace its default account and the cluster's authority."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._namespaces = context.informer(NAMESPACES)
        self._namespaces.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        for resource, name in ((SERVICEACCOUNTS, "default"), (CONFIGMAPS, _ROOT)):
            context.informer(resource).add_handler(self._restore(name))
        self._accounts = context.informer(SERVICEACCOUNTS)
        self._maps = context.informer(CONFIGMAPS)

    def _restore(self, name: str) -> Handler:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            namespace = obj["metadata"]["namespace"]
            if obj["metadata"]["name"] == name and change != "ADDED":
                self.queue.add(("", namespace))

        return changed

    async def reconcile(self, key: Key) -> None:
        """Make what is missing."""
        namespace = self._namespaces.get(key[1])
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return
        if self._accounts.get("default", key[1]) is None:
            await self._create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": key[1]}})
        known = self._maps.get(_ROOT, key[1])
        authority = self._client.kubeconfig.authority
        if authority is None:
            return
        data = {"ca.crt": authority.decode()}
        metadata = {"name": _ROOT, "namespace": key[1], "annotations": {_DESCRIBED: _DESCRIPTION}}
        if known is None:
            await self._create(CONFIGMAPS, {"metadata": metadata, "data": data})
        elif known.get("data") != data:
            await self._client.patch(CONFIGMAPS, _ROOT, {"data": data}, key[1])

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self._client.create(resource, obj)
        except KubernetesError as error:
            if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                raise

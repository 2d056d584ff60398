"""Namespaces: the default objects of a new one, and the deletion of the content of a terminating one."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import (
    CONFIGMAPS,
    METADATA_LIST_ONLY,
    NAMESPACES,
    PODS,
    SERVICEACCOUNTS,
    AnyResource,
    Resource,
    T,
)
from cumulet.common.kubernetes.informer import Handler
from cumulet.common.kubernetes.objects import (
    ConfigMap,
    Namespace,
    NamespaceCondition,
    NamespaceStatus,
    ObjectMeta,
    PartialObjectMetadata,
    Pod,
    ServiceAccount,
)
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.discovery import discover

#: The seconds until a namespace that is not empty yet is checked again.
_AGAIN = 0.2
_KUBERNETES = "kubernetes"


class NamespaceController:
    """Deletes the content of a terminating namespace, then removes its finalizer (`pkg/controller/namespace`)."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=_AGAIN, ceiling=30)
        self._client = context.client
        self._namespaces = context.informer(NAMESPACES)
        self._namespaces.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        context.informer(PODS).add_handler(self._pod_gone)

    def _pod_gone(self, change: str, pod: Pod, _: Pod | None) -> None:
        name = pod["metadata"]["namespace"]
        namespace = self._namespaces.get(name)
        if change == "DELETED" and namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            self.queue.add(("", name))

    async def reconcile(self, key: Key) -> None:
        """Delete the content of a terminating namespace. Once it is empty, remove the finalizer."""
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
            await self._report(namespace, left, finalizers, failures)
            self.queue.retry(key)
            return
        remaining = [item for item in namespace["spec"]["finalizers"] if item != _KUBERNETES]
        body: Namespace = {
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
        self,
        resource: AnyResource,
        namespace: str,
        left: dict[str, int],
        finalizers: dict[str, int],
        *,
        can_all: bool,
    ) -> None:
        listed = await self._client.list(resource, namespace, accept=METADATA_LIST_ONLY)
        if not listed["items"]:
            return
        if can_all:
            path = resource.path(namespace)
            await self._client.request("DELETE", path, params={"propagationPolicy": "Background"})
        else:
            for item in listed["items"]:
                await self._client.delete(resource, item["metadata"]["name"], namespace)
        listed = await self._client.list(resource, namespace, accept=METADATA_LIST_ONLY)
        if listed["items"]:
            left[f"{resource.plural}.{resource.group}"] = len(listed["items"])
        for item in listed["items"]:
            for name in item["metadata"].get("finalizers") or ():
                finalizers[name] = finalizers.get(name, 0) + 1

    async def _report(
        self, namespace: Namespace, left: dict[str, int], finalizers: dict[str, int], failures: list[str]
    ) -> None:
        """Write the obstacles of the deletion to the conditions of the namespace."""
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
        with suppress_stale():
            changed: NamespaceStatus = {**status, "conditions": [*others, *conditions]}
            await self._client.update_status(NAMESPACES, namespace, changed)


def _condition(
    namespace: Namespace, kind: str, holds: tuple[str, str] | None, else_: tuple[str, str]
) -> NamespaceCondition:
    """A condition, with the reason and message for True (`holds`) or for False (`else_`)."""
    old = condition_of(namespace, kind)
    status = "True" if holds is not None else "False"
    reason, message = holds or else_
    same = old is not None and old["status"] == status
    since = old["lastTransitionTime"] if old is not None and same else clock.rfc3339()
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


_ROOT = "kube-root-ca.crt"
_DESCRIBED = "kubernetes.io/description"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


class ServiceAccountController:
    """Creates the default service account and the authority of the cluster in every namespace."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._namespaces = context.informer(NAMESPACES)
        self._namespaces.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._accounts = context.informer(SERVICEACCOUNTS)
        self._accounts.add_handler(self._restore("default"))
        self._maps = context.informer(CONFIGMAPS)
        self._maps.add_handler(self._restore(_ROOT))

    def _restore(self, name: str) -> Handler[PartialObjectMetadata]:
        def changed(change: str, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
            namespace = obj["metadata"]["namespace"]
            if obj["metadata"]["name"] == name and change != "ADDED":
                self.queue.add(("", namespace))

        return changed

    async def reconcile(self, key: Key) -> None:
        """Create the missing objects."""
        namespace = self._namespaces.get(key[1])
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return
        if self._accounts.get("default", key[1]) is None:
            account: ServiceAccount = {"metadata": {"name": "default", "namespace": key[1]}}
            await self._create(SERVICEACCOUNTS, account)
        known = self._maps.get(_ROOT, key[1])
        authority = self._client.kubeconfig.authority
        if authority is None:
            return
        data = {"ca.crt": authority.decode()}
        metadata: ObjectMeta = {"name": _ROOT, "namespace": key[1], "annotations": {_DESCRIBED: _DESCRIPTION}}
        if known is None:
            config_map: ConfigMap = {"metadata": metadata, "data": data}
            await self._create(CONFIGMAPS, config_map)
        elif known.get("data") != data:
            await self._client.patch(CONFIGMAPS, _ROOT, {"data": data}, key[1])

    async def _create(self, resource: Resource[T], obj: T) -> None:
        try:
            await self._client.create(resource, obj)
        except KubernetesError as error:
            if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                raise

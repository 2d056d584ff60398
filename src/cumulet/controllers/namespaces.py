"""Namespaces: what a new one needs, and what becomes of all that is in one that is deleted."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import CONFIGMAPS, NAMESPACES, PODS, SERVICEACCOUNTS
from cumulet.common.kubernetes.informer import Handler
from cumulet.controllers.controller import Context, Key, Object, key_of

_AGAIN = 0.2


class NamespaceController:
    """Empties a namespace that is being deleted, then lets it go."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
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
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return
        left = False
        for resource in await self._resources():
            found = await self._client.list(resource, key[1])
            if not found["items"]:
                continue
            left = True
            await self._client.request("DELETE", resource.path(key[1]), params={"propagationPolicy": "Background"})
        if left:
            self.queue.add_after(key, _AGAIN)
            return
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key[1]}, "spec": {"finalizers": []}}
        try:
            await self._client.request("PUT", f"/api/v1/namespaces/{key[1]}/finalize", body=body)
        except KubernetesError as error:
            if error.code != 404:
                raise

    async def _resources(self) -> list[Resource]:
        """Every namespaced resource that can be listed and deleted, as the server says."""
        found: list[Resource] = []
        groups = await self._client.request("GET", "/apis")
        paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups["groups"])]
        for path in paths:
            listed = await self._client.request("GET", path)
            group, _, version = listed["groupVersion"].rpartition("/")
            found += [
                Resource(group, version, item["name"], item["kind"])
                for item in listed["resources"]
                if item["namespaced"] and {"list", "deletecollection"} <= set(item["verbs"])
            ]
        return found


class ServiceAccountController:
    """Gives every namespace its default account and the cluster's authority."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._namespaces = context.informer(NAMESPACES)
        self._namespaces.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        for resource, name in ((SERVICEACCOUNTS, "default"), (CONFIGMAPS, "kube-root-ca.crt")):
            context.informer(resource).add_handler(self._restore(name))
        self._accounts = context.informer(SERVICEACCOUNTS)
        self._maps = context.informer(CONFIGMAPS)

    def _restore(self, name: str) -> Handler:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            if change == "DELETED" and obj["metadata"]["name"] == name:
                self.queue.add(("", obj["metadata"]["namespace"]))

        return changed

    async def reconcile(self, key: Key) -> None:
        """Make what is missing."""
        namespace = self._namespaces.get(key[1])
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return
        if self._accounts.get("default", key[1]) is None:
            await self._create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": key[1]}})
        if self._maps.get("kube-root-ca.crt", key[1]) is None:
            root = await self._client.get(CONFIGMAPS, "kube-root-ca.crt", "kube-system")
            metadata = {"name": "kube-root-ca.crt", "namespace": key[1]}
            await self._create(CONFIGMAPS, {"metadata": metadata, "data": root["data"]})

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self._client.create(resource, obj)
        except KubernetesError as error:
            if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                raise

"""Calculates the usage of each resource quota, and writes it to the status (`pkg/controller/resourcequota`)."""

from __future__ import annotations

from decimal import Decimal

from cumulet.common.kubernetes import Client, WorkQueue, suppress_stale
from cumulet.common.kubernetes.amounts import Amounts
from cumulet.common.kubernetes.client import (
    CONFIGMAPS,
    DEPLOYMENTS,
    JOBS,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    SERVICES,
    STATEFULSETS,
    AnyResource,
)
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.objects import Fields, PartialObjectMetadata, Pod, ResourceQuotaStatus
from cumulet.common.kubernetes.usage import covers, usage, written
from cumulet.common.tasks import wait_for
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.discovery import discover
from cumulet.controllers.pods import phase_of

#: The resources that are watched from the start. Others are watched once a quota counts them.
_WATCHED: tuple[AnyResource, ...] = (
    PODS,
    SERVICES,
    PERSISTENTVOLUMECLAIMS,
    CONFIGMAPS,
    REPLICATIONCONTROLLERS,
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    JOBS,
)
_EVERY = 60.0
#: The seconds to wait for the first list of a counted resource.
_LIST_TIMEOUT = 10.0


class QuotaController:
    """The controller of resource quotas."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._context = context
        self._quotas = context.informer(RESOURCEQUOTAS)
        self._quotas.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._informers = {_name(resource): context.informer(resource) for resource in _WATCHED}
        self._counted: dict[str, AnyInformer] = {}
        for resource in _WATCHED:
            context.informer(resource).add_handler(self._pod_changed if resource == PODS else self._changed)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change != "MODIFIED" or old is None or phase_of(old) != phase_of(pod):
            self._changed(change, pod, old)

    def _changed(self, change: str, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
        for quota in self._quotas.indexed("namespace", obj["metadata"]["namespace"]):
            self.queue.add(key_of(quota))

    async def reconcile(self, key: Key) -> None:
        """Calculate the usage of a quota, and write it if it changed."""
        quota = self._quotas.get(key[1], key[0])
        if quota is None or quota["metadata"].get("deletionTimestamp"):
            return
        hard = (quota.get("spec") or {}).get("hard") or {}
        used: Amounts = dict.fromkeys(hard, Decimal(0))
        names = {_resource_of(name) for name in hard}
        for name in names:
            for obj in await self._objects(name, key[0]):
                if covers(quota, name, obj):
                    for amount, value in usage(name, obj).items():
                        if amount in used:
                            used[amount] += value
        self.queue.add_after(key, _EVERY)
        status: ResourceQuotaStatus = {
            "hard": hard,
            "used": {name: written(value, hard[name]) for name, value in used.items()},
        }
        if status == quota.get("status"):
            return
        with suppress_stale():
            await self._client.update_status(RESOURCEQUOTAS, quota, status)

    async def _objects(self, name: str, namespace: str) -> list[Fields]:
        """All objects of a resource in a namespace. Of resources that are only counted, only the metadata."""
        if name in self._informers:
            return self._informers[name].indexed("namespace", namespace)
        informer = self._counted.get(name)
        if informer is None or not self._context.has(informer.resource):
            resource = (await _namespaced(self._client)).get(name)
            if resource is None:
                return []  # it is not served, so there are no objects
            informer = self._counted[name] = self._context.passing_informer(resource)
            informer.add_handler(self._changed)
        if not await wait_for(informer.synced, _LIST_TIMEOUT):
            raise TimeoutError(f"{name} cannot be listed")
        return informer.indexed("namespace", namespace)


async def _namespaced(client: Client) -> dict[str, AnyResource]:
    return {
        _name(served.resource): served.resource
        for served in await discover(client)
        if served.resource.namespaced and "list" in served.verbs
    }


def _name(resource: AnyResource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _resource_of(amount: str) -> str:
    """The resource from whose objects an amount is calculated."""
    if amount.startswith("count/"):
        return amount.removeprefix("count/")
    if amount.startswith("services"):
        return "services"
    if amount == "requests.storage" or ".storageclass.storage.k8s.io/" in amount:
        return "persistentvolumeclaims"
    if amount in ("configmaps", "secrets", "replicationcontrollers", "resourcequotas", "persistentvolumeclaims"):
        return amount
    return "pods"

"""What of each resource quota is used, as its status tells (`pkg/controller/resourcequota`)."""

from __future__ import annotations

from decimal import Decimal

from cumulet.common.kubernetes import Client, Informer, KubernetesError, Resource, WorkQueue
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
)
from cumulet.common.kubernetes.informer import Handler
from cumulet.common.kubernetes.usage import covers, usage, written
from cumulet.common.tasks import wait_for
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.discovery import discover
from cumulet.controllers.pods import phase_of

#: What is followed from the start; what else a quota counts is followed once one does.
_WATCHED = (
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
#: Seconds for a first list of what is counted.
_PATIENCE = 10.0


class QuotaController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._context = context
        self._quotas = context.informer(RESOURCEQUOTAS)
        self._quotas.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._informers = {_name(resource): context.informer(resource) for resource in _WATCHED}
        self._counted: dict[str, Informer] = {}
        for resource in _WATCHED:
            context.informer(resource).add_handler(self._handler(_name(resource)))

    def _handler(self, name: str) -> Handler:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            if change == "MODIFIED" and old is not None and name == "pods" and phase_of(old) == phase_of(obj):
                return
            for quota in self._quotas.indexed("namespace", obj["metadata"]["namespace"]):
                self.queue.add(key_of(quota))

        return changed

    async def reconcile(self, key: Key) -> None:
        """Count, and write what changed."""
        quota = self._quotas.get(key[1], key[0])
        if quota is None or quota["metadata"].get("deletionTimestamp"):
            return
        hard: dict[str, str] = (quota.get("spec") or {}).get("hard") or {}
        used: Amounts = dict.fromkeys(hard, Decimal(0))
        names = {_resource_of(name) for name in hard}
        for name in names:
            for obj in await self._objects(name, key[0]):
                if covers(quota, name, obj):
                    for what, value in usage(name, obj).items():
                        if what in used:
                            used[what] += value
        self.queue.add_after(key, _EVERY)
        status = {"hard": hard, "used": {name: written(value, hard[name]) for name, value in used.items()}}
        if status == quota.get("status"):
            return
        try:
            await self._client.update(RESOURCEQUOTAS, {**quota, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _objects(self, name: str, namespace: str) -> list[Object]:
        """All objects of a resource, by their metadata where only their number matters."""
        if name in self._informers:
            return self._informers[name].indexed("namespace", namespace)
        informer = self._counted.get(name)
        if informer is None or not self._context.has(informer.resource):
            resource = (await _namespaced(self._client)).get(name)
            if resource is None:
                return []  # not served: there are none
            informer = self._counted[name] = self._context.passing_informer(resource)
            informer.add_handler(self._handler(name))
        if not await wait_for(informer.synced, _PATIENCE):
            raise TimeoutError(f"{name} cannot be listed")
        return informer.indexed("namespace", namespace)


async def _namespaced(client: Client) -> dict[str, Resource]:
    return {
        _name(served.resource): served.resource
        for served in await discover(client)
        if served.resource.namespaced and "list" in served.verbs
    }


def _name(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _resource_of(amount: str) -> str:
    """Which objects an amount is counted from."""
    if amount.startswith("count/"):
        return amount.removeprefix("count/")
    if amount.startswith("services"):
        return "services"
    if amount == "requests.storage" or ".storageclass.storage.k8s.io/" in amount:
        return "persistentvolumeclaims"
    if amount in ("configmaps", "secrets", "replicationcontrollers", "resourcequotas", "persistentvolumeclaims"):
        return amount
    return "pods"

"""The parts that all controllers share: the protocol, the informers, the recorders of events, owner references."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from cumulet.common.kubernetes import Client, EventRecorder, Informer, WorkQueue
from cumulet.common.kubernetes.client import AnyResource, Resource, T
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.objects import OwnerReference, PartialObjectMetadata
from cumulet.common.tasks import TaskSet
from cumulet.controllers.signers import Signers

Key = tuple[str, str]


class Context:
    """The client, and one informer for each resource, which all controllers share."""

    def __init__(
        self, client: Client, tasks: TaskSet, signers: Signers | None = None, trust_bundle: Path | None = None
    ) -> None:
        self.client = client
        #: The signers of the cluster of this installation. `None` for any other cluster.
        self.signers = signers
        #: The file with the authorities that pods of this installation's cluster trust. `None` for any other cluster.
        self.trust_bundle = trust_bundle
        #: Runs tasks that start later, such as the informers of new resources.
        self.tasks = tasks
        self.informers: dict[AnyResource, AnyInformer] = {}
        self._passing: dict[AnyResource, tuple[AnyInformer, asyncio.Task[None]]] = {}
        self.recorders: dict[str, EventRecorder] = {}

    def informer(self, resource: Resource[T]) -> Informer[T]:
        """The informer of a resource."""
        if resource not in self.informers:
            informer = self.informers[resource] = Informer(self.client, resource)
            informer.add_index("namespace", _namespaces)
            informer.add_index("controller", _controllers)
            informer.add_index("orphans", _orphans)
        return self.informers[resource]

    def passing_informer(self, resource: Resource[T]) -> Informer[T]:
        """The informer of a resource that can disappear.

        It holds only metadata unless another controller needs the whole objects. It runs from the first call until `forget`.
        """
        if resource in self.informers:
            return self.informers[resource]
        if resource not in self._passing:
            informer = Informer(self.client, resource, metadata_only=True)
            informer.add_index("namespace", _namespaces)
            self._passing[resource] = informer, self.tasks.start(informer.run(), f"informer {resource.plural}")
        return self._passing[resource][0]

    def has(self, resource: AnyResource) -> bool:
        """Whether an informer of a resource runs."""
        return resource in self.informers or resource in self._passing

    def forget(self, resource: AnyResource) -> None:
        """Stop the informer of a resource that is no longer served. Its handlers receive a deletion for every object."""
        informer, task = self._passing.pop(resource, (None, None))
        if informer is not None and task is not None:
            task.cancel()
            informer.clear()

    def events(self, component: str) -> EventRecorder:
        """The recorder of a component, such as `deployment-controller`."""
        if component not in self.recorders:
            self.recorders[component] = EventRecorder(self.client, component)
        return self.recorders[component]


class Controller(Protocol):
    """A controller. Its handlers fill `queue`, and `reconcile` establishes the desired state for one key."""

    queue: WorkQueue[Key]

    async def reconcile(self, key: Key) -> None:
        """Bring one object to its desired state. An exception is logged, and the key is retried."""


def key_of(obj: PartialObjectMetadata) -> Key:
    """(namespace, name); the namespace of a cluster-scoped object is empty."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def controller_of(obj: PartialObjectMetadata) -> OwnerReference | None:
    """The owner reference to the controller of the object."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return owner
    return None


def _namespaces(obj: PartialObjectMetadata) -> tuple[str, ...]:
    return (obj["metadata"].get("namespace", ""),)


def _controllers(obj: PartialObjectMetadata) -> tuple[str, ...]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner is not None else ()


def _orphans(obj: PartialObjectMetadata) -> tuple[str, ...]:
    """The namespace of an object without a controller."""
    return (obj["metadata"].get("namespace", ""),) if controller_of(obj) is None else ()


def owner_reference(owner: PartialObjectMetadata, resource: AnyResource) -> OwnerReference:
    """A reference to an owner that is the controller."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }

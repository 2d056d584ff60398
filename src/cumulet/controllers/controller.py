"""What a controller is, and what all of them share: informers, a recorder of events, a queue of keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from cumulet.common.kubernetes import Client, EventRecorder, Informer, Resource, WorkQueue
from cumulet.common.tasks import TaskSet

Object = dict[str, Any]
Key = tuple[str, str]


class Context:
    """The client, and one informer a resource, however many controllers look at it."""

    def __init__(self, client: Client, tasks: TaskSet, ca_file: Path | None = None) -> None:
        self.client = client
        #: The certificate of the cluster's authority, beside its key, where they are this installation's own.
        self.ca_file = ca_file
        #: Runs what controllers start later, such as the informers of resources that are new.
        self.tasks = tasks
        self.informers: dict[Resource, Informer] = {}
        self._passing: dict[Resource, tuple[Informer, asyncio.Task[None]]] = {}
        self.recorders: dict[str, EventRecorder] = {}

    def informer(self, resource: Resource) -> Informer:
        """The informer of a resource."""
        if resource not in self.informers:
            informer = self.informers[resource] = Informer(self.client, resource)
            informer.add_index("namespace", _namespaces)
            informer.add_index("controller", _controllers)
            informer.add_index("orphans", _orphans)
        return self.informers[resource]

    def passing_informer(self, resource: Resource) -> Informer:
        """The informer of a resource that may come and go, of metadata alone unless another controller has the whole.

        It runs from now on, until `forget`.
        """
        if resource in self.informers:
            return self.informers[resource]
        if resource not in self._passing:
            informer = Informer(self.client, resource, metadata_only=True)
            informer.add_index("namespace", _namespaces)
            self._passing[resource] = informer, self.tasks.start(informer.run(), f"informer {resource.plural}")
        return self._passing[resource][0]

    def has(self, resource: Resource) -> bool:
        """Whether an informer of a resource runs."""
        return resource in self.informers or resource in self._passing

    def forget(self, resource: Resource) -> None:
        """A resource is not served any more: stop its informer. To its handlers its objects are deleted."""
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
    """Its handlers fill `queue`; `reconcile` brings about what one key asks for."""

    queue: WorkQueue[Key]

    async def reconcile(self, key: Key) -> None:
        """Bring one object to what is wanted. What it raises is logged, and the key tried again."""


def key_of(obj: Object) -> Key:
    """(namespace, name)."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the object's controller."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            found: Object = owner
            return found
    return None


def _namespaces(obj: Object) -> tuple[str, ...]:
    return (obj["metadata"].get("namespace", ""),)


def _controllers(obj: Object) -> tuple[str, ...]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner is not None else ()


def _orphans(obj: Object) -> tuple[str, ...]:
    """The namespace of an object that nobody controls."""
    return (obj["metadata"].get("namespace", ""),) if controller_of(obj) is None else ()


def owner_reference(owner: Object, resource: Resource) -> Object:
    """A reference to an owner that controls."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }

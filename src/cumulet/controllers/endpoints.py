"""The endpoints of services, written as EndpointSlices and as the older Endpoints."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES
from cumulet.common.kubernetes.objects import Endpoints, EndpointSlice, ObjectMeta, Pod, Service
from cumulet.controllers import serving
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.owned import Owned
from cumulet.controllers.pods import is_ready
from cumulet.controllers.serving import Ports, Triggers, Whole, address_of

#: The most endpoints in one slice (upstream's `--max-endpoints-per-slice`).
PER_SLICE = 100


class EndpointsController:
    """The controller of endpoints and their slices."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._services = context.informer(SERVICES)
        self._pods = context.informer(PODS)
        self._slices = Owned(context, ENDPOINTSLICES, SERVICES)
        self._endpoints = context.informer(ENDPOINTS)
        self._triggers = Triggers()
        self._services.add_handler(self._service_changed)
        self._pods.add_handler(self._pod_changed)

    def _service_changed(self, change: str, service: Service, old: Service | None) -> None:
        if change == "DELETED":
            self._triggers.forget(service)
        self.queue.add(key_of(service))

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if old is not None and _matters(pod) == _matters(old) and change != "DELETED":
            return
        namespace = pod["metadata"]["namespace"]
        for service in self._services.indexed("namespace", namespace):
            if selector := service["spec"].get("selector"):
                labels = [item["metadata"].get("labels") or {} for item in (pod, old) if item is not None]
                if any(selector.items() <= each.items() for each in labels):
                    self.queue.add(key_of(service))

    async def reconcile(self, key: Key) -> None:
        """Write the endpoints of one service."""
        service = self._services.get(key[1], key[0])
        if service is None:
            await self._remove(key)  # the garbage collector deletes the slices
            return
        selector = service["spec"].get("selector")
        if not selector or service["metadata"].get("deletionTimestamp"):
            return  # another client manages the endpoints of a service without a selector
        pods = [
            pod
            for pod in self._pods.indexed("namespace", key[0])
            if selector.items() <= (pod["metadata"].get("labels") or {}).items() and serving.serves(pod)
        ]
        trigger = self._triggers.of(service, pods)
        await self._put_slices(service, pods, trigger)
        await self._put(service, serving.endpoints(service, pods), trigger)

    # Slices.

    async def _put_slices(self, service: Service, pods: list[Pod], trigger: str) -> None:
        """Write the necessary slices for each set of ports, and delete surplus slices."""
        slices = self._slices_of(service)
        for ports, some in (serving.by_ports(service, pods) or {(): []}).items():
            matching = [item for item in slices if (item.get("ports") or []) == serving.slice_ports(ports)]
            parts = [some[start : start + PER_SLICE] for start in range(0, len(some), PER_SLICE)] or [[]]
            for number, part in enumerate(parts):
                old = matching[number] if number < len(matching) else None
                await self._put_slice(service, old, ports, part, trigger)
            for used in matching[: len(parts)]:
                slices.remove(used)
        for surplus in slices:
            await self._slices.delete(service, surplus)

    async def _put_slice(
        self, service: Service, old: EndpointSlice | None, ports: Ports, pods: list[Pod], trigger: str
    ) -> None:
        labels, endpoints = serving.slice_labels(service), serving.slice_endpoints(service, pods)
        if old is None:
            metadata: ObjectMeta = {"generateName": f"{service['metadata']['name']}-", "labels": labels}
            if trigger:
                metadata["annotations"] = {serving.TRIGGER: trigger}
            desired: EndpointSlice = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}
            if ports:
                desired["ports"] = serving.slice_ports(ports)
            await self._create_slice(service, desired)
        elif (old.get("endpoints") or []) != endpoints or old["metadata"].get("labels") != labels:
            gone = {key: None for key in old["metadata"].get("labels") or {} if key not in labels}
            annotations = {serving.TRIGGER: trigger or None}
            patch = {"metadata": {"labels": {**labels, **gone}, "annotations": annotations}, "endpoints": endpoints}
            await self._slices.change(service, old, patch)

    def _slices_of(self, service: Service) -> list[EndpointSlice]:
        """The slices of a service that this controller manages, by name."""
        managed = [
            item
            for item in self._slices.of(service)
            if (item["metadata"].get("labels") or {}).get(serving.MANAGER_LABEL) == serving.MANAGER
        ]
        return sorted(managed, key=lambda item: item["metadata"]["name"])

    async def _create_slice(self, service: Service, desired: EndpointSlice) -> None:
        try:
            await self._slices.create(service, desired)
        except KubernetesError as error:
            # The namespace can be terminating.
            if error.reason not in ("Forbidden", "NotFound"):
                raise

    # Endpoints.

    async def _put(self, service: Service, whole: Whole, trigger: str) -> None:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        old = self._endpoints.get(name, namespace)
        annotations = {serving.TRIGGER: trigger or None, serving.OVER_CAPACITY: "truncated" if whole.over else None}
        if old is None:
            given = {key: value for key, value in annotations.items() if value}
            created: Endpoints = {
                "metadata": {"name": name, "namespace": namespace, "labels": whole.labels, "annotations": given}
            }
            if whole.subsets:
                created["subsets"] = whole.subsets
            try:
                await self._client.create(ENDPOINTS, created)
            except KubernetesError as error:
                # The namespace can be terminating. The watch delivers an object that was created just now.
                if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                    raise
            return
        if (old.get("subsets") or []) == whole.subsets and old["metadata"].get("labels") == whole.labels:
            return
        kept = {**(old["metadata"].get("annotations") or {}), **annotations}
        metadata: ObjectMeta = {
            **old["metadata"],
            "labels": whole.labels,
            "annotations": {key: value for key, value in kept.items() if value is not None},
        }
        changed: Endpoints = {"metadata": metadata, "subsets": whole.subsets}
        await self._client.update(ENDPOINTS, changed)

    async def _remove(self, key: Key) -> None:
        old = self._endpoints.get(key[1], key[0])
        if old is None:
            return
        labels = old["metadata"].get("labels") or {}
        if labels.get(serving.ENDPOINTS_MANAGER_LABEL) != serving.ENDPOINTS_MANAGER:
            return
        with suppress_stale():
            await self._client.delete(ENDPOINTS, key[1], key[0], uid=old["metadata"]["uid"])


def _matters(pod: Pod) -> tuple[object, ...]:
    """The fields of a pod that decide about endpoints."""
    metadata = pod["metadata"]
    return (
        address_of(pod),
        is_ready(pod),
        metadata.get("deletionTimestamp"),
        metadata.get("labels"),
        (pod.get("status") or {}).get("phase"),
    )

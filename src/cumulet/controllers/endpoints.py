"""End points of services: which pods answer for a service, as EndpointSlices and as the older Endpoints."""

from __future__ import annotations

from typing import Any

from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.owned import Owned
from cumulet.controllers.pods import is_ready

_NAME_LABEL = "kubernetes.io/service-name"
_MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
_MANAGER = "endpointslice-controller.k8s.io"


#: End points in one slice (upstream's `--max-endpoints-per-slice`).
PER_SLICE = 100
_MOST = 1000


class EndpointsController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._services = context.informer(SERVICES)
        self._pods = context.informer(PODS)
        self._slices = Owned(context, ENDPOINTSLICES, SERVICES)
        self._endpoints = context.informer(ENDPOINTS)
        self._services.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, change: str, pod: Object, old: Object | None) -> None:
        if old is not None and _matters(pod) == _matters(old) and change != "DELETED":
            return
        namespace = pod["metadata"]["namespace"]
        for service in self._services.indexed("namespace", namespace):
            if selector := service["spec"].get("selector"):
                labels = [item["metadata"].get("labels") or {} for item in (pod, old) if item is not None]
                if any(selector.items() <= found.items() for found in labels):
                    self.queue.add(key_of(service))

    async def reconcile(self, key: Key) -> None:
        """Write the end points of one service."""
        service = self._services.get(key[1], key[0])
        if service is None or service["metadata"].get("deletionTimestamp"):
            return  # what it owns is collected with it
        selector = service["spec"].get("selector")
        if not selector:
            return  # then its end points are somebody else's
        pods = [
            pod
            for pod in self._pods.indexed("namespace", key[0])
            if selector.items() <= (pod["metadata"].get("labels") or {}).items()
            and _address(pod)
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ]
        pods.sort(key=lambda pod: pod["metadata"]["name"])
        await self._put_slices(service, pods)
        await self._put(ENDPOINTS, self._endpoints.get(key[1], key[0]), _endpoints(service, pods))

    async def _put_slices(self, service: Object, pods: list[Object]) -> None:
        """As many slices as are needed, of which the last may be short; those that are too many go."""
        slices = self._slices_of(service)
        parts = [pods[start : start + PER_SLICE] for start in range(0, len(pods), PER_SLICE)] or [[]]
        for number, part in enumerate(parts):
            wanted = _slice(service, part, pods)
            if number >= len(slices):
                await self._make_slice(service, wanted)
            elif any(slices[number].get(name) != wanted.get(name) for name in ("endpoints", "ports")) or (
                slices[number]["metadata"].get("labels") != wanted["metadata"]["labels"]
            ):
                patch = {"metadata": {"labels": wanted["metadata"]["labels"]}, "endpoints": wanted["endpoints"]}
                await self._slices.change(service, slices[number], patch | {"ports": wanted.get("ports")})
        for surplus in slices[len(parts) :]:
            await self._slices.delete(service, surplus)

    def _slices_of(self, service: Object) -> list[Object]:
        """The slices of a service that are ours, by name."""
        found = [
            item
            for item in self._slices.of(service)
            if (item["metadata"].get("labels") or {}).get(_MANAGER_LABEL) == _MANAGER
        ]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    async def _make_slice(self, service: Object, wanted: Object) -> None:
        try:
            await self._slices.create(service, wanted)
        except KubernetesError as error:
            # Its namespace may be going.
            if error.reason not in ("Forbidden", "NotFound"):
                raise

    async def _put(self, resource: Resource, old: Object | None, wanted: Object) -> None:
        if old is None:
            try:
                await self._client.create(resource, wanted)
            except KubernetesError as error:
                # Its namespace may be going; one made a moment ago comes by the watch.
                if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                    raise
            return
        changed = {name: value for name, value in wanted.items() if name != "metadata" and value != old.get(name)}
        if not changed and all(name in wanted or name in ("metadata", "kind", "apiVersion") for name in old):
            return
        metadata = {**old["metadata"], "labels": wanted["metadata"]["labels"]}
        await self._client.update(resource, {**wanted, "metadata": metadata})


def _matters(pod: Object) -> tuple[Any, ...]:
    metadata = pod["metadata"]
    return (
        _address(pod),
        is_ready(pod),
        metadata.get("deletionTimestamp"),
        metadata.get("labels"),
        (pod.get("status") or {}).get("phase"),
    )


def _address(pod: Object) -> str:
    address: str = (pod.get("status") or {}).get("podIP") or ""
    return address


def _port(service_port: Object, pods: list[Object]) -> int | None:
    """The number of a target port; a name is looked up in the first pod that has it."""
    target = service_port.get("targetPort", service_port["port"])
    if isinstance(target, int):
        return target
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for port in container.get("ports") or ():
                if port.get("name") == target:
                    number: int = port["containerPort"]
                    return number
    return None


def _ports(service: Object, pods: list[Object]) -> list[Object]:
    found = []
    for port in service["spec"].get("ports") or ():
        number = _port(port, pods)
        if number is not None:
            found.append({"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")})
    return found


def _reference(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}


def _owner(service: Object) -> Object:
    metadata = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _slice(service: Object, pods: list[Object], everyone: list[Object]) -> Object:
    metadata = service["metadata"]
    always = service["spec"].get("publishNotReadyAddresses", False)
    endpoints = []
    for pod in pods:
        terminating = bool(pod["metadata"].get("deletionTimestamp"))
        serving = is_ready(pod)
        conditions = {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        }
        endpoints.append(
            {
                "addresses": [_address(pod)],
                "conditions": conditions,
                "nodeName": pod["spec"].get("nodeName", ""),
                "targetRef": _reference(pod),
            }
        )
    labels = {**(metadata.get("labels") or {}), _NAME_LABEL: metadata["name"], _MANAGER_LABEL: _MANAGER}
    wanted: Object = {
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "labels": labels,
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
    }
    if ports := _ports(service, everyone):
        wanted["ports"] = ports
    return wanted


def _endpoints(service: Object, pods: list[Object]) -> Object:
    metadata = service["metadata"]
    # Endpoints hold no more than this; the slices have them all.
    pods, over = pods[:_MOST], len(pods) > _MOST
    ready = [pod for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    waiting = [pod for pod in pods if not is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    subset: Object = {}
    for name, found in (("addresses", ready), ("notReadyAddresses", waiting)):
        if found:
            subset[name] = [
                {"ip": _address(pod), "nodeName": pod["spec"].get("nodeName", ""), "targetRef": _reference(pod)}
                for pod in found
            ]
    wanted: Object = {
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**(metadata.get("labels") or {}), "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
            "ownerReferences": [_owner(service)],
        }
    }
    if over:
        wanted["metadata"]["annotations"] = {"endpoints.kubernetes.io/over-capacity": "truncated"}
    if subset and (ports := _ports(service, pods)):
        wanted["subsets"] = [{**subset, "ports": [_unnamed(port) for port in ports]}]
    return wanted


def _unnamed(port: Object) -> Object:
    return {name: value for name, value in port.items() if name != "name" or value}

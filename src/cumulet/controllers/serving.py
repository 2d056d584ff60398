"""The endpoints of a service in the forms of EndpointSlice and of the older Endpoints (`endpointslice`, `endpoint`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cumulet.common.kubernetes.objects import (
    DiscoveryEndpointPort,
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    EndpointPort,
    EndpointSubset,
    ObjectReference,
    Pod,
    Service,
)
from cumulet.controllers.pods import is_ready, is_terminating, phase_of, ready_since

MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
ENDPOINTS_MANAGER_LABEL = "endpoints.kubernetes.io/managed-by"
ENDPOINTS_MANAGER = "endpoint-controller"
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"

NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
_RESERVED = (NAME_LABEL, MANAGER_LABEL, HEADLESS_LABEL)
#: The most addresses in one Endpoints object. Slices hold all of them.
_MOST = 1000

#: Name, number, protocol and application protocol of each port.
Ports = tuple[tuple[str, int, str, str], ...]


def address_of(pod: Pod) -> str:
    """The address of a pod, or empty."""
    return (pod.get("status") or {}).get("podIP") or ""


def serves(pod: Pod) -> bool:
    """Whether a pod is an endpoint, ready or not."""
    return bool(address_of(pod)) and phase_of(pod) not in ("Succeeded", "Failed")


def by_ports(service: Service, pods: Iterable[Pod]) -> dict[Ports, list[Pod]]:
    """The pods by their ports for the service. A named port can have another number in each pod."""
    groups: dict[Ports, list[Pod]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["name"]):
        groups.setdefault(_ports(service, pod), []).append(pod)
    return dict(sorted(groups.items(), reverse=True))


def slice_labels(service: Service) -> dict[str, str]:
    """The labels of a slice: those of the service, its name, and the manager."""
    labels = {key: value for key, value in _labels(service).items() if key not in _RESERVED}
    return {**labels, **_headless(service), NAME_LABEL: service["metadata"]["name"], MANAGER_LABEL: MANAGER}


def slice_endpoints(service: Service, pods: list[Pod]) -> list[Endpoint]:
    """`endpoints` of a slice."""
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoints: list[Endpoint] = []
    for pod in pods:
        serving, terminating = is_ready(pod), is_terminating(pod)
        conditions: EndpointConditions = {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        }
        endpoint: Endpoint = {"addresses": [address_of(pod)], "conditions": conditions}
        if hostname := _hostname(service, pod):
            endpoint["hostname"] = hostname
        if node := pod["spec"].get("nodeName"):
            endpoint["nodeName"] = node
        endpoint["targetRef"] = _reference(pod)
        endpoints.append(endpoint)
    return endpoints


def slice_ports(ports: Ports) -> list[DiscoveryEndpointPort]:
    """`ports` of a slice."""
    listed: list[DiscoveryEndpointPort] = []
    for name, number, protocol, app in ports:
        port: DiscoveryEndpointPort = {"name": name, "port": number, "protocol": protocol}
        if app:
            port["appProtocol"] = app
        listed.append(port)
    return listed


class Whole(NamedTuple):
    """The desired content of the Endpoints of a service."""

    subsets: list[EndpointSubset]
    labels: dict[str, str]
    #: Whether there are more endpoints than the object can hold.
    over: bool


def endpoints(service: Service, pods: list[Pod]) -> Whole:
    """The older form, with all pods in one object."""
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    pods = [pod for pod in pods if always or not is_terminating(pod)]
    subsets: list[EndpointSubset] = []
    for ports, some in _by_pods(service, pods[:_MOST]):
        ready = [pod for pod in some if always or is_ready(pod)]
        waiting = [pod for pod in some if not (always or is_ready(pod))]
        subset: EndpointSubset = {}
        if ready:
            subset["addresses"] = _addresses(service, ready)
        if waiting:
            subset["notReadyAddresses"] = _addresses(service, waiting)
        if ports:
            subset["ports"] = _subset_ports(ports)
        subsets.append(subset)
    labels = {**_labels(service), **_headless(service), ENDPOINTS_MANAGER_LABEL: ENDPOINTS_MANAGER}
    return Whole(subsets, labels, len(pods) > _MOST)


def _by_pods(service: Service, pods: list[Pod]) -> list[tuple[Ports, list[Pod]]]:
    """Group the ports that the same pods have (`endpoints.RepackSubsets`). A headless service can have no ports."""
    if not service["spec"].get("ports"):
        return [((), pods)] if pods else []
    by_port: dict[tuple[str, int, str, str], list[Pod]] = {}
    for pod in pods:
        for port in _ports(service, pod):
            by_port.setdefault(port, []).append(pod)
    groups: dict[tuple[str, ...], tuple[Ports, list[Pod]]] = {}
    for port, some in by_port.items():
        names = tuple(pod["metadata"]["name"] for pod in some)
        ports = groups[names][0] if names in groups else ()
        groups[names] = (*ports, port), some
    return sorted(groups.values(), key=lambda group: group[0])


class Triggers:
    """The times of the changes that affect the endpoints of services (`util.TriggerTimeTracker`)."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def of(self, service: Service, pods: Iterable[Pod]) -> str:
        """The earliest time of the changes since the last call, or empty."""
        uid, made = service["metadata"]["uid"], service["metadata"]["creationTimestamp"]
        times = {pod["metadata"]["name"]: ready_since(pod) for pod in pods}
        known = self._known.get(uid)
        self._known[uid] = made, times
        if known is None:
            return made
        before = known[1]
        return min((moment for name, moment in times.items() if moment > before.get(name, "")), default="")

    def forget(self, service: Service) -> None:
        """Drop the times of a service that is gone."""
        self._known.pop(service["metadata"]["uid"], None)


def _ports(service: Service, pod: Pod) -> Ports:
    ports: list[tuple[str, int, str, str]] = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _number(port.get("targetPort") or port["port"], protocol, pod)
        if number is not None:
            ports.append((port.get("name", ""), number, protocol, port.get("appProtocol", "")))
    return tuple(ports)


def _number(target: int | str, protocol: str, pod: Pod) -> int | None:
    """The number of a target port. A name is resolved with the container ports of the pod."""
    if isinstance(target, int):
        return target
    sidecars = [item for item in pod["spec"].get("initContainers") or () if item.get("restartPolicy") == "Always"]
    for container in (*pod["spec"]["containers"], *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                return port["containerPort"]
    return None


def _labels(service: Service) -> dict[str, str]:
    return service["metadata"].get("labels") or {}


def _headless(service: Service) -> dict[str, str]:
    return {HEADLESS_LABEL: ""} if service["spec"].get("clusterIP") in (None, "", "None") else {}


def _hostname(service: Service, pod: Pod) -> str:
    """The host name of a pod within the domain of the service, or empty."""
    spec = pod["spec"]
    return spec.get("hostname", "") if spec.get("subdomain") == service["metadata"]["name"] else ""


def _reference(pod: Pod) -> ObjectReference:
    metadata = pod["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}


def _addresses(service: Service, pods: list[Pod]) -> list[EndpointAddress]:
    addresses: list[EndpointAddress] = []
    for pod in pods:
        address: EndpointAddress = {"ip": address_of(pod)}
        if hostname := _hostname(service, pod):
            address["hostname"] = hostname
        if node := pod["spec"].get("nodeName"):
            address["nodeName"] = node
        address["targetRef"] = _reference(pod)
        addresses.append(address)
    return sorted(addresses, key=lambda address: address["ip"])


def _subset_ports(ports: Ports) -> list[EndpointPort]:
    listed: list[EndpointPort] = []
    for name, number, protocol, app in ports:
        port: EndpointPort = {"port": number, "protocol": protocol}
        if name:
            port["name"] = name
        if app:
            port["appProtocol"] = app
        listed.append(port)
    return listed

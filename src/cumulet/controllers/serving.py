"""What pods serve of a service, in the forms of EndpointSlice and of the older Endpoints (`endpointslice`, `endpoint`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cumulet.controllers.controller import Object
from cumulet.controllers.pods import is_ready, is_terminating, phase_of

MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
ENDPOINTS_MANAGER_LABEL = "endpoints.kubernetes.io/managed-by"
ENDPOINTS_MANAGER = "endpoint-controller"
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"

NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
_RESERVED = (NAME_LABEL, MANAGER_LABEL, HEADLESS_LABEL)
#: Endpoints hold no more addresses than this; the slices have them all.
_MOST = 1000

#: Name, number, protocol and application protocol of each port.
Ports = tuple[tuple[str, int, str, str], ...]


def address_of(pod: Object) -> str:
    """The pod's address, or nothing."""
    address: str = (pod.get("status") or {}).get("podIP") or ""
    return address


def serves(pod: Object) -> bool:
    """Whether a pod is an end point, ready or not."""
    return bool(address_of(pod)) and phase_of(pod) not in ("Succeeded", "Failed")


def by_ports(service: Object, pods: Iterable[Object]) -> dict[Ports, list[Object]]:
    """The pods by the ports that they have for the service: of ports that are named each may have others."""
    found: dict[Ports, list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        found.setdefault(_ports(service, pod), []).append(pod)
    return dict(sorted(found.items(), reverse=True))


def slice_labels(service: Object) -> dict[str, str]:
    """Those of the service, and whose slice it is."""
    labels = {key: value for key, value in _labels(service).items() if key not in _RESERVED}
    return {**labels, **_headless(service), NAME_LABEL: service["metadata"]["name"], MANAGER_LABEL: MANAGER}


def slice_endpoints(service: Object, pods: list[Object]) -> list[Object]:
    """`endpoints` of a slice."""
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    found = []
    for pod in pods:
        serving, terminating = is_ready(pod), is_terminating(pod)
        conditions = {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        }
        endpoint: Object = {"addresses": [address_of(pod)], "conditions": conditions}
        found.append({**endpoint, **_hostname(service, pod), **_where(pod)})
    return found


def slice_ports(ports: Ports) -> list[Object]:
    """`ports` of a slice."""
    return [
        {"name": name, "port": number, "protocol": protocol, **({"appProtocol": app} if app else {})}
        for name, number, protocol, app in ports
    ]


class Whole(NamedTuple):
    """What the Endpoints of a service should have."""

    subsets: list[Object]
    labels: dict[str, str]
    #: More end points than they can hold.
    over: bool


def endpoints(service: Object, pods: list[Object]) -> Whole:
    """The older form, of all pods."""
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    pods = [pod for pod in pods if always or not is_terminating(pod)]
    subsets: list[Object] = []
    for ports, some in _by_pods(service, pods[:_MOST]):
        ready = [pod for pod in some if always or is_ready(pod)]
        waiting = [pod for pod in some if not (always or is_ready(pod))]
        subset: Object = {}
        for name, part in (("addresses", ready), ("notReadyAddresses", waiting)):
            if part:
                addresses = [{"ip": address_of(pod), **_hostname(service, pod), **_where(pod)} for pod in part]
                subset[name] = sorted(addresses, key=lambda address: str(address["ip"]))
        if ports:
            subset["ports"] = [_without_empty_name(port) for port in slice_ports(ports)]
        subsets.append(subset)
    labels = {**_labels(service), **_headless(service), ENDPOINTS_MANAGER_LABEL: ENDPOINTS_MANAGER}
    return Whole(subsets, labels, len(pods) > _MOST)


def _by_pods(service: Object, pods: list[Object]) -> list[tuple[Ports, list[Object]]]:
    """Ports that the same pods have, together (`endpoints.RepackSubsets`); of a headless service there may be none."""
    if not service["spec"].get("ports"):
        return [((), pods)] if pods else []
    having: dict[tuple[str, int, str, str], list[Object]] = {}
    for pod in pods:
        for port in _ports(service, pod):
            having.setdefault(port, []).append(pod)
    groups: dict[tuple[str, ...], tuple[Ports, list[Object]]] = {}
    for port, some in having.items():
        names = tuple(str(pod["metadata"]["name"]) for pod in some)
        ports = groups[names][0] if names in groups else ()
        groups[names] = (*ports, port), some
    return sorted(groups.values(), key=lambda group: group[0])


class Triggers:
    """When that happened which changed a service's end points (`util.TriggerTimeTracker`)."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def of(self, service: Object, pods: Iterable[Object]) -> str:
        """The earliest time among what is new since the last call, or nothing."""
        uid, made = service["metadata"]["uid"], service["metadata"]["creationTimestamp"]
        times = {pod["metadata"]["name"]: _ready_since(pod) for pod in pods}
        known = self._known.get(uid)
        self._known[uid] = made, times
        if known is None:
            return str(made)
        before = known[1]
        return min((moment for name, moment in times.items() if moment > before.get(name, "")), default="")

    def forget(self, service: Object) -> None:
        """The service is gone."""
        self._known.pop(service["metadata"]["uid"], None)


def _ready_since(pod: Object) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            moment: str = condition.get("lastTransitionTime") or ""
            return moment
    return ""


def _ports(service: Object, pod: Object) -> Ports:
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _number(port.get("targetPort") or port["port"], protocol, pod)
        if number is not None:
            found.append((port.get("name", ""), number, protocol, port.get("appProtocol", "")))
    return tuple(found)


def _number(target: int | str, protocol: str, pod: Object) -> int | None:
    """A port that is named is looked up in the pod."""
    if isinstance(target, int):
        return target
    sidecars = [item for item in pod["spec"].get("initContainers") or () if item.get("restartPolicy") == "Always"]
    for container in (*pod["spec"]["containers"], *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                number: int = port["containerPort"]
                return number
    return None


def _labels(service: Object) -> dict[str, str]:
    return service["metadata"].get("labels") or {}


def _headless(service: Object) -> dict[str, str]:
    return {HEADLESS_LABEL: ""} if service["spec"].get("clusterIP") in (None, "", "None") else {}


def _hostname(service: Object, pod: Object) -> Object:
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return {"hostname": spec["hostname"]}
    return {}


def _where(pod: Object) -> Object:
    metadata = pod["metadata"]
    reference = {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    node = pod["spec"].get("nodeName")
    return {**({"nodeName": node} if node else {}), "targetRef": reference}


def _without_empty_name(port: Object) -> Object:
    return {key: value for key, value in port.items() if key != "name" or value}

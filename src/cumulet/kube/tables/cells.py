"""The cells of each kind, in the order of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age
from cumulet.kube.tables.common import NONE as _NONE
from cumulet.kube.tables.common import Cell, Cells, age_of, name_of, spec_of, status_of
from cumulet.kube.tables.network import NETWORK
from cumulet.kube.tables.pod import pod_cells
from cumulet.kube.tables.storage import STORAGE
from cumulet.kube.tables.workloads import WORKLOADS

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import NodeStatus


def generic_cells(obj: Object, now: datetime) -> list[Cell]:
    """Return name and creation time."""
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")]


def _config_map(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age_of(obj, now)]


def _event(obj: Object, now: datetime) -> list[Cell]:
    involved = obj.get("involvedObject") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    last = obj.get("lastTimestamp") or (obj.get("series") or {}).get("lastObservedTime") or first
    source = obj.get("source") or {}
    names = [
        source.get("component") or obj.get("reportingComponent", ""),
        source.get("host") or obj.get("reportingInstance", ""),
    ]
    series = obj.get("series")
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{fold(involved.get('kind', ''))}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        ", ".join(name for name in names if name),
        (obj.get("message") or "").strip(),
        age(first, now),
        (series.get("count") or 0) if series else obj.get("count") or 1,
        name_of(obj),
    ]


def _namespace(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), status_of(obj).get("phase", ""), age_of(obj, now)]


def _node(obj: Object, now: datetime) -> list[Cell]:
    status: NodeStatus = status_of(obj)
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    ready = {"True": "Ready", "False": "NotReady"}.get(
        conditions.get("Ready", ""), "NotReady" if conditions else "Unknown"
    )
    if spec_of(obj).get("unschedulable"):
        ready += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(
        {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}
        | {value for label, value in labels.items() if label == "kubernetes.io/role" and value}
    )
    addresses: dict[str, str] = {}
    for item in status.get("addresses") or ():
        addresses.setdefault(item["type"], item["address"])
    info: Mapping[str, str] = status_of(obj).get("nodeInfo") or {}
    kernel = info.get("kernelVersion") or "<unknown>"
    if architecture := info.get("architecture"):
        kernel += f" ({architecture})"
    return [
        name_of(obj),
        ready,
        ",".join(roles) or _NONE,
        age_of(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage") or "<unknown>",
        kernel,
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _secret(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), obj.get("type", ""), len(obj.get("data") or ()), age_of(obj, now)]


def _named(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), age_of(obj, now)]


def _lease(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), spec_of(obj).get("holderIdentity", ""), age_of(obj, now)]


def _role_binding(obj: Object, now: datetime) -> list[Cell]:
    role = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject["kind"] == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        subjects.setdefault(subject["kind"], []).append(name)
    return [
        name_of(obj),
        f"{role.get('kind')}/{role.get('name')}",
        age_of(obj, now),
        *(", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")),
    ]


def _priority_class(obj: Object, now: datetime) -> list[Cell]:
    return [
        name_of(obj),
        obj.get("value") or 0,
        bool(obj.get("globalDefault")),
        age_of(obj, now),
        obj.get("preemptionPolicy", ""),
    ]


def _api_service(obj: Object, now: datetime) -> list[Cell]:
    service = (obj.get("spec") or {}).get("service")
    shown = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    conditions = (obj.get("status") or {}).get("conditions") or ()
    condition = next((item for item in conditions if item.get("type") == "Available"), None)
    available = "Unknown" if condition is None else condition["status"]
    if condition is not None and condition["status"] != "True":
        available += f" ({condition.get('reason', '')})"
    return [name_of(obj), shown, available, age_of(obj, now)]


_RBAC = "rbac.authorization.k8s.io"
CELLS: dict[str, Cells] = {
    **WORKLOADS,
    **STORAGE,
    **NETWORK,
    "configmaps": _config_map,
    "events": _event,
    "namespaces": _namespace,
    "nodes": _node,
    "pods": pod_cells,
    "secrets": _secret,
    "serviceaccounts": _named,
    "leases.coordination.k8s.io": _lease,
    "apiservices.apiregistration.k8s.io": _api_service,
    f"clusterrolebindings.{_RBAC}": _role_binding,
    f"rolebindings.{_RBAC}": _role_binding,
    "priorityclasses.scheduling.k8s.io": _priority_class,
}

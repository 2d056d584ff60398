"""The cells of each kind, in the order of its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from cumulet.common import clock
from cumulet.kube.tables.pod import pod_cells
from cumulet.kube.tables.text import age, duration, join, selector_text

Object = dict[str, Any]
Cells = Callable[[Object, datetime], list[Any]]

_NONE = "<none>"


def generic_cells(obj: Object, now: datetime) -> list[Any]:
    """Name and creation time."""
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")]


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _spec(obj: Object) -> Object:
    return obj.get("spec") or {}


def _status(obj: Object) -> Object:
    return obj.get("status") or {}


def _template(obj: Object) -> list[Any]:
    """Containers and images of a workload."""
    containers = ((_spec(obj).get("template") or {}).get("spec") or {}).get("containers") or []
    return [join(item.get("name", "") for item in containers), join(item.get("image", "") for item in containers)]


def _config_map(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), str(len(obj.get("data") or ()) + len(obj.get("binaryData") or ())), _age(obj, now)]


def _endpoints(obj: Object, now: datetime) -> list[Any]:
    addresses = [
        f"{address.get('ip', '')}:{port.get('port', 0)}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [_name(obj), _few(addresses), _age(obj, now)]


def _few(items: list[str]) -> str:
    if not items:
        return _NONE
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more


def _event(obj: Object, now: datetime) -> list[Any]:
    involved = obj.get("involvedObject") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    last = obj.get("lastTimestamp") or (obj.get("series") or {}).get("lastObservedTime") or first
    source = obj.get("source") or {}
    names = [source.get("component") or obj.get("reportingComponent", ""), source.get("host", "")]
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        ", ".join(name for name in names if name),
        (obj.get("message") or "").strip(),
        age(first, now),
        str(obj.get("count") or 1),
        _name(obj),
    ]


def _namespace(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), _status(obj).get("phase", ""), _age(obj, now)]


def _node(obj: Object, now: datetime) -> list[Any]:
    conditions = {item["type"]: item["status"] for item in _status(obj).get("conditions") or ()}
    ready = {"True": "Ready", "False": "NotReady"}.get(
        conditions.get("Ready", ""), "NotReady" if conditions else "Unknown"
    )
    if _spec(obj).get("unschedulable"):
        ready += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(
        {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}
        | {value for label, value in labels.items() if label == "kubernetes.io/role" and value}
    )
    addresses: dict[str, str] = {}
    for item in _status(obj).get("addresses") or ():
        addresses.setdefault(item["type"], item["address"])
    info = _status(obj).get("nodeInfo") or {}
    kernel = info.get("kernelVersion") or "<unknown>"
    if architecture := info.get("architecture"):
        kernel += f" ({architecture})"
    return [
        _name(obj),
        ready,
        ",".join(roles) or _NONE,
        _age(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage") or "<unknown>",
        kernel,
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Iterable[str] | None) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in modes or ())


def _claim(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        _name(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName", "<unset>"),
        _age(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _volume(obj: Object, now: datetime) -> list[Any]:
    spec, claim = _spec(obj), _spec(obj).get("claimRef") or {}
    return [
        _name(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _status(obj).get("phase", ""),
        f"{claim.get('namespace')}/{claim.get('name')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName", "<unset>"),
        _status(obj).get("reason", ""),
        _age(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]


def _secret(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), obj.get("type", ""), str(len(obj.get("data") or ())), _age(obj, now)]


def _named(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), _age(obj, now)]


def _service(obj: Object, now: datetime) -> list[Any]:
    spec = _spec(obj)
    ports = [
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    ]
    return [
        _name(obj),
        spec.get("type", ""),
        spec.get("clusterIP") or _NONE if spec.get("type") != "ExternalName" else _NONE,
        _external(spec, _status(obj)),
        ",".join(ports) or _NONE,
        _age(obj, now),
        selector_text(spec.get("selector")),
    ]


def _external(spec: Object, status: Object) -> str:
    extra = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ExternalName":
            name: str = spec.get("externalName", "")
            return name
        case "LoadBalancer":
            ingress = (status.get("loadBalancer") or {}).get("ingress") or []
            found = [item.get("ip") or item.get("hostname") or "" for item in ingress] + extra
            return ",".join(dict.fromkeys(found)) or "<pending>"
    return ",".join(extra) or _NONE


def _revision(obj: Object, now: datetime) -> list[Any]:
    owner = next((item for item in obj["metadata"].get("ownerReferences") or () if item.get("controller")), None)
    kind = f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}" if owner else _NONE
    return [_name(obj), kind, str(obj.get("revision", 0)), _age(obj, now)]


def _daemon_set(obj: Object, now: datetime) -> list[Any]:
    status = _status(obj)
    counts = [
        status.get(name) or 0
        for name in (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        )
    ]
    nodes = ((_spec(obj).get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        _name(obj),
        *counts,
        selector_text(nodes),
        _age(obj, now),
        *_template(obj),
        selector_text(_spec(obj).get("selector")),
    ]


def _deployment(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    return [
        _name(obj),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 0)}",
        str(status.get("updatedReplicas") or 0),
        str(status.get("availableReplicas") or 0),
        _age(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _replica_set(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    return [
        _name(obj),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        _age(obj, now),
        *_template(obj),
        selector_text(spec.get("selector")),
    ]


def _stateful_set(obj: Object, now: datetime) -> list[Any]:
    ready = f"{_status(obj).get('readyReplicas') or 0}/{_spec(obj).get('replicas', 0)}"
    return [_name(obj), ready, _age(obj, now), *_template(obj)]


def _autoscaler(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    target = spec.get("scaleTargetRef") or {}
    current = {
        item["resource"]["name"]: item["resource"]
        for item in status.get("currentMetrics") or ()
        if "resource" in item
    }
    metrics = []
    for metric in spec.get("metrics") or ():
        resource = metric.get("resource") or {}
        wanted = (resource.get("target") or {}).get("averageUtilization")
        if wanted is not None:
            seen = (current.get(resource["name"], {}).get("current") or {}).get("averageUtilization")
            metrics.append(f"{resource['name']}: {f'{seen}%' if seen is not None else '<unknown>'}/{wanted}%")
    return [
        _name(obj),
        f"{target.get('kind')}/{target.get('name')}",
        ", ".join(metrics) or _NONE,
        str(spec.get("minReplicas", "<unset>")),
        str(spec.get("maxReplicas", "")),
        str(status.get("currentReplicas") or 0),
        _age(obj, now),
    ]


def _job(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    conditions = {item["type"] for item in status.get("conditions") or () if item.get("status") == "True"}
    text = next(
        (
            name
            for name in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
            if name in conditions
        ),
        "Running",
    )
    if obj["metadata"].get("deletionTimestamp"):
        text = "Terminating"
    wanted = spec.get("completions")
    parallelism = spec.get("parallelism") or 0
    completions = f"{status.get('succeeded') or 0}/" + (
        str(wanted) if wanted is not None else f"1 of {parallelism}" if parallelism > 1 else "1"
    )
    took = ""
    if start := status.get("startTime"):
        end = clock.parse(status["completionTime"]) if status.get("completionTime") else now
        took = duration((end - clock.parse(start)).total_seconds())
    return [_name(obj), text, completions, took, _age(obj, now), *_template(obj), selector_text(spec.get("selector"))]


def _cron_job(obj: Object, now: datetime) -> list[Any]:
    spec, status = _spec(obj), _status(obj)
    job = {"spec": (spec.get("jobTemplate") or {}).get("spec") or {}}
    last = status.get("lastScheduleTime")
    return [
        _name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or _NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        age(last, now) if last else _NONE,
        _age(obj, now),
        *_template(job),
        selector_text(job["spec"].get("selector")),
    ]


def _lease(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), _spec(obj).get("holderIdentity", ""), _age(obj, now)]


def _slice(obj: Object, now: datetime) -> list[Any]:
    ports = [str(port["port"]) for port in obj.get("ports") or () if port.get("port")]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        _name(obj),
        obj.get("addressType", ""),
        _few(ports) if ports else "<unset>",
        _few(addresses) if addresses else "<unset>",
        _age(obj, now),
    ]


def _ingress(obj: Object, now: datetime) -> list[Any]:
    spec = _spec(obj)
    hosts = [rule.get("host", "*") for rule in spec.get("rules") or ()]
    ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or []
    addresses = [item.get("ip") or item.get("hostname") or "" for item in ingress]
    ports = "80, 443" if spec.get("tls") else "80"
    return [
        _name(obj),
        spec.get("ingressClassName", _NONE),
        _few(hosts) if hosts else "*",
        ",".join(addresses),
        ports,
        _age(obj, now),
    ]


def _ingress_class(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), _spec(obj).get("controller", ""), _NONE, _age(obj, now)]


def _network_policy(obj: Object, now: datetime) -> list[Any]:
    return [_name(obj), selector_text(_spec(obj).get("podSelector")), _age(obj, now)]


def _budget(obj: Object, now: datetime) -> list[Any]:
    spec = _spec(obj)
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        _name(obj),
        "N/A" if least is None else str(least),
        "N/A" if most is None else str(most),
        _status(obj).get("disruptionsAllowed") or 0,
        _age(obj, now),
    ]


def _role_binding(obj: Object, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject["kind"] == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        subjects.setdefault(subject["kind"], []).append(name)
    return [
        _name(obj),
        f"{role.get('kind')}/{role.get('name')}",
        _age(obj, now),
        *(", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")),
    ]


def _priority_class(obj: Object, now: datetime) -> list[Any]:
    return [
        _name(obj),
        obj.get("value") or 0,
        bool(obj.get("globalDefault")),
        _age(obj, now),
        obj.get("preemptionPolicy", ""),
    ]


def _storage_class(obj: Object, now: datetime) -> list[Any]:
    name = _name(obj)
    if (obj["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    return [
        name,
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", ""),
        obj.get("volumeBindingMode", ""),
        "true" if obj.get("allowVolumeExpansion") else "false",
        _age(obj, now),
    ]


def _api_service(obj: Object, now: datetime) -> list[Any]:
    service = (obj.get("spec") or {}).get("service")
    shown = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    conditions = (obj.get("status") or {}).get("conditions") or ()
    found = next((item for item in conditions if item.get("type") == "Available"), None)
    available = "Unknown" if found is None else found["status"]
    if found is not None and found["status"] != "True":
        available += f" ({found.get('reason', '')})"
    return [_name(obj), shown, available, _age(obj, now)]


_RBAC = "rbac.authorization.k8s.io"
CELLS: dict[str, Cells] = {
    "configmaps": _config_map,
    "endpoints": _endpoints,
    "events": _event,
    "namespaces": _namespace,
    "nodes": _node,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "pods": pod_cells,
    "replicationcontrollers": _replica_set,
    "secrets": _secret,
    "serviceaccounts": _named,
    "services": _service,
    "controllerrevisions.apps": _revision,
    "daemonsets.apps": _daemon_set,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _stateful_set,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "cronjobs.batch": _cron_job,
    "jobs.batch": _job,
    "leases.coordination.k8s.io": _lease,
    "endpointslices.discovery.k8s.io": _slice,
    "ingresses.networking.k8s.io": _ingress,
    "ingressclasses.networking.k8s.io": _ingress_class,
    "networkpolicies.networking.k8s.io": _network_policy,
    "poddisruptionbudgets.policy": _budget,
    "apiservices.apiregistration.k8s.io": _api_service,
    f"clusterrolebindings.{_RBAC}": _role_binding,
    f"rolebindings.{_RBAC}": _role_binding,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "storageclasses.storage.k8s.io": _storage_class,
}

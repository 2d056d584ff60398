"""Validation of namespaces, nodes, ingresses, autoscalers, roles, disruption budgets and priority classes."""

from __future__ import annotations

import re

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.name_formats import SUBDOMAIN
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.addresses import is_network, parsed
from cumulet.kube.schema.validation.field_errors import Causes, duplicate, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.metadata import finalizer_name, label_key, labels, standard_finalizer
from cumulet.kube.schema.validation.resources import amount

_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_NETWORK = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_RBAC = "rbac.authorization.k8s.io"


def namespace(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a namespace."""
    causes: list[Cause] = []
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        causes += finalizer_name(name, "spec.finalizers")
        if name != "kubernetes":
            causes += standard_finalizer(name, "spec.finalizers")
    return causes


def node(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a node, or an update of one."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        where = f"metadata.taints[{index}]"  # upstream's name for this path
        causes += label_key(taint.get("key", ""), f"{where}.key")
        causes += labels({"x": taint.get("value") or ""}, f"{where}.value")
        effect = taint.get("effect", "")
        if not effect:
            causes.append(required(f"{where}.effect"))
        elif effect not in _EFFECTS:
            causes.append(unsupported(f"{where}.effect", effect, _EFFECTS))
        if (taint.get("key", ""), effect) in seen:
            why = {"key": taint.get("key", ""), "effect": effect}
            causes.append(
                Cause(
                    where,
                    "FieldValueDuplicate",
                    f"{duplicate(where, why).message}: taints must be unique by key and effect pair",
                )
            )
        seen.add((taint.get("key", ""), effect))
    for part in ("capacity", "allocatable"):
        for name, value in ((obj.get("status") or {}).get(part) or {}).items():
            causes += amount(name, value, f"status.{part}.{name}")
    for index, block in enumerate(spec.get("podCIDRs") or ()):
        if not is_network(block):
            causes.append(invalid(f"spec.podCIDRs[{index}]", block, _NETWORK))
    if old is not None:
        before = old.get("spec") or {}
        if before.get("providerID") and spec.get("providerID") != before["providerID"]:
            causes.append(
                forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid')
            )
        if before.get("podCIDR") and spec.get("podCIDR") != before["podCIDR"]:
            causes.append(forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'))
    return causes


def ingress(obj: Object, old: Object | None) -> list[Cause]:
    """Validate an ingress."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(invalid("spec", [], "either `defaultBackend` or `rules` must be specified"))
    if (backend := spec.get("defaultBackend")) is not None:
        causes += _backend(backend, "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        where = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host and parsed(host) is not None:
            causes.append(invalid(f"{where}.host", host, "must be a DNS name, not an IP address"))
        elif host and not re.fullmatch(rf"(\*\.)?{SUBDOMAIN}", host):
            causes.append(invalid(f"{where}.host", host, name_formats.dns_subdomain(host)[0]))
        http = rule.get("http")
        if http is None:
            continue
        if not http.get("paths"):
            causes.append(required(f"{where}.http.paths"))
        for number, path in enumerate(http.get("paths") or ()):
            causes += _path(path, f"{where}.http.paths[{number}]")
    return causes


def _path(path: Object, field: str) -> Causes:
    kinds = ("Exact", "ImplementationSpecific", "Prefix")
    kind, text = path.get("pathType"), path.get("path", "")
    if kind is None:
        yield required(f"{field}.pathType", "pathType must be specified")
    elif kind not in kinds:
        yield unsupported(f"{field}.pathType", kind, kinds)
    elif kind != "ImplementationSpecific":
        if not text.startswith("/"):
            yield invalid(f"{field}.path", text, "must be an absolute path")
        for bad in ("//", "/./", "/../", "%2f", "%2F"):
            if bad in text:
                yield invalid(f"{field}.path", text, f"must not contain '{bad}'")
    elif text and not text.startswith("/"):
        yield invalid(f"{field}.path", text, "must be an absolute path")
    yield from _backend(path.get("backend") or {}, f"{field}.backend")


def _backend(backend: Object, field: str) -> Causes:
    service, resource = backend.get("service"), backend.get("resource")
    if service is None and resource is None:
        yield required(field, "cannot be nil")
    elif service is not None and resource is not None:
        yield invalid(field, "", "cannot set both resource and service backends")
    elif service is not None:
        if not service.get("name"):
            yield required(f"{field}.service.name")
        port = service.get("port") or {}
        number, name = port.get("number"), port.get("name")
        if not number and not name:
            yield required(field, "port name or number is required")
        elif number and name:
            yield invalid(field, "", "cannot set both port name & port number")
        elif number and not 0 < number < 65536:
            yield invalid(f"{field}.service.port.number", number, "must be between 1 and 65535, inclusive")


def autoscaler(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a horizontal pod autoscaler."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if least < 1:
        causes.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    elif most < least:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    for key in ("kind", "name"):
        if not target.get(key):
            causes.append(required(f"spec.scaleTargetRef.{key}"))
    for index, metric in enumerate(spec.get("metrics") or ()):
        causes += _metric(metric, f"spec.metrics[{index}]")
    return causes


def _metric(metric: Object, field: str) -> Causes:
    sources = {
        "ContainerResource": "containerResource",
        "External": "external",
        "Object": "object",
        "Pods": "pods",
        "Resource": "resource",
    }
    kind = metric.get("type", "")
    if not kind:
        yield required(f"{field}.type", "must specify a metric source type")
        return
    if kind not in sources:
        yield unsupported(f"{field}.type", kind, tuple(sources))
        return
    source = metric.get(sources[kind])
    if source is None:
        yield required(f"{field}.{sources[kind]}", "must populate information for the given metric source")
        return
    target = source.get("target") or {}
    where = f"{field}.{sources[kind]}.target"
    if "Resource" in kind and not source.get("name"):
        yield required(f"{field}.{sources[kind]}.name", "must specify a resource name")
    if not target.get("type"):
        yield required(f"{where}.type", "must specify a metric target type")
    elif target["type"] not in ("AverageValue", "Utilization", "Value"):
        yield unsupported(f"{where}.type", target["type"], ("AverageValue", "Utilization", "Value"))
    if (share := target.get("averageUtilization")) is not None and share < 1:
        yield invalid(f"{where}.averageUtilization", share, "must be greater than 0")


def role(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a role or cluster role."""
    causes: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{where}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if rule.get("resources") or rule.get("apiGroups") or rule.get("resourceNames"):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], why))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{where}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{where}.resources", "resource rules must supply at least one resource"))
    return causes


def role_binding(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a role binding, or an update of one."""
    reference = obj.get("roleRef") or {}
    causes: list[Cause] = []
    if reference.get("apiGroup") != _RBAC:
        causes.append(unsupported("roleRef.apiGroup", reference.get("apiGroup", ""), (_RBAC,)))
    if reference.get("kind") not in ("Role", "ClusterRole"):
        causes.append(unsupported("roleRef.kind", reference.get("kind", ""), ("ClusterRole", "Role")))
    if not reference.get("name"):
        causes.append(required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        where = f"subjects[{index}]"
        if not subject.get("name"):
            causes.append(required(f"{where}.name"))
        kind = subject.get("kind", "")
        if kind not in ("Group", "ServiceAccount", "User"):
            causes.append(unsupported(f"{where}.kind", kind, ("ServiceAccount", "User", "Group")))
        elif kind == "ServiceAccount" and not subject.get("namespace") and not obj["metadata"].get("namespace"):
            causes.append(required(f"{where}.namespace"))
    if old is not None and reference != old.get("roleRef"):
        causes.append(invalid("roleRef", reference, "cannot change roleRef"))
    return causes


def disruption_budget(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a pod disruption budget."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        value = {key: spec[key] for key in ("minAvailable", "maxUnavailable")}
        causes.append(invalid("spec", value, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        causes += _share(spec.get(key), f"spec.{key}")
    return causes


def _share(value: int | str | None, field: str) -> Causes:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}%", value):
        yield invalid(field, value, "a valid percent string must be a numeric string followed by an ending '%'")
    elif isinstance(value, str) and int(value[:-1]) > 100:
        yield invalid(field, value, "must not be greater than 100%")
    elif isinstance(value, int) and value < 0:
        yield invalid(field, value, "must be greater than or equal to 0")


_SYSTEM_CLASSES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def priority_class(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a priority class, or an update of one."""
    causes: list[Cause] = []
    name, value = obj["metadata"].get("name", ""), obj.get("value") or 0
    if name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only. error: "
        if name not in _SYSTEM_CLASSES:
            causes.append(forbidden("metadata.name", f"{why}{name} is not a known system priority class"))
        elif value != _SYSTEM_CLASSES[name]:
            why += f"value of {name} PriorityClass must be {_SYSTEM_CLASSES[name]}"
            causes.append(forbidden("metadata.name", why))
    elif value > 1_000_000_000:
        causes.append(forbidden("value", "maximum allowed value of a user defined priority is 1000000000"))
    if old is not None and value != (old.get("value") or 0):
        causes.append(forbidden("value", "may not be changed in an update."))
    if obj.get("preemptionPolicy") not in (None, "Never", "PreemptLowerPriority"):
        causes.append(unsupported("preemptionPolicy", obj["preemptionPolicy"], ("Never", "PreemptLowerPriority")))
    elif old is not None and obj.get("preemptionPolicy") != old.get("preemptionPolicy"):
        causes.append(invalid("preemptionPolicy", obj.get("preemptionPolicy"), "field is immutable"))
    return causes

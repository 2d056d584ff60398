"""Validation of updates of pods: spec, ephemeral containers, resources and status."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.qos import qos_class
from cumulet.kube.schema.validation.addresses import address, is_dual_stack
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required
from cumulet.kube.schema.validation.placement import tolerations
from cumulet.kube.schema.validation.pods import pod_and_spec

_MAX_INT32 = 2**31 - 1
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_SYSTEM_CONDITIONS = ("Initialized", "PodScheduled", "Ready")
_NODE_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"
_RESIZED = ("cpu", "memory")


def pod_update(obj: Object, old: Object) -> list[Cause]:
    """Validate an update of a pod."""
    return [*pod_and_spec(obj), *_update(obj.get("spec") or {}, old.get("spec") or {})]


def _update(spec: Object, old: Object) -> Causes:
    for key in ("containers", "initContainers"):
        new = spec.get(key) or []
        if len(new) != len(old.get(key) or ()):
            yield forbidden(f"spec.{key}", "pod updates may not add or remove containers")
            return
        for index, container in enumerate(new):
            image = container.get("image", "")
            if not image:
                yield required(f"spec.{key}[{index}].image")
            if image.strip() != image:
                why = "must not have leading or trailing whitespace"
                yield invalid(f"spec.{key}[{index}].image", image, why)
    deadline, before = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if deadline is not None:
        if not 0 <= deadline <= _MAX_INT32:
            why = "must be between 0 and 2147483647, inclusive"
            yield invalid("spec.activeDeadlineSeconds", deadline, why)
            return
        if before is not None and before < deadline:
            why = "must be less than or equal to previous value"
            yield invalid("spec.activeDeadlineSeconds", deadline, why)
            return
    elif before is not None:
        why = "must not update from a positive integer to nil value"
        yield invalid("spec.activeDeadlineSeconds", None, why)
    yield from _added_tolerations(spec.get("tolerations") or [], old.get("tolerations") or [])
    yield from _removed_gates(spec.get("schedulingGates") or [], old.get("schedulingGates") or [])
    if spec != old:
        yield from _fixed(spec, old)


def _added_tolerations(new: list[Object], old: list[Object]) -> Causes:
    def but_seconds(toleration: Object) -> Object:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    there = [but_seconds(toleration) for toleration in new]
    if any(but_seconds(toleration) not in there for toleration in old):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        return
    if new != old:
        yield from tolerations(new, "spec.tolerations")


def _removed_gates(new: list[Object], old: list[Object]) -> Causes:
    names = {gate.get("name") for gate in old}
    for index, gate in enumerate(new):
        if gate.get("name") not in names:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            yield forbidden(f"spec.schedulingGates[{index}].name", why)


def _fixed(spec: Object, old: Object) -> Causes:
    """Validate that the immutable fields of a spec stay the same. A pod with scheduling gates can still change its placement."""
    kept = {**spec}
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations", "ephemeralContainers"):
        _as_before(kept, old, key)
    for key in ("containers", "initContainers"):
        if key in kept:
            pairs = zip(kept[key], old.get(key) or (), strict=True)
            kept[key] = [{**new, "image": container.get("image")} for new, container in pairs]
    if old.get("terminationGracePeriodSeconds", 0) < 0 and kept.get("terminationGracePeriodSeconds") == 1:
        _as_before(kept, old, "terminationGracePeriodSeconds")
    if old.get("schedulingGates"):
        wanted, had = kept.get("nodeSelector") or {}, old.get("nodeSelector") or {}
        if wanted != had:
            if any(wanted.get(key) != value for key, value in had.items()):
                why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
                yield invalid("spec.nodeSelector", wanted, why)
            _as_before(kept, old, "nodeSelector")
        yield from _node_affinity(kept, old)
    if kept != old:
        yield forbidden("spec", _MUTABLE)


def _as_before(spec: Object, old: Object, key: str) -> None:
    if key in old:
        spec[key] = old[key]
    else:
        spec.pop(key, None)


def _node_affinity(spec: Object, old: Object) -> Causes:
    new = (spec.get("affinity") or {}).get("nodeAffinity")
    before = (old.get("affinity") or {}).get("nodeAffinity")
    if new == before:
        return
    where = f"spec.affinity.nodeAffinity.{_NODE_AFFINITY}.nodeSelectorTerms"
    had: list[Object] = ((before or {}).get(_NODE_AFFINITY) or {}).get("nodeSelectorTerms") or []
    terms: list[Object] = ((new or {}).get(_NODE_AFFINITY) or {}).get("nodeSelectorTerms") or []
    if had and len(had) != len(terms):
        yield invalid(where, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
    elif had:
        for index, (term, was) in enumerate(zip(terms, had, strict=True)):
            if not _only_adds(term, was):
                why = "only additions are allowed (no mutations or deletions)"
                yield invalid(f"{where}[{index}]", term, why)
    affinity = {key: value for key, value in (spec.get("affinity") or {}).items() if key != "nodeAffinity"}
    if before is not None:
        affinity["nodeAffinity"] = before
    if affinity or "affinity" in old:
        spec["affinity"] = affinity
    else:
        spec.pop("affinity", None)


def _only_adds(term: Object, old: Object) -> bool:
    keys = ("matchExpressions", "matchFields")
    if not any(old.get(key) for key in keys):
        return not any(term.get(key) for key in keys)
    return all((term.get(key) or [])[: len(old.get(key) or ())] == (old.get(key) or []) for key in keys)


def ephemeral_containers(obj: Object, old: Object) -> list[Cause]:
    """Validate an update of a pod's ephemeral containers, which can be added but not changed."""
    field = "spec.ephemeralContainers"
    causes = pod_and_spec(obj)
    by_name = {added.get("name"): added for added in obj["spec"].get("ephemeralContainers") or ()}
    for kept in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = kept["name"]
        if name not in by_name:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif by_name[name] != kept:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be changed\n'))
    return causes


def resize(obj: Object, old: Object) -> list[Cause]:
    """Validate a resize of a pod's containers."""
    spec, before = obj["spec"], old.get("spec") or {}
    causes = pod_and_spec(obj)
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    if qos_class(before) != qos_class(spec):
        shown = (obj.get("status") or {}).get("qosClass", "")
        causes.append(invalid("spec", shown, "Pod QOS Class may not change as a result of resizing"))
    statuses = (old.get("status") or {}).get("containerStatuses") or ()
    running = next((item for item in statuses if "running" in (item.get("state") or {})), None)
    if running is not None and "resources" not in running:
        causes.append(forbidden("spec", "Pod running on node without support for resize"))
    for key in ("initContainers", "containers"):
        for index, (new, was) in enumerate(zip(spec.get(key) or (), before.get(key) or (), strict=False)):
            if key == "containers" or new.get("restartPolicy") == "Always":
                causes += _removed(new, was, f"spec.{key}[{index}].resources")
    for new, was in zip(spec.get("containers") or (), before.get("containers") or (), strict=False):
        if _but_resized(new) != _but_resized(was):
            causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    for index, (new, was) in enumerate(
        zip(spec.get("initContainers") or (), before.get("initContainers") or (), strict=False)
    ):
        if new.get("restartPolicy") == "Always":
            if _but_resized(new) != _but_resized(was):
                why = "only cpu and memory resources for init or sidecar containers are mutable"
                causes.append(forbidden(f"spec.initContainers[{index}]", why))
        elif new != was:
            why = "resources for non-sidecar init containers are immutable"
            causes.append(forbidden("spec", why))
    return causes


def _removed(new: Object, old: Object, field: str) -> Causes:
    for kind, word in (("requests", "requests"), ("limits", "limits")):
        had = (old.get("resources") or {}).get(kind) or {}
        if had.keys() - ((new.get("resources") or {}).get(kind) or {}).keys():
            yield forbidden(f"{field}.{kind}", f"resource {word} cannot be removed")


def _but_resized(container: Object) -> Object:
    resources = container.get("resources") or {}
    left = {
        kind: {name: value for name, value in (resources.get(kind) or {}).items() if name not in _RESIZED}
        for kind in ("limits", "requests")
    }
    return {**container, "resources": {**left, "claims": resources.get("claims") or []}}


def pod_status(obj: Object, old: Object) -> list[Cause]:
    """Validate an update of a pod's status."""
    return list(_status(obj.get("status") or {}, old.get("status") or {}, obj.get("spec") or {}))


def _status(status: Object, old: Object, spec: Object) -> Causes:
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type", "")
        if kind not in _SYSTEM_CONDITIONS:
            yield from all_invalid(f"status.conditions[{index}].Type", kind, name_formats.qualified_name(kind))
    name = status.get("nominatedNodeName")
    if name and name != old.get("nominatedNodeName"):
        yield from all_invalid("status.nominatedNodeName", name, name_formats.dns_subdomain(name))
    if status.get("qosClass", "") != old.get("qosClass", ""):
        yield invalid("status.qosClass", status.get("qosClass", ""), name_formats.IMMUTABLE)
    policy = spec.get("restartPolicy")
    for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        yield from _ended(status.get(key) or [], old.get(key) or [], policy, spec, key)
    addresses = [item.get("ip", "") for item in status.get("podIPs") or ()]
    known = [item.get("ip", "") for item in old.get("podIPs") or ()]
    yield from _addresses(addresses, known, status.get("podIPs") or [], "status.podIPs")
    if hosts := [item.get("ip", "") for item in status.get("hostIPs") or ()]:
        if status.get("hostIP", "") != hosts[0]:
            yield invalid("status.hostIPs[0].ip", hosts[0], "must be equal to `hostIP`")
        known = [item.get("ip", "") for item in old.get("hostIPs") or ()]
        yield from _addresses(hosts, known, status.get("hostIPs") or [], "status.hostIPs")


def _addresses(texts: list[str], known: list[str], whole: list[Object], field: str) -> Causes:
    for index, text in enumerate(texts):
        yield from address(text, f"{field}[{index}]", known)
    if len(texts) > 1 and (len(texts) > 2 or not is_dual_stack(texts)):
        shown = [{"IP": item.get("ip", "")} for item in whole]
        yield invalid(field, shown, "may specify no more than one IP for each IP family")


def _ended(new: Iterable[Object], old: Iterable[Object], policy: str | None, spec: Object, key: str) -> Causes:
    """Validate that a container that terminated, and must not restart, stays terminated."""
    by_name = {status.get("name"): status for status in new}
    kinds = {"containerStatuses": "containers", "initContainerStatuses": "initContainers"}
    specs = {item.get("name"): item for item in spec.get(kinds.get(key, "")) or ()}
    for index, status in enumerate(old):
        ended = (status.get("state") or {}).get("terminated")
        found = by_name.get(status.get("name"))
        if ended is None or found is None or "terminated" in (found.get("state") or {}):
            continue
        container = specs.get(status.get("name")) or {}
        if key != "ephemeralContainerStatuses" and _restarts(container, policy, ended.get("exitCode", 0)):
            continue
        yield forbidden(f"status.{key}[{index}].state", "may not be transitioned to non-terminated state")


def _restarts(container: Object, policy: str | None, code: int) -> bool:
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return True
    wanted = container.get("restartPolicy") or policy
    return wanted == "Always" or (wanted == "OnFailure" and code != 0)

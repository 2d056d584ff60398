"""Pods, and the pods that workloads make."""

from __future__ import annotations

import re

from cumulet.kube.schema.validation.causes import (
    ADDRESS_MESSAGE,
    LABEL_MESSAGE,
    SUBDOMAIN,
    SUBDOMAIN_MESSAGE,
    Causes,
    Object,
    duplicate,
    forbidden,
    invalid,
    is_address,
    is_label,
    labels,
    required,
    unsupported,
)
from cumulet.kube.schema.validation.containers import container, init_container, relative_path
from cumulet.kube.schema.validation.placement import affinity, spread, toleration
from cumulet.kube.status import Cause

_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")

_POD_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a pod, or with its change."""
    spec = obj.get("spec") or {}
    if old is not None:
        return _pod_update(spec, old.get("spec") or {})
    return list(pod_spec(spec, "spec"))


def _pod_update(spec: Object, old: Object) -> list[Cause]:
    """Images, deadlines and further tolerations may change; the scheduler's binding is not an update."""

    def fixed(of: Object) -> Object:
        kept = {
            key: value
            for key, value in of.items()
            if key not in ("activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates")
        }
        for key in ("containers", "initContainers"):
            if key in kept:
                kept[key] = [
                    {name: value for name, value in container.items() if name != "image"} for container in kept[key]
                ]
        return kept

    tolerations = spec.get("tolerations") or []
    if fixed(spec) != fixed(old) or any(item not in tolerations for item in old.get("tolerations") or ()):
        return [forbidden("spec", _POD_MUTABLE)]
    return []


def pod_spec(spec: Object, field: str) -> Causes:
    """What is wrong with the spec of a pod at a path."""
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        where = f"{field}.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{where}.name")
        elif len(name) > 63 or not is_label(name):
            yield invalid(f"{where}.name", name, LABEL_MESSAGE)
        elif name in volumes:
            yield duplicate(f"{where}.name", name)
        volumes.add(name)
        if len([key for key in volume if key != "name"]) > 1:
            yield forbidden(where, "may not specify more than 1 volume type")
        yield from _volume(volume, where)
    names: set[str] = set()
    for index, init in enumerate(spec.get("initContainers") or ()):
        yield from container(init, f"{field}.initContainers[{index}]", names, volumes)
        yield from init_container(init, f"{field}.initContainers[{index}]")
    if not spec.get("containers"):
        yield required(f"{field}.containers")
    for index, main in enumerate(spec.get("containers") or ()):
        yield from container(main, f"{field}.containers[{index}]", names, volumes)
    policy = spec.get("restartPolicy", "")
    if policy not in ("Always", "OnFailure", "Never"):
        yield unsupported(f"{field}.restartPolicy", policy, ("Always", "OnFailure", "Never"))
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        yield invalid(f"{field}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    yield from labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    for index, tolerated in enumerate(spec.get("tolerations") or ()):
        yield from toleration(tolerated, f"{field}.tolerations[{index}]")
    yield from affinity(spec.get("affinity") or {}, f"{field}.affinity")
    yield from spread(spec.get("topologySpreadConstraints") or [], f"{field}.topologySpreadConstraints")
    yield from _names(spec, field)
    policy = spec.get("dnsPolicy")
    if policy not in _DNS:
        yield unsupported(f"{field}.dnsPolicy", policy or "", _DNS)
    elif policy == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        yield required(f"{field}.dnsConfig", f"must provide `dnsConfig` when `dnsPolicy` is {policy}")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        why = "must be between 1 and 2147483647, inclusive"
        yield invalid(f"{field}.activeDeadlineSeconds", deadline, why)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        if not is_address(alias.get("ip", "")):
            yield invalid(f"{field}.hostAliases[{index}].ip", alias.get("ip", ""), ADDRESS_MESSAGE)


def _names(spec: Object, field: str) -> Causes:
    for key in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        name = spec.get(key)
        if name and (len(name) > 253 or not re.fullmatch(SUBDOMAIN, name)):
            yield invalid(f"{field}.{key}", name, SUBDOMAIN_MESSAGE)
    for key in ("hostname", "subdomain"):
        name = spec.get(key)
        if name and (len(name) > 63 or not is_label(name)):
            yield invalid(f"{field}.{key}", name, LABEL_MESSAGE)


def _volume(volume: Object, field: str) -> Causes:
    """What a source of a volume cannot do without."""
    for kind, key in (
        ("secret", "secretName"),
        ("configMap", "name"),
        ("persistentVolumeClaim", "claimName"),
        ("hostPath", "path"),
        ("azureFile", "secretName"),
        ("azureFile", "shareName"),
        ("nfs", "server"),
        ("nfs", "path"),
        ("csi", "driver"),
    ):
        if kind in volume and not volume[kind].get(key):
            yield required(f"{field}.{kind}.{key}")
    if ".." in (volume.get("hostPath") or {}).get("path", "").split("/"):
        yield invalid(f"{field}.hostPath.path", volume["hostPath"]["path"], "must not contain '..'")
    for kind in ("secret", "configMap"):
        for index, item in enumerate((volume.get(kind) or {}).get("items") or ()):
            where = f"{field}.{kind}.items[{index}]"
            for key in ("key", "path"):
                if not item.get(key):
                    yield required(f"{where}.{key}")
            yield from relative_path(item.get("path", ""), f"{where}.path")


_EPHEMERAL_FIELDS = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "restartPolicy",
    "resizePolicy",
)


def ephemeral_containers(obj: Object, old: Object) -> list[Cause]:
    """What is wrong with a change of a pod's ephemeral containers: they are added, and stay as they are."""
    spec, field = obj["spec"], "spec.ephemeralContainers"
    causes: list[Cause] = []
    names = {item.get("name", "") for key in ("containers", "initContainers") for item in spec.get(key) or ()}
    volumes = {volume.get("name", "") for volume in spec.get("volumes") or ()}
    found = spec.get("ephemeralContainers") or []
    for index, added in enumerate(found):
        where = f"{field}[{index}]"
        causes += container(added, where, names, volumes)
        target = added.get("targetContainerName")
        if target and target not in {item.get("name") for item in spec.get("containers") or ()}:
            causes.append(Cause(f"{where}.targetContainerName", "FieldValueNotFound", f'Not found: "{target}"'))
        for key in _EPHEMERAL_FIELDS:
            if added.get(key):
                causes.append(forbidden(f"{where}.{key}", "cannot be set for an Ephemeral Container"))
    by_name = {added.get("name"): added for added in found}
    for kept in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = kept["name"]
        if name not in by_name:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be removed'))
        elif by_name[name] != kept:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be changed'))
    return causes

"""Validation of pods and pod templates."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import msgspec

from cumulet.common.ascii import raised
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.pod_fingerprint import likeness
from cumulet.kube.schema.validation.addresses import address
from cumulet.kube.schema.validation.containers import (
    Surroundings,
    common,
    containers,
    image_without_space,
    init_containers,
)
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    not_found,
    required,
    too_long,
    unsupported,
)
from cumulet.kube.schema.validation.metadata import annotation_map, labels
from cumulet.kube.schema.validation.placement import affinity, spread, tolerations
from cumulet.kube.schema.validation.resources import container_resources, pod_resources
from cumulet.kube.schema.validation.security import (
    all_containers,
    host_processes,
    host_users,
    operating_system,
    pod_security,
)
from cumulet.kube.schema.validation.volumes import volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_NAMESERVERS, _SEARCHES, _SEARCH_CHARACTERS = 3, 32, 2048
_MAX_INT32 = 2**31 - 1
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_MIRROR = "kubernetes.io/config.mirror"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_NOT_EPHEMERAL = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)
_EPHEMERAL = "cannot be set for an Ephemeral Container"


def pod(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a new pod."""
    spec = obj.get("spec") or {}
    causes = pod_and_spec(obj)
    if spec.get("ephemeralContainers"):
        causes.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        why = "cannot be set until all schedulingGates have been cleared"
        causes.append(forbidden("spec.nodeName", why))
    return causes


def pod_and_spec(obj: Object) -> list[Cause]:
    """Validate a pod, new or not."""
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    causes = list(pod_annotations(metadata.get("annotations"), spec, "metadata.annotations"))
    alike = likeness(spec)
    if alike is None or not _is_sound(alike):
        causes += _of_pod(spec, metadata.get("name", ""))
    return causes


@functools.lru_cache(256)
def _is_sound(alike: bytes) -> bool:
    """Whether all specs with this fingerprint are valid."""
    return not any(True for _ in _of_pod(msgspec.json.decode(alike), ""))


def _of_pod(spec: Object, name: str) -> Causes:
    yield from pod_spec(spec, "spec", name, is_pod=True)
    if not spec.get("serviceAccountName"):
        for index, volume in enumerate(spec.get("volumes") or ()):
            for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if "serviceAccountToken" in source:
                    where = f"spec.volumes[{index}].projected.sources[{number}].serviceAccountToken"
                    why = "must not be specified when serviceAccountName is not set"
                    yield forbidden(where, why)
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            yield from image_without_space(container, f"spec.{key}[{index}]")


def pod_annotations(annotations: Mapping[str, str] | None, spec: Object, field: str) -> Causes:
    """Validate the annotations that affect a pod."""
    if not annotations:
        return
    if _MIRROR in annotations and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        yield invalid(f"{field}[{_MIRROR}]", annotations[_MIRROR], why)
    if (cost := annotations.get(_DELETION_COST)) is not None:
        is_number = re.fullmatch(r"0|-?[1-9][0-9]{0,9}", cost) and -(2**31) <= int(cost) <= _MAX_INT32
        if not is_number:
            yield invalid(f"{field}[{_DELETION_COST}]", cost, "must be a 32bit integer")
    for key in sorted(key for key in annotations if key.startswith(_APP_ARMOR)):
        name, profile = key.removeprefix(_APP_ARMOR), annotations[key]
        if not any(container.get("name") == name for container, _ in all_containers(spec, "")):
            yield invalid(f"{field}[{key}]", name, "container not found")
        if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
            yield invalid(f"{field}[{key}]", profile, f'invalid AppArmor profile name: "{profile}"')


def template(body: Object, field: str) -> Causes:
    """Validate a pod template."""
    metadata, spec = body.get("metadata") or {}, body.get("spec") or {}
    yield from labels(metadata.get("labels"), f"{field}.labels")
    yield from annotation_map(metadata.get("annotations"), f"{field}.annotations")
    yield from pod_annotations(metadata.get("annotations"), spec, f"{field}.annotations")
    yield from pod_spec(spec, f"{field}.spec")
    if spec.get("ephemeralContainers"):
        yield forbidden(f"{field}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def pod_spec(spec: Object, field: str, name: str = "", *, is_pod: bool = False) -> Causes:
    """Validate the spec, at a path, of a pod with this name."""
    good, wrong = volumes(spec.get("volumes") or (), name, f"{field}.volumes")
    yield from wrong
    claims = spec.get("resourceClaims") or []
    if claims:
        yield from _claims(claims, f"{field}.resourceClaims")
    around = Surroundings(
        good,
        frozenset(claim["name"] for claim in claims if claim.get("name")),
        spec.get("terminationGracePeriodSeconds"),
        None if spec.get("os") is None else spec["os"].get("name", ""),
        spec.get("restartPolicy", ""),
        spec.get("hostUsers") is not False,
    )
    main, inits = spec.get("containers") or [], spec.get("initContainers") or []
    yield from containers(main, around, f"{field}.containers")
    yield from init_containers(inits, main, around, f"{field}.initContainers")
    if spec.get("ephemeralContainers"):
        yield from _ephemeral(spec, around, f"{field}.ephemeralContainers")
    if spec.get("resources") is not None:
        yield from pod_resources(spec, f"{field}.resources")
    if spec.get("hostNetwork"):
        yield from _host_ports(spec, f"{field}.containers", is_pod=is_pod)
    if spec.get("restartPolicy", "") not in RESTART_POLICIES:
        policy = spec.get("restartPolicy", "")
        yield unsupported(f"{field}.restartPolicy", policy, RESTART_POLICIES, in_order=True)
    if (policy := spec.get("dnsPolicy", "")) not in _DNS:
        yield unsupported(f"{field}.dnsPolicy", policy, _DNS, in_order=True)
    yield from labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    yield from pod_security(spec, f"{field}.securityContext")
    if spec.get("affinity"):
        yield from affinity(spec["affinity"], f"{field}.affinity")
    yield from _dns(spec.get("dnsConfig"), policy, f"{field}.dnsConfig")
    yield from _gates(spec, field)
    yield from spread(spec.get("topologySpreadConstraints") or (), f"{field}.topologySpreadConstraints")
    yield from host_processes(spec, field)
    yield from host_users(spec, field)
    yield from _host_name(spec, field)
    yield from _names(spec, field)
    yield from tolerations(spec.get("tolerations") or (), f"{field}.tolerations")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        where = f"{field}.hostAliases[{index}]"
        yield from address(alias.get("ip", ""), f"{where}.ip")
        for number, host in enumerate(alias.get("hostnames") or ()):
            yield from all_invalid(f"{where}.hostnames[{number}]", host, name_formats.dns_subdomain(host))
    for key in ("priorityClassName", "runtimeClassName"):
        if (value := spec.get(key)) is not None and (value or key == "runtimeClassName"):
            yield from all_invalid(f"{field}.{key}", value, name_formats.dns_subdomain(value))
    if (preemption := spec.get("preemptionPolicy")) not in (None, "Never", "PreemptLowerPriority"):
        ways = ("PreemptLowerPriority", "Never")
        yield unsupported(f"{field}.preemptionPolicy", preemption, ways, in_order=True)
    if (overhead := spec.get("overhead")) is not None:
        yield from container_resources({"limits": overhead}, f"{field}.overhead")
    yield from operating_system(spec, field)
    yield from _files(spec, field)


def _names(spec: Object, field: str) -> Causes:
    for key, form in (("serviceAccountName", name_formats.dns_subdomain), ("nodeName", name_formats.dns_subdomain)):
        if value := spec.get(key):
            yield from all_invalid(f"{field}.{key}", value, form(value))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        yield invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for key in ("hostname", "subdomain"):
        if value := spec.get(key):
            yield from all_invalid(f"{field}.{key}", value, name_formats.dns_label(value))


def _host_name(spec: Object, field: str) -> Causes:
    if (name := spec.get("hostnameOverride")) is None:
        return
    where = f"{field}.hostnameOverride"
    if spec.get("setHostnameAsFQDN"):
        yield forbidden(where, "may not be specified when setHostnameAsFQDN is true")
    if spec.get("hostNetwork"):
        yield forbidden(where, "may not be specified when hostNetwork is true")
    if len(name) > 64:
        yield too_long(where, 64)
    yield from all_invalid(where, name, name_formats.dns_subdomain(name))


def _claims(claims: list[Object], field: str) -> Causes:
    names: set[str] = set()
    for index, claim in enumerate(claims):
        where, name = f"{field}[{index}]", claim.get("name", "")
        if not name:
            yield required(f"{where}.name")
        elif name in names:
            yield duplicate(f"{where}.name", name)
        else:
            yield from all_invalid(f"{where}.name", name, name_formats.dns_label(name))
            names.add(name)
        keys = ("resourceClaimName", "resourceClaimTemplateName")
        given = [key for key in keys if claim.get(key) is not None]
        shown = {"Name": name} | {f"{raised(key[0])}{key[1:]}": claim.get(key) for key in keys}
        if len(given) > 1:
            why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            yield invalid(where, shown, why)
        if not given:
            why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            yield invalid(where, shown, why)
        for key in given:
            yield from all_invalid(f"{where}.{key}", claim[key], name_formats.dns_subdomain(claim[key]))


def _ephemeral(spec: Object, around: Surroundings, field: str) -> Causes:
    others = {
        container.get("name", "") for key in ("containers", "initContainers") for container in spec.get(key) or ()
    }
    names = set(others)
    for index, container in enumerate(spec["ephemeralContainers"]):
        where = f"{field}[{index}]"
        yield from common(container, around, where)
        yield from image_without_space(container, where)
        name, target = container.get("name", ""), container.get("targetContainerName")
        if name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        if target and target not in others:
            yield not_found(f"{where}.targetContainerName", target)
        for key in _NOT_EPHEMERAL:
            if container.get(key):
                yield forbidden(f"{where}.{key}", _EPHEMERAL)
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    yield forbidden(f"{where}.volumeMounts[{number}].{key}", _EPHEMERAL)


def _host_ports(spec: Object, field: str, *, is_pod: bool) -> Causes:
    for index, container in enumerate(spec.get("containers") or ()):
        for number, port in enumerate(container.get("ports") or ()):
            outside, inside = port.get("hostPort", 0), port.get("containerPort", 0)
            if (is_pod or outside) and outside != inside:
                why = "must match `containerPort` when `hostNetwork` is true"
                yield invalid(f"{field}[{index}].ports[{number}].hostPort", outside, why)


def _dns(config: Object | None, policy: str, field: str) -> Causes:
    if policy == "None" and config is None:
        yield required(field, "must provide `dnsConfig` when `dnsPolicy` is None")
        return
    config = config or {}
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if policy == "None" and not servers:
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{field}.nameservers", why)
        return
    if len(servers) > _NAMESERVERS:
        yield invalid(f"{field}.nameservers", servers, f"must not have more than {_NAMESERVERS} nameservers")
    for index, server in enumerate(servers):
        yield from address(server, f"{field}.nameservers[{index}]")
    if len(searches) > _SEARCHES:
        yield invalid(f"{field}.searches", searches, f"must not have more than {_SEARCHES} search paths")
    if len(" ".join(searches)) > _SEARCH_CHARACTERS:
        why = f"must not have more than {_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        yield invalid(f"{field}.searches", searches, why)
    for index, search in enumerate(searches):
        if search != ".":
            domain = search.removesuffix(".")
            yield from all_invalid(f"{field}.searches[{index}]", domain, name_formats.dns_underscored(domain))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{field}.options[{index}]", "must not be empty")


def _gates(spec: Object, field: str) -> Causes:
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        yield from all_invalid(
            f"{field}.readinessGates[{index}].conditionType", kind, name_formats.qualified_name(kind)
        )
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        where, name = f"{field}.schedulingGates[{index}]", gate.get("name", "")
        yield from all_invalid(where, name, name_formats.qualified_name(name))
        if name in seen:
            yield duplicate(where, name)
        seen.add(name)


def _files(spec: Object, field: str) -> Causes:
    sources = {volume.get("name", ""): volume for volume in spec.get("volumes") or ()}
    for container, where in all_containers(spec, field):
        for index, variable in enumerate(container.get("env") or ()):
            if (file := (variable.get("valueFrom") or {}).get("fileKeyRef")) is None:
                continue
            name, at = file.get("volumeName", ""), f"{where}.env[{index}].valueFrom.fileKeyRef.volumeName"
            if name not in sources:
                yield not_found(at, name)
            elif "emptyDir" not in sources[name]:
                yield invalid(at, name, "referenced volume must be of type emptyDir")

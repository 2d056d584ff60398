"""Validation of containers, except for their order in the pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.environment import environment, environment_sources
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    not_found,
    required,
    too_many,
    unsupported,
)
from cumulet.kube.schema.validation.paths import descending, no_backsteps
from cumulet.kube.schema.validation.probes import PROBES, lifecycle, probes
from cumulet.kube.schema.validation.resources import container_resources
from cumulet.kube.schema.validation.security import container_security

PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTARTS = ("Always", "Never", "OnFailure")
_RULES_LIMIT, _CODES_LIMIT = 20, 255
_OUT_OF_PLACE = "may not be set for init containers without restartPolicy=Always"


class Surroundings(NamedTuple):
    """The parts of a pod that its containers refer to: valid volumes, device claims, and other settings by name."""

    volumes: Mapping[str, Object]
    claims: frozenset[str]
    grace: int | None
    system: str | None
    restart_policy: str
    host_users: bool


def containers(specs: list[Object], around: Surroundings, field: str) -> Causes:
    """Validate the containers of a pod."""
    if not specs:
        yield required(field)
        return
    names: set[str] = set()
    for index, container in enumerate(specs):
        where = f"{field}[{index}]"
        yield from common(container, around, where)
        yield from _unlike(container, names, where)
        yield from _running(container, around, where)
        yield from _restarts(container, where)
    yield from _host_ports(specs, field)


def init_containers(specs: list[Object], others: list[Object], around: Surroundings, field: str) -> Causes:
    """Validate the init containers, including sidecars."""
    names = {container.get("name", "") for container in others}
    for index, container in enumerate(specs):
        where = f"{field}[{index}]"
        yield from common(container, around, where)
        yield from _restarts(container, where)
        yield from _unlike(container, names, where)
        yield from _host_ports([container], field)
        if container.get("restartPolicy") == "Always":
            yield from _running(container, around, where)
            continue
        for key in ("lifecycle", *PROBES):
            if key in container:
                yield forbidden(f"{where}.{key}", _OUT_OF_PLACE)
        for number, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                why = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                yield invalid(f"{where}.resizePolicy[{number}].restartPolicy", "RestartContainer", why)


def _unlike(container: Object, names: set[str], field: str) -> Causes:
    name = container.get("name", "")
    if name in names:
        yield duplicate(f"{field}.name", name)
    names.add(name)


def _running(container: Object, around: Surroundings, field: str) -> Causes:
    if (hooks := container.get("lifecycle")) is not None:
        yield from lifecycle(hooks, around.grace, around.system, f"{field}.lifecycle")
    yield from probes(container, around.grace, field)


def common(container: Object, around: Surroundings, field: str) -> Causes:
    """Validate the fields that containers of all types have."""
    if not (name := container.get("name", "")):
        yield required(f"{field}.name")
    else:
        yield from all_invalid(f"{field}.name", name, name_formats.dns_label(name))
    if not container.get("image"):
        yield required(f"{field}.image")
    policies = ("File", "FallbackToLogsOnError")
    if (policy := container.get("terminationMessagePolicy", "")) not in policies:
        yield _one_of(f"{field}.terminationMessagePolicy", policy, policies, in_order=True)
    yield from _ports(container.get("ports") or (), f"{field}.ports")
    yield from environment(container.get("env") or (), f"{field}.env")
    yield from environment_sources(container.get("envFrom") or (), f"{field}.envFrom")
    yield from _mounts(container, around.volumes, f"{field}.volumeMounts")
    if container.get("volumeDevices"):
        yield from _devices(container, around.volumes, f"{field}.volumeDevices")
    yield from pull_policy(container.get("imagePullPolicy", ""), f"{field}.imagePullPolicy")
    yield from container_resources(container.get("resources") or {}, f"{field}.resources", around.claims)
    yield from _resizing(container.get("resizePolicy") or (), around.restart_policy, f"{field}.resizePolicy")
    if (context := container.get("securityContext")) is not None:
        yield from container_security(context, around.host_users, f"{field}.securityContext")


def _one_of(field: str, value: str, allowed: tuple[str, ...], *, in_order: bool = False):  # type: ignore[no-untyped-def]
    return unsupported(field, value, allowed, in_order=in_order) if value else required(field)


def pull_policy(policy: str, field: str) -> Causes:
    """Validate a pull policy."""
    if policy not in _POLICIES:
        yield _one_of(field, policy, _POLICIES)


def _ports(ports: Iterable[Object], field: str) -> Causes:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{field}[{index}]"
        if name := port.get("name"):
            messages = name_formats.port_name(name)
            yield from all_invalid(f"{where}.name", name, messages)
            if not messages and name in names:
                yield duplicate(f"{where}.name", name)
            elif not messages:
                names.add(name)
        if not (number := port.get("containerPort", 0)):
            yield required(f"{where}.containerPort")
        else:
            yield from all_invalid(f"{where}.containerPort", number, name_formats.port_number(number))
        if number := port.get("hostPort", 0):
            yield from all_invalid(f"{where}.hostPort", number, name_formats.port_number(number))
        if (protocol := port.get("protocol", "")) not in PROTOCOLS:
            yield _one_of(f"{where}.protocol", protocol, PROTOCOLS)


def _host_ports(specs: list[Object], field: str) -> Causes:
    taken: set[str] = set()
    for index, container in enumerate(specs):
        for number, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            endpoint = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if endpoint in taken:
                yield duplicate(f"{field}[{index}].ports[{number}].hostPort", endpoint)
            taken.add(endpoint)


def _mounts(container: Object, volumes: Mapping[str, Object], field: str) -> Causes:
    devices = {item.get("name", ""): item.get("devicePath", "") for item in container.get("volumeDevices") or ()}
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where, name, path = f"{field}[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield required(f"{where}.name")
        if name not in volumes:
            yield not_found(f"{where}.name", name)
        if not path:
            yield required(f"{where}.mountPath")
        if path in paths:
            yield invalid(f"{where}.mountPath", path, "must be unique")
        paths.add(path)
        if name in devices:
            yield invalid(f"{where}.name", name, "must not already exist in volumeDevices")
        if path in devices.values():
            yield invalid(f"{where}.mountPath", path, "must not already exist as a path in volumeDevices")
        if below := mount.get("subPath"):
            yield from descending(below, f"{field}.subPath")
        if expression := mount.get("subPathExpr"):
            if mount.get("subPath"):
                yield invalid(f"{where}.subPathExpr", expression, "subPathExpr and subPath are mutually exclusive")
            yield from descending(expression, f"{field}.subPathExpr")
        yield from _mount_modes(mount, container, field)


def _mount_modes(mount: Object, container: Object, field: str) -> Causes:
    if (propagation := mount.get("mountPropagation")) is not None:
        ways = ("Bidirectional", "HostToContainer", "None")
        if propagation not in ways:
            yield unsupported(f"{field}.mountPropagation", propagation, ways)
        if propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            why = "Bidirectional mount propagation is available only to privileged containers"
            yield forbidden(f"{field}.mountPropagation", why)
    match mount.get("recursiveReadOnly"):
        case None | "Disabled":
            return
        case "Enabled" | "IfPossible":
            if not mount.get("readOnly"):
                yield forbidden(f"{field}.recursiveReadOnly", "may only be specified when readOnly is true")
            if propagation not in (None, "None"):
                why = "may only be specified when mountPropagation is None or not specified"
                yield forbidden(f"{field}.recursiveReadOnly", why)
        case mode:
            yield unsupported(f"{field}.recursiveReadOnly", mode, ("Disabled", "Enabled", "IfPossible"))


def _devices(container: Object, volumes: Mapping[str, Object], field: str) -> Causes:
    mounts = {item.get("name", ""): item.get("mountPath", "") for item in container.get("volumeMounts") or ()}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container["volumeDevices"]):
        where, name, path = f"{field}[{index}]", device.get("name", ""), device.get("devicePath", "")
        volume = volumes.get(name)
        if not name:
            yield required(f"{where}.name")
        if name in names:
            yield invalid(f"{where}.name", name, "must be unique")
        if volume is None:
            yield not_found(f"{where}.name", name)
        elif not {"persistentVolumeClaim", "ephemeral"} & volume.keys():
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            yield invalid(f"{where}.name", name, why)
        if not path:
            yield required(f"{where}.devicePath")
        if path in paths:
            yield invalid(f"{where}.devicePath", path, "must be unique")
        if path and list(no_backsteps(path, "")):
            yield invalid(f"{where}.devicePath", path, "can not contain backsteps ('..')")
        else:
            paths.add(path)
        if name in mounts:
            yield invalid(f"{where}.name", name, "must not already exist in volumeMounts")
        if path in mounts.values():
            yield invalid(f"{where}.devicePath", path, "must not already exist as a path in volumeMounts")
        if name:
            names.add(name)


def _resizing(policies: Iterable[Object], restart_policy: str, field: str) -> Causes:
    names: set[str] = set()
    for index, policy in enumerate(policies):
        name, restart = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in names:
            yield duplicate(f"{field}[{index}]", name)
        names.add(name)
        if name not in ("cpu", "memory"):
            yield _one_of(field, name, ("cpu", "memory"))
        if restart not in ("NotRequired", "RestartContainer"):
            yield _one_of(field, restart, ("NotRequired", "RestartContainer"))
        if restart_policy == "Never" and restart != "NotRequired":
            yield invalid(field, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")


def _restarts(container: Object, field: str) -> Causes:
    """Validate the restart policy and rules of a single container."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if policy is None:
        if rules:
            yield required(f"{field}.restartPolicy", "must specify restartPolicy when restart rules are used")
    elif policy not in _RESTARTS:
        yield unsupported(f"{field}.restartPolicy", policy, _RESTARTS)
    if len(rules) > _RULES_LIMIT:
        yield too_many(f"{field}.restartPolicyRules", len(rules), _RULES_LIMIT)
    for index, rule in enumerate(rules):
        where = f"{field}.restartPolicyRules[{index}]"
        if rule.get("action", "") not in ("Restart", "RestartAllContainers"):
            yield unsupported(f"{where}.action", rule.get("action", ""), ("Restart", "RestartAllContainers"))
        if (codes := rule.get("exitCodes")) is None:
            yield required(f"{where}.exitCodes", "must be specified")
            continue
        if codes.get("operator", "") not in ("In", "NotIn"):
            yield unsupported(f"{where}.exitCodes.operator", codes.get("operator", ""), ("In", "NotIn"))
        if len(codes.get("values") or ()) > _CODES_LIMIT:
            yield too_many(f"{where}.exitCodes.values", len(codes["values"]), _CODES_LIMIT)


def image_without_space(container: Object, field: str) -> Causes:
    """Validate the image of a pod's own container."""
    image = container.get("image", "")
    if image != image.strip():
        yield invalid(f"{field}.image", image, "must not have leading or trailing whitespace")

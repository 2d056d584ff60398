"""Pods, and the pods that workloads make."""

from __future__ import annotations

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.schema.validation.causes import (
    LABEL_MESSAGE,
    Causes,
    Object,
    duplicate,
    forbidden,
    invalid,
    is_label,
    labels,
    qualified,
    required,
    unsupported,
)
from cumulet.kube.status import Cause

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
    names: set[str] = set()
    for index, container in enumerate(spec.get("initContainers") or ()):
        yield from _container(container, f"{field}.initContainers[{index}]", names, volumes)
    if not spec.get("containers"):
        yield required(f"{field}.containers")
    for index, container in enumerate(spec.get("containers") or ()):
        yield from _container(container, f"{field}.containers[{index}]", names, volumes)
    policy = spec.get("restartPolicy", "")
    if policy not in ("Always", "OnFailure", "Never"):
        yield unsupported(f"{field}.restartPolicy", policy, ("Always", "OnFailure", "Never"))
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        yield invalid(f"{field}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    yield from labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"{field}.tolerations[{index}]")
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield required(f"{field}.imagePullSecrets[{index}].name")


def _container(container: Object, field: str, names: set[str], volumes: set[str]) -> Causes:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif len(name) > 63 or not is_label(name):
        yield invalid(f"{field}.name", name, LABEL_MESSAGE)
    elif name in names:
        yield duplicate(f"{field}.name", name)
    names.add(name)
    image = container.get("image", "")
    if not image:
        yield required(f"{field}.image")
    elif image != image.strip():
        yield invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    ports: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        where = f"{field}.ports[{index}]"
        number = port.get("containerPort")
        if number is None or number == 0:
            yield required(f"{where}.containerPort")
        elif not 0 < number < 65536:
            yield invalid(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
        if (host := port.get("hostPort")) and not 0 < host < 65536:
            yield invalid(f"{where}.hostPort", host, "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{where}.protocol", port.get("protocol"), ("TCP", "UDP", "SCTP"))
        if label := port.get("name"):
            if len(label) > 15 or not is_label(label):
                yield invalid(f"{where}.name", label, "must be no more than 15 characters")
            if label in ports:
                yield duplicate(f"{where}.name", label)
            ports.add(label)
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{field}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{where}.name")
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
    mounts: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            yield required(f"{where}.name")
        elif mount["name"] not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f'Not found: "{mount["name"]}"')
        if not mount.get("mountPath"):
            yield required(f"{where}.mountPath")
        elif mount["mountPath"] in mounts:
            yield invalid(f"{where}.mountPath", mount["mountPath"], "must be unique")
        mounts.add(mount.get("mountPath", ""))
    policy = container.get("imagePullPolicy")
    if policy not in ("Always", "IfNotPresent", "Never"):
        yield unsupported(f"{field}.imagePullPolicy", policy, ("Always", "IfNotPresent", "Never"))
    resources = container.get("resources") or {}
    yield from _quantities(resources, f"{field}.resources")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            yield from _probe(container[probe], f"{field}.{probe}")


def _quantities(resources: Object, field: str) -> Causes:
    for kind in ("limits", "requests"):
        for name, value in (resources.get(kind) or {}).items():
            if value.startswith("-"):
                yield invalid(f"{field}.{kind}[{name}]", value, "must be greater than or equal to 0")
    limits = resources.get("limits") or {}
    for name, value in (resources.get("requests") or {}).items():
        if name in limits and decimal(value) > decimal(limits[name]):
            yield invalid(f"{field}.requests", value, f"must be less than or equal to {name} limit of {limits[name]}")


def _probe(probe: Object, field: str) -> Causes:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if not handlers:
        yield required(field, "must specify a handler type")
    for extra in handlers[1:]:
        yield forbidden(f"{field}.{extra}", "may not specify more than 1 handler type")
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if (value := probe.get(name)) is not None and value < 0:
            yield invalid(f"{field}.{name}", value, "must be greater than or equal to 0")


def _toleration(toleration: Object, field: str) -> Causes:
    operator = toleration.get("operator", "Equal")
    if key := toleration.get("key"):
        yield from qualified(key, f"{field}.key")
    elif operator != "Exists":
        yield invalid(
            f"{field}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if operator == "Exists" and toleration.get("value"):
        yield invalid(f"{field}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    if operator not in ("Exists", "Equal", "Gt", "Lt"):
        yield unsupported(f"{field}.operator", operator, ("Equal", "Exists"))
    effects = ("NoExecute", "NoSchedule", "PreferNoSchedule")
    if (effect := toleration.get("effect")) and effect not in effects:
        yield unsupported(f"{field}.effect", effect, effects)
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield invalid(
            f"{field}.effect",
            toleration.get("effect", ""),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        )


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
    for index, container in enumerate(found):
        where = f"{field}[{index}]"
        causes += _container(container, where, names, volumes)
        target = container.get("targetContainerName")
        if target and target not in {item.get("name") for item in spec.get("containers") or ()}:
            causes.append(Cause(f"{where}.targetContainerName", "FieldValueNotFound", f'Not found: "{target}"'))
        for key in _EPHEMERAL_FIELDS:
            if container.get(key):
                causes.append(forbidden(f"{where}.{key}", "cannot be set for an Ephemeral Container"))
    by_name = {container.get("name"): container for container in found}
    for container in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = container["name"]
        if name not in by_name:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be removed'))
        elif by_name[name] != container:
            causes.append(forbidden(field, f'existing ephemeral containers "{name}" may not be changed'))
    return causes

"""Validation of the kinds of the path, field by field, in upstream's words (`pkg/apis/*/validation`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cumulet.kube.status import Cause

Object = dict[str, Any]
Causes = Iterator[Cause]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY = r"[-._a-zA-Z0-9]+"

_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    f"with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    f"alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SERVICE_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_SERVICE_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
    f"with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{_SERVICE_NAME}')"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    f"an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{_LABEL_VALUE}')"
)
_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_PATH_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")

_RBAC = "rbac.authorization.k8s.io"
_SECRET_KEYS = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_POD_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate(obj: Object, old: Object | None, group: str, kind: str) -> list[Cause]:
    """Everything that is wrong with an object, or with its change from `old`."""
    causes = list(_metadata(obj, group, kind))
    validator = _VALIDATORS.get((group, kind))
    if validator is not None:
        causes += validator(obj, old)
    return causes


def required(field: str, detail: str = "") -> Cause:
    """A field that must be there."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Cause:
    """A value that is not good."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")


def duplicate(field: str, value: Any) -> Cause:
    """A value that stands twice where it may once."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def unsupported(field: str, value: Any, supported: tuple[str, ...]) -> Cause:
    """A value that is not one of a few."""
    shown = ", ".join(f'"{item}"' for item in sorted(supported))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {shown}")


def forbidden(field: str, detail: str) -> Cause:
    """A field that may not be there, or not change."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def _shown(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _metadata(obj: Object, group: str, kind: str) -> Causes:
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif (group, kind) in (("", "Namespace"),):
        if len(name) > 63 or not re.fullmatch(_LABEL, name):
            yield invalid(
                "metadata.name", name, _LABEL_MESSAGE if len(name) <= 63 else "must be no more than 63 bytes"
            )
    elif (group, kind) == ("", "Service"):
        if len(name) > 63 or not re.fullmatch(_SERVICE_NAME, name):
            yield invalid(
                "metadata.name", name, _SERVICE_MESSAGE if len(name) <= 63 else "must be no more than 63 bytes"
            )
    elif group == _RBAC:
        if not _PATH_SEGMENT.fullmatch(name):
            yield invalid("metadata.name", name, "may not contain '/' or '%', and may not be '.' or '..'")
    elif len(name) > 253 or not re.fullmatch(_SUBDOMAIN, name):
        yield invalid(
            "metadata.name", name, _SUBDOMAIN_MESSAGE if len(name) <= 253 else "must be no more than 253 bytes"
        )
    yield from _labels(metadata.get("labels"), "metadata.labels")
    for key in metadata.get("annotations") or ():
        yield from _qualified(key.lower(), "metadata.annotations")
    size = sum(len(key) + len(value) for key, value in (metadata.get("annotations") or {}).items())
    if size > 256 * 1024:
        yield Cause("metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes")


def _labels(labels: dict[str, str] | None, field: str) -> Causes:
    for key, value in (labels or {}).items():
        yield from _qualified(key, field)
        if len(value) > 63:
            yield invalid(field, value, "must be no more than 63 bytes")
        elif not re.fullmatch(_LABEL_VALUE, value):
            yield invalid(field, value, _LABEL_VALUE_MESSAGE)


def _qualified(key: str, field: str) -> Causes:
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or not re.fullmatch(_SUBDOMAIN, prefix)):
        yield invalid(field, key, f"prefix part {_SUBDOMAIN_MESSAGE}")
    elif not name or len(name) > 63 or not re.fullmatch(_QUALIFIED, name):
        yield invalid(
            field,
            key,
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
            f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')",
        )


def _pod(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    if old is not None:
        return _pod_update(spec, old.get("spec") or {})
    return list(_pod_spec(spec, "spec"))


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


def _pod_spec(spec: Object, field: str) -> Causes:
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        where = f"{field}.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{where}.name")
        elif len(name) > 63 or not re.fullmatch(_LABEL, name):
            yield invalid(f"{where}.name", name, _LABEL_MESSAGE)
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
    yield from _labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"{field}.tolerations[{index}]")
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield required(f"{field}.imagePullSecrets[{index}].name")


def _container(container: Object, field: str, names: set[str], volumes: set[str]) -> Causes:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif len(name) > 63 or not re.fullmatch(_LABEL, name):
        yield invalid(f"{field}.name", name, _LABEL_MESSAGE)
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
            if len(label) > 15 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label):
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
            if not _QUANTITY.fullmatch(str(value)):
                yield invalid(
                    f"{field}.{kind}[{name}]",
                    str(value),
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                )
            elif str(value).startswith("-"):
                yield invalid(f"{field}.{kind}[{name}]", str(value), "must be greater than or equal to 0")


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
        yield from _qualified(key, f"{field}.key")
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


def _workload(obj: Object, old: Object | None) -> list[Cause]:
    """Deployments, replica sets, stateful sets and daemon sets."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if (replicas := spec.get("replicas")) is not None and replicas < 0:
        causes.append(invalid("spec.replicas", replicas, "must be greater than or equal to 0"))
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not selector:
        causes.append(required("spec.selector"))
    elif not selects(selector, labels):
        causes.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    causes += _labels(labels, "spec.template.metadata.labels")
    template = (spec.get("template") or {}).get("spec") or {}
    causes += _pod_spec(template, "spec.template.spec")
    if template.get("restartPolicy") not in (None, "Always"):
        causes.append(unsupported("spec.template.spec.restartPolicy", template["restartPolicy"], ("Always",)))
    if old is not None and (old.get("spec") or {}).get("selector") != selector:
        causes.append(invalid("spec.selector", selector, "field is immutable"))
    return causes


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a `metav1.LabelSelector` selects these labels; an empty one selects everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement.get("key"), requirement.get("values") or []
        present = key in labels
        match requirement.get("operator"):
            case "In" if not (present and labels[key] in values):
                return False
            case "NotIn" if present and labels[key] in values:
                return False
            case "Exists" if not present:
                return False
            case "DoesNotExist" if present:
                return False
    return True


def _job(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    for name in ("parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds"):
        if (value := spec.get(name)) is not None and value < 0:
            causes.append(invalid(f"spec.{name}", value, "must be greater than or equal to 0"))
    template = (spec.get("template") or {}).get("spec") or {}
    causes += _pod_spec(template, "spec.template.spec")
    if template.get("restartPolicy") == "Always":
        causes.append(unsupported("spec.template.spec.restartPolicy", "Always", ("OnFailure", "Never")))
    if old is not None:
        before = old.get("spec") or {}
        for name in ("completions", "selector", "template", "completionMode"):
            if before.get(name) != spec.get(name) and not (before.get("suspend") and name == "template"):
                causes.append(invalid(f"spec.{name}", spec.get(name), "field is immutable"))
    return causes


def _service(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        causes.append(unsupported("spec.type", spec.get("type"), kinds))
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        causes.append(required("spec.externalName"))
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if len(ports) > 1 and not name:
            causes.append(required(f"{where}.name"))
        if name and name in names:
            causes.append(duplicate(f"{where}.name", name))
        names.add(name)
        number = port.get("port")
        if number is None or not 0 < number < 65536:
            causes.append(invalid(f"{where}.port", number or 0, "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(unsupported(f"{where}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        target = port.get("targetPort")
        if isinstance(target, int) and not 0 < target < 65536:
            causes.append(invalid(f"{where}.targetPort", target, "must be between 1 and 65535, inclusive"))
        if (number, port.get("protocol")) in seen:
            causes.append(duplicate(where, {"port": number, "protocol": port.get("protocol")}))
        seen.add((number, port.get("protocol")))
    causes += _labels(spec.get("selector"), "spec.selector")
    if old is not None:
        before = (old.get("spec") or {}).get("clusterIP")
        if before and spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (before, None, ""):
            causes.append(invalid("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set"))
    return causes


def _secret(obj: Object, old: Object | None) -> list[Cause]:
    data = obj.get("data") or {}
    causes = list(_keys(data, "data"))
    for key in _SECRET_KEYS.get(obj.get("type", ""), ()):
        if key not in data:
            causes.append(required(f"data[{key}]"))
    if sum(len(value) for value in data.values()) * 3 // 4 > 1024 * 1024:
        causes.append(Cause("data", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes"))
    if old is not None:
        if obj.get("type") != old.get("type"):
            causes.append(invalid("type", obj.get("type"), "field is immutable"))
        causes += _immutable(obj, old)
    return causes


def _config_map(obj: Object, old: Object | None) -> list[Cause]:
    causes = [*_keys(obj.get("data") or {}, "data"), *_keys(obj.get("binaryData") or {}, "binaryData")]
    if old is not None:
        causes += _immutable(obj, old)
    return causes


def _keys(data: Object, field: str) -> Causes:
    for key in data:
        if len(key) > 253 or not re.fullmatch(_KEY, key) or key in (".", ".."):
            yield invalid(
                f"{field}[{key}]",
                key,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
                f"  or 'key-name', regex used for validation is '{_KEY}')",
            )


def _immutable(obj: Object, old: Object) -> Causes:
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if obj.get(field) != old.get(field):
                yield forbidden(field, "field is immutable when `immutable` is set")


_VALIDATORS: dict[tuple[str, str], Callable[[Object, Object | None], list[Cause]]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "ConfigMap"): _config_map,
    ("apps", "Deployment"): _workload,
    ("apps", "ReplicaSet"): _workload,
    ("apps", "StatefulSet"): _workload,
    ("apps", "DaemonSet"): _workload,
    ("batch", "Job"): _job,
}

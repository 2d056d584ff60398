"""Containers of pods, in upstream's words (`pkg/apis/core/validation`)."""

from __future__ import annotations

import re
from typing import Any

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.schema.validation.causes import (
    KEY,
    LABEL_MESSAGE,
    Causes,
    Object,
    duplicate,
    forbidden,
    invalid,
    is_label,
    qualified,
    required,
    unsupported,
)
from cumulet.kube.status import Cause

PORT_RANGE = "must be between 1 and 65535, inclusive"
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Always", "IfNotPresent", "Never")
_SOURCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")
_FIELDS = frozenset(
    (
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    )
)
_MAPPED_FIELD = re.compile(r"metadata\.(annotations|labels)\['[^']+'\]")
_RESOURCES = frozenset(("cpu", "memory", "ephemeral-storage", "storage"))


def container(found: Object, field: str, names: set[str], volumes: set[str]) -> Causes:
    """What is wrong with a container; `names` are those of the containers before it, and grow."""
    name = found.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif len(name) > 63 or not is_label(name):
        yield invalid(f"{field}.name", name, LABEL_MESSAGE)
    elif name in names:
        yield duplicate(f"{field}.name", name)
    names.add(name)
    image = found.get("image", "")
    if not image:
        yield required(f"{field}.image")
    elif image != image.strip():
        yield invalid(f"{field}.image", image, "must not have leading or trailing whitespace")
    ports: set[str] = set()
    for index, port in enumerate(found.get("ports") or ()):
        yield from _port(port, f"{field}.ports[{index}]", ports)
    for index, variable in enumerate(found.get("env") or ()):
        yield from _variable(variable, f"{field}.env[{index}]")
    for index, source in enumerate(found.get("envFrom") or ()):
        yield from _variables(source, f"{field}.envFrom[{index}]")
    mounts: set[str] = set()
    for index, mount in enumerate(found.get("volumeMounts") or ()):
        yield from _mount(mount, f"{field}.volumeMounts[{index}]", volumes, mounts)
    policy = found.get("imagePullPolicy")
    if policy not in _POLICIES:
        yield unsupported(f"{field}.imagePullPolicy", policy, _POLICIES)
    if found.get("terminationMessagePolicy") not in (None, "File", "FallbackToLogsOnError"):
        allowed = ("FallbackToLogsOnError", "File")
        yield unsupported(f"{field}.terminationMessagePolicy", found["terminationMessagePolicy"], allowed)
    yield from resources(found.get("resources") or {}, f"{field}.resources")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if kind in found:
            yield from _probe(found[kind], f"{field}.{kind}", once=kind != "readinessProbe")
    for kind, hook in (found.get("lifecycle") or {}).items():
        if isinstance(hook, dict):
            yield from _handler(hook, f"{field}.lifecycle.{kind}", ("exec", "httpGet", "tcpSocket", "sleep"))
    yield from _security(found.get("securityContext") or {}, f"{field}.securityContext")


def init_container(found: Object, field: str) -> Causes:
    """What a container that runs before the others may not have, unless it goes on running beside them."""
    if found.get("restartPolicy") == "Always":
        return
    for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if key in found:
            yield forbidden(f"{field}.{key}", "may not be set for init containers without restartPolicy=Always")


def port_name(name: str, field: str) -> Causes:
    """What is wrong with the name of a port (`validation.IsValidPortName`)."""
    if len(name) > 15:
        yield invalid(field, name, "must be no more than 15 characters")
    if not re.fullmatch(r"[-a-z0-9]+", name):
        yield invalid(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", name):
        yield invalid(field, name, "must contain at least one letter (a-z)")
    if "--" in name:
        yield invalid(field, name, "must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        yield invalid(field, name, "must not begin or end with a hyphen")


def port_reference(value: Any, field: str) -> Causes:
    """What is wrong with a port by its number or name."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 65536:
            yield invalid(field, value, PORT_RANGE)
    else:
        yield from port_name(value if isinstance(value, str) else "", field)


def _port(port: Object, field: str, names: set[str]) -> Causes:
    if name := port.get("name"):
        found = list(port_name(name, f"{field}.name"))
        yield from found
        if not found and name in names:
            yield duplicate(f"{field}.name", name)
        names.add(name)
    number = port.get("containerPort")
    if not number:
        yield required(f"{field}.containerPort")
    elif not 0 < number < 65536:
        yield invalid(f"{field}.containerPort", number, PORT_RANGE)
    if (outside := port.get("hostPort")) and not 0 < outside < 65536:
        yield invalid(f"{field}.hostPort", outside, PORT_RANGE)
    if port.get("protocol") not in _PROTOCOLS:
        yield unsupported(f"{field}.protocol", port.get("protocol"), _PROTOCOLS)


def _variable(variable: Object, field: str) -> Causes:
    name = variable.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif not re.fullmatch(r"[ -<>-~]+", name):
        why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield invalid(f"{field}.name", name, why)
    source = variable.get("valueFrom")
    if source is None:
        return
    field = f"{field}.valueFrom"
    given = [key for key in _SOURCES if key in source]
    if not given:
        words = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        yield invalid(field, "", f"must specify one of: {words}")
    elif variable.get("value"):
        yield invalid(field, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid(field, "", "may not have more than one field specified at a time")
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            yield from _key(source[key].get("key", ""), f"{field}.{key}.key")
    if "fieldRef" in source:
        path = source["fieldRef"].get("fieldPath", "")
        if not path:
            yield required(f"{field}.fieldRef.fieldPath")
        elif path not in _FIELDS and not _MAPPED_FIELD.fullmatch(path):
            yield invalid(
                f"{field}.fieldRef.fieldPath", path, f"error converting fieldPath: field label not supported: {path}"
            )
    if "resourceFieldRef" in source and not source["resourceFieldRef"].get("resource"):
        yield required(f"{field}.resourceFieldRef.resource")


def _key(key: str, field: str) -> Causes:
    if not key:
        yield required(field)
    elif len(key) > 253 or not re.fullmatch(KEY, key):
        yield invalid(
            field,
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
            f"  or 'key-name', regex used for validation is '{KEY}')",
        )


def _variables(source: Object, field: str) -> Causes:
    given = [key for key in ("configMapRef", "secretRef") if key in source]
    if not given:
        yield invalid(field, "", "must specify one of: `configMapRef` or `secretRef`")
    elif len(given) > 1:
        yield invalid(field, "", "may not have more than one field specified at a time")
    for key in given:
        if not source[key].get("name"):
            yield required(f"{field}.{key}.name")


def _mount(mount: Object, field: str, volumes: set[str], paths: set[str]) -> Causes:
    if not mount.get("name"):
        yield required(f"{field}.name")
    elif mount["name"] not in volumes:
        yield Cause(f"{field}.name", "FieldValueNotFound", f'Not found: "{mount["name"]}"')
    path = mount.get("mountPath", "")
    if not path:
        yield required(f"{field}.mountPath")
    elif path in paths:
        yield invalid(f"{field}.mountPath", path, "must be unique")
    paths.add(path)
    for key in ("subPath", "subPathExpr"):
        if value := mount.get(key):
            yield from relative_path(value, f"{field}.{key}")
    if mount.get("subPath") and mount.get("subPathExpr"):
        yield invalid(f"{field}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")


def relative_path(path: str, field: str) -> Causes:
    """What is wrong with a path that must stay below something."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def resources(found: Object, field: str) -> Causes:
    """What is wrong with what a container asks for."""
    for kind in ("limits", "requests"):
        for name, value in (found.get(kind) or {}).items():
            where = f"{field}.{kind}[{name}]"
            if "/" not in name and name not in _RESOURCES and not name.startswith("hugepages-"):
                yield invalid(where, name, "must be a standard resource type or fully qualified")
                yield invalid(where, name, "must be a standard resource for containers")
            else:
                yield from qualified(name, where)
            if value.startswith("-"):
                yield invalid(where, value, "must be greater than or equal to 0")
    limits = found.get("limits") or {}
    for name, value in (found.get("requests") or {}).items():
        if name in limits and decimal(value) > decimal(limits[name]):
            yield invalid(f"{field}.requests", value, f"must be less than or equal to {name} limit of {limits[name]}")


def _probe(probe: Object, field: str, *, once: bool) -> Causes:
    yield from _handler(probe, field, ("exec", "httpGet", "tcpSocket", "grpc"))
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if (value := probe.get(name)) is not None and value < 0:
            yield invalid(f"{field}.{name}", value, "must be greater than or equal to 0")
    if once and probe.get("successThreshold", 1) != 1:
        yield invalid(f"{field}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(handler: Object, field: str, kinds: tuple[str, ...]) -> Causes:
    given = [name for name in kinds if name in handler]
    if not given:
        yield required(field, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden(f"{field}.{extra}", "may not specify more than 1 handler type")
    if "exec" in given and not handler["exec"].get("command"):
        yield required(f"{field}.exec.command")
    if "httpGet" in given:
        http = handler["httpGet"]
        if not http.get("path"):
            yield required(f"{field}.httpGet.path")
        yield from port_reference(http.get("port", 0), f"{field}.httpGet.port")
        if http.get("scheme") not in (None, "HTTP", "HTTPS"):
            yield unsupported(f"{field}.httpGet.scheme", http["scheme"], ("HTTP", "HTTPS"))
    if "tcpSocket" in given:
        yield from port_reference(handler["tcpSocket"].get("port", 0), f"{field}.tcpSocket.port")
    if "grpc" in given and not 0 < handler["grpc"].get("port", 0) < 65536:
        yield invalid(f"{field}.grpc.port", handler["grpc"].get("port", 0), PORT_RANGE)


def _security(context: Object, field: str) -> Causes:
    for key in ("runAsUser", "runAsGroup"):
        if (value := context.get(key)) is not None and not 0 <= value < 2**31:
            yield invalid(f"{field}.{key}", value, "must be between 0 and 2147483647, inclusive")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(field, _shown(context), why)
        if "SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid(field, _shown(context), why)


def _shown(context: Object) -> Object:
    return dict(sorted(context.items()))

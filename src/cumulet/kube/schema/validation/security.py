"""Validation of security contexts, and of the fields that depend on the operating system."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    required,
    too_long,
    unsupported,
)
from cumulet.kube.schema.validation.paths import descending

CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_PATH_LIMIT = 4095
_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"^({_SEGMENT}[\./])*{_SEGMENT}$"
_SYSCTL_LIMIT = 253
_GMSA_LIMIT = 64
_DOMAIN_LIMIT, _USER_LIMIT = 256, 104
_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}')
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"{_HOST}(?:\.{_HOST})*")
_NOT_WINDOWS = "cannot be set for a windows pod"
#: Fields that a Windows pod must not have: in the security context and in the spec, in upstream's order.
_WINDOWS_CONTEXT = (
    ("securityContext.appArmorProfile", "securityContext.seLinuxOptions"),
    ("hostUsers", "hostPID", "hostIPC"),
    (
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
    ),
    ("shareProcessNamespace",),
    tuple(
        f"securityContext.{name}"
        for name in (
            "runAsUser",
            "runAsGroup",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "seLinuxChangePolicy",
        )
    ),
)
_WINDOWS_CONTAINER = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def all_containers(spec: Object, field: str) -> Iterator[tuple[Object, str]]:
    """Yield each container of a pod with its path, in upstream's order."""
    for key in CONTAINERS:
        for index, container in enumerate(spec.get(key) or ()):
            yield container, f"{field}.{key}[{index}]"


def pod_security(spec: Object, field: str) -> Causes:
    """Validate the security context of a pod's spec; `field` is that of the context."""
    context = spec.get("securityContext") or {}
    for name in ("fsGroup", "runAsUser", "runAsGroup"):
        if (number := context.get(name)) is not None:
            yield from all_invalid(f"{field}.{name}", number, name_formats.user_id(number))
    for index, number in enumerate(context.get("supplementalGroups") or ()):
        yield from all_invalid(f"{field}.supplementalGroups[{index}]", number, name_formats.user_id(number))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid(f"{field}.shareProcessNamespace", True, why)
    yield from _sysctls(spec, context, f"{field}.sysctls")
    if (policy := context.get("fsGroupChangePolicy")) not in (None, "Always", "OnRootMismatch"):
        yield unsupported(f"{field}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch"))
    yield from _seccomp(context.get("seccompProfile"), f"{field}.seccompProfile")
    yield from _windows(context.get("windowsOptions"), f"{field}.windowsOptions")
    yield from _app_armor(context.get("appArmorProfile"), f"{field}.appArmorProfile")
    if (policy := context.get("supplementalGroupsPolicy")) not in (None, "Merge", "Strict"):
        yield unsupported(f"{field}.supplementalGroupsPolicy", policy, ("Merge", "Strict"))
    if (policy := context.get("seLinuxChangePolicy")) not in (None, "Recursive"):
        yield unsupported(f"{field}.seLinuxChangePolicy", policy, ("Recursive",))


def _sysctls(spec: Object, context: Object, field: str) -> Causes:
    names: set[str] = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        where, name = f"{field}[{index}].name", sysctl.get("name", "")
        if not name:
            yield required(where)
        elif len(name) > _SYSCTL_LIMIT or not re.fullmatch(_SYSCTL[1:-1], name):
            yield invalid(where, name, f"must have at most {_SYSCTL_LIMIT} characters and match regex {_SYSCTL}")
        elif name in names:
            yield duplicate(where, name)
        plain = name.replace("/", ".")
        if spec.get("hostNetwork") and plain.startswith("net."):
            yield invalid(where, name, "may not be specified when 'hostNetwork' is true")
        elif spec.get("hostIPC") and (
            plain.startswith(("kernel.shm", "kernel.msg", "fs.mqueue.")) or plain == "kernel.sem"
        ):
            yield invalid(where, name, "may not be specified when 'hostIPC' is true")
        names.add(name)


def container_security(context: Object, host_users: bool, field: str) -> Causes:
    """Validate the security context of a container."""
    for name in ("runAsUser", "runAsGroup"):
        if (number := context.get(name)) is not None:
            yield from all_invalid(f"{field}.{name}", number, name_formats.user_id(number))
    if (mount := context.get("procMount")) is not None:
        if mount not in ("Default", "Unmasked"):
            yield unsupported(f"{field}.procMount", mount, ("Default", "Unmasked"))
        if host_users and mount == "Unmasked":
            yield invalid(f"{field}.procMount", mount, "`hostUsers` must be false to use `Unmasked`")
    yield from _seccomp(context.get("seccompProfile"), f"{field}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(field, context, why)
        for capability in (context.get("capabilities") or {}).get("add") or ():
            if capability == "CAP_SYS_ADMIN":
                why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
                yield invalid(field, context, why)
    yield from _windows(context.get("windowsOptions"), f"{field}.windowsOptions")
    yield from _app_armor(context.get("appArmorProfile"), f"{field}.appArmorProfile")


def _seccomp(profile: Object | None, field: str) -> Causes:
    if profile is None:
        return
    kind, path = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        yield required(f"{field}.type", "type is required when seccompProfile is set")
    elif kind not in _PROFILES:
        yield unsupported(f"{field}.type", kind, _PROFILES)
    if kind == "Localhost":
        if path is None:
            yield required(f"{field}.localhostProfile", "must be set when seccomp type is Localhost")
        else:
            yield from descending(path, f"{field}.localhostProfile")
    elif path is not None:
        shown = {"Type": kind, "LocalhostProfile": path}
        yield invalid(f"{field}.localhostProfile", shown, "can only be set when seccomp type is Localhost")


def _app_armor(profile: Object | None, field: str) -> Causes:
    if profile is None:
        return
    kind, path = profile.get("type", ""), profile.get("localhostProfile")
    where = f"{field}.localhostProfile"
    if kind == "Localhost":
        if path is None or not path.strip():
            if path:
                yield invalid(where, path, "must not be padded with whitespace")
            else:
                yield required(where, "must be set when AppArmor type is Localhost")
        elif path != path.strip():
            yield invalid(where, path, "must not be padded with whitespace")
        if len(path or "") > _PATH_LIMIT:
            yield too_long(where, _PATH_LIMIT)
    elif kind in _PROFILES:
        if path is not None:
            yield invalid(where, path, "can only be set when AppArmor type is Localhost")
    elif not kind:
        yield required(f"{field}.type", "type is required when appArmorProfile is set")
    else:
        yield unsupported(f"{field}.type", kind, _PROFILES)


def _windows(options: Object | None, field: str) -> Causes:
    if options is None:
        return
    if (name := options.get("gmsaCredentialSpecName")) is not None:
        yield from all_invalid(f"{field}.gmsaCredentialSpecName", name, name_formats.dns_subdomain(name))
    if (text := options.get("gmsaCredentialSpec")) is not None:
        if not text:
            yield invalid(f"{field}.gmsaCredentialSpec", text, "gmsaCredentialSpec cannot be an empty string")
        elif len(text) > _GMSA_LIMIT * 1024:
            why = f"gmsaCredentialSpec size must be under {_GMSA_LIMIT} KiB"
            yield invalid(f"{field}.gmsaCredentialSpec", text, why)
    if (name := options.get("runAsUserName")) is not None:
        yield from all_invalid(f"{field}.runAsUserName", name, (f"runAsUserName{why}" for why in _windows_user(name)))


def _windows_user(name: str) -> Iterator[str]:
    if not name:
        yield " cannot be an empty string"
        return
    if re.search(r"[\x00-\x1f\x7f]", name):
        yield " cannot contain control characters"
        return
    if name.count("\\") > 1:
        yield " cannot contain more than one backslash"
        return
    domain, backslash, user = name.rpartition("\\")
    if len(domain) >= _DOMAIN_LIMIT:
        yield f"'s Domain length must be under {_DOMAIN_LIMIT} characters"
    if backslash and not (_NETBIOS.fullmatch(domain) or _DOMAIN.fullmatch(domain)):
        yield "'s Domain doesn't match the NetBios nor the DNS format"
    if not user:
        yield "'s User cannot be empty"
    elif len(user) > _USER_LIMIT:
        yield f"'s User length must not be longer than {_USER_LIMIT} characters"
    if re.fullmatch(r"[. ]+", user):
        yield "'s User cannot contain only periods or spaces"
    if re.search(r'["/\\:;|=,+*?<>@\[\]]', user):
        yield "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"


def host_processes(spec: Object, field: str) -> Causes:
    """Validate Windows containers that run as host processes."""
    whole = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    count = total = 0
    for container, where in all_containers(spec, field):
        total += 1
        own = ((container.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
        if whole is not None and own is not None and whole != own:
            why = f"pod hostProcess value must be identical if both are specified, was {'true' if whole else 'false'}"
            yield invalid(f"{where}.securityContext.windowsOptions.hostProcess", own, why)
        count += bool(whole if own is None else own)
    if count and count != total:
        why = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        yield invalid(field, "", why)
    if count and not spec.get("hostNetwork"):
        why = "hostNetwork must be true if pod contains any hostProcess containers"
        yield invalid(f"{field}.hostNetwork", False, why)


def host_users(spec: Object, field: str) -> Causes:
    """Validate that a pod in its own user namespace does not use the host's namespaces."""
    if spec.get("hostUsers") is not False:
        return
    why = "when `hostUsers` is false"
    if spec.get("hostNetwork"):
        yield forbidden(f"{field}.hostNetwork", why)
    if spec.get("hostPID"):
        yield forbidden(f"{field}.HostPID", why)
    if spec.get("hostIPC"):
        yield forbidden(f"{field}.HostIPC", why)
    for container, where in all_containers(spec, field):
        if container.get("volumeDevices"):
            yield forbidden(f"{where}.volumeDevices", why)


def operating_system(spec: Object, field: str) -> Causes:
    """Validate the operating system of a pod, and the fields that do not exist on it."""
    if (system := spec.get("os")) is None:
        return
    name = system.get("name", "")
    context = spec.get("securityContext") or {}
    if not name:
        yield required(f"{field}.os.name")
    elif name == "linux":
        why = "windows options cannot be set for a linux pod"
        if "windowsOptions" in context:
            yield forbidden(f"{field}.securityContext.windowsOptions", why)
        for container, where in all_containers(spec, field):
            if "windowsOptions" in (container.get("securityContext") or {}):
                yield forbidden(f"{where}.securityContext.windowsOptions", why)
    elif name == "windows":
        yield from _unlike_windows(spec, context, field)
    else:
        yield unsupported(f"{field}.os", name, ("linux", "windows"))


def _unlike_windows(spec: Object, context: Object, field: str) -> Causes:
    for names in _WINDOWS_CONTEXT:
        for name in names:
            prefix, _, key = name.rpartition(".")
            value = (context if prefix else spec).get(key)
            if value is not None and (value or key not in ("hostPID", "hostIPC", "sysctls")):
                yield forbidden(f"{field}.{name}", _NOT_WINDOWS)
    for container, where in all_containers(spec, field):
        for name in _WINDOWS_CONTAINER:
            if name in (container.get("securityContext") or {}):
                yield forbidden(f"{where}.securityContext.{name}", _NOT_WINDOWS)

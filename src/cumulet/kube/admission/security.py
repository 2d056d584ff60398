"""Plug-in PodSecurity: the Pod Security Standards `baseline` and `restricted`, by the labels of the namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.sysctls import SAFE
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.catalog.resources import Row
from cumulet.kube.schema.strategy import pod_template
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import PodSecurityContext, PodSpec, SecurityContext

Check = Callable[["PodSpec"], Iterator[str]]

_CONTAINERS: tuple[Literal["initContainers", "containers", "ephemeralContainers"], ...] = (
    "initContainers",
    "containers",
    "ephemeralContainers",
)
_HOST_NAMESPACES: tuple[Literal["hostNetwork", "hostPID", "hostIPC"], ...] = ("hostNetwork", "hostPID", "hostIPC")
_PREFIX = "pod-security.kubernetes.io/"
_BASELINE_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)
_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)


class PodSecurity:
    """Refuses pods, and warns of workloads, that violate the level of their namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, pod: Object) -> None:
        """Check a pod against the enforced level. Raises `ApiError` 403."""
        level, version = self._level(pod["metadata"]["namespace"], "enforce")
        broken = violations(pod.get("spec") or {}, level)
        if broken:
            why = f'violates PodSecurity "{level}:{version}": {", ".join(broken)}'
            raise forbidden("", "pods", pod["metadata"]["name"], why)

    def check_update(self, pod: Object, old: Object) -> None:
        """Check a pod with a new image or container; no other change makes a pod less safe.

        Raises `ApiError` 403.
        """
        if _images(pod) - _images(old):
            self.check(pod)

    def warnings(self, row: Row, obj: Object) -> list[str]:
        """Return the violations of the warned level, for pods and for kinds with a pod template."""
        template, _ = pod_template(obj, row.group, row.kind)
        spec = (template or {}).get("spec")
        if not spec:
            return []
        warnings = []
        for mode in ("warn",) if row.key == "pods" else ("warn", "enforce"):
            level, version = self._level(obj["metadata"]["namespace"], mode)
            if texts := violations(spec, level):
                warnings.append(f'would violate PodSecurity "{level}:{version}": {", ".join(texts)}')
        return warnings[:1]

    def _level(self, namespace: str, mode: str) -> tuple[str, str]:
        stored = self._store.get("namespaces", "", namespace)
        labels = stored.labels if stored is not None else {}
        return labels.get(f"{_PREFIX}{mode}", ""), labels.get(f"{_PREFIX}{mode}-version", "latest")


def violations(spec: PodSpec, level: str) -> list[str]:
    """Return a pod's violations of a level; `privileged` and no level have none."""
    checks: tuple[Check, ...] = ()
    if level in ("baseline", "restricted"):
        checks = _BASELINE
    if level == "restricted":
        checks = (*(check for check in _BASELINE if check is not _capabilities), *_RESTRICTED)
    return [text for check in checks for text in check(spec)]


def _containers(spec: PodSpec) -> list[tuple[str, SecurityContext]]:
    return [
        (item.get("name", ""), item.get("securityContext") or {})
        for key in _CONTAINERS
        for item in spec.get(key) or ()
    ]


def _images(pod: Object) -> set[tuple[str, str]]:
    spec: PodSpec = pod.get("spec") or {}
    return {(item.get("name", ""), item.get("image", "")) for key in _CONTAINERS for item in spec.get(key) or ()}


def _named(names: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"container {quoted}" if len(names) == 1 else f"containers {quoted}"


def _host_namespaces(spec: PodSpec) -> Iterator[str]:
    names = [f"{name}=true" for name in _HOST_NAMESPACES if spec.get(name)]
    if names:
        yield f"host namespaces ({', '.join(names)})"


def _privileged(spec: PodSpec) -> Iterator[str]:
    names = [name for name, context in _containers(spec) if context.get("privileged")]
    if names:
        yield f"privileged ({_named(names)} must not set securityContext.privileged=true)"


def _capabilities(spec: PodSpec) -> Iterator[str]:
    added: dict[str, list[str]] = {}
    for name, context in _containers(spec):
        extra = [
            item
            for item in (context.get("capabilities") or {}).get("add") or ()
            if item not in _BASELINE_CAPABILITIES
        ]
        if extra:
            added[name] = extra
    if added:
        quoted = ", ".join(sorted({f'"{item}"' for items in added.values() for item in items}))
        yield f"non-default capabilities ({_named(list(added))} must not include {quoted} in securityContext.capabilities.add)"


def _host_paths(spec: PodSpec) -> Iterator[str]:
    names = [f'"{volume.get("name", "")}"' for volume in spec.get("volumes") or () if "hostPath" in volume]
    if names:
        yield f"hostPath volumes (volume{'s' if len(names) > 1 else ''} {', '.join(names)})"


def _host_ports(spec: PodSpec) -> Iterator[str]:
    used: dict[str, list[int]] = {}
    for key in _CONTAINERS:
        for container in spec.get(key) or ():
            ports = [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]
            if ports:
                used[container.get("name", "")] = ports
    if used:
        ports = sorted({port for numbers in used.values() for port in numbers})
        word = "hostPort" if len(ports) == 1 else "hostPorts"
        verb = "uses" if len(used) == 1 else "use"
        yield f"hostPort ({_named(list(used))} {verb} {word} {', '.join(map(str, ports))})"


def _proc_mount(spec: PodSpec) -> Iterator[str]:
    names = [name for name, context in _containers(spec) if context.get("procMount") not in (None, "", "Default")]
    if names:
        yield f"procMount ({_named(names)} must not set securityContext.procMount)"


def _seccomp_unconfined(spec: PodSpec) -> Iterator[str]:
    contexts: list[tuple[str, PodSecurityContext | SecurityContext]] = [
        ("pod", spec.get("securityContext") or {}),
        *_containers(spec),
    ]
    names = [name for name, context in contexts if (context.get("seccompProfile") or {}).get("type") == "Unconfined"]
    if names:
        who = " and ".join(filter(None, ("pod" if names[0] == "pod" else "", _named(names[1:]) if names[1:] else "")))
        who = who or _named(names)
        yield f'seccompProfile ({who} must not set securityContext.seccompProfile.type to "Unconfined")'


def _sysctls(spec: PodSpec) -> Iterator[str]:
    names = [item.get("name", "") for item in (spec.get("securityContext") or {}).get("sysctls") or ()]
    bad = [name for name in names if name not in SAFE]
    if bad:
        yield f"forbidden sysctls ({', '.join(bad)})"


def _volume_types(spec: PodSpec) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        kinds = sorted(key for key in volume if key not in _VOLUMES and key != "name")
        if kinds:
            yield f'restricted volume types (volume "{volume.get("name", "")}" uses restricted volume type "{kinds[0]}")'


def _escalation(spec: PodSpec) -> Iterator[str]:
    names = [name for name, context in _containers(spec) if context.get("allowPrivilegeEscalation") is not False]
    if names:
        what = "must set securityContext.allowPrivilegeEscalation=false"
        yield f"allowPrivilegeEscalation != false ({_named(names)} {what})"


def _drop_all(spec: PodSpec) -> Iterator[str]:
    keeping, adding = [], []
    for name, context in _containers(spec):
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            keeping.append(name)
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            adding.append(name)
    parts = []
    if keeping:
        parts.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        parts.append(
            f'{_named(adding)} must not include anything but "NET_BIND_SERVICE" in securityContext.capabilities.add'
        )
    if parts:
        yield f"unrestricted capabilities ({'; '.join(parts)})"


def _not_root(spec: PodSpec) -> Iterator[str]:
    of_pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    names = [name for name, context in _containers(spec) if context.get("runAsNonRoot", of_pod) is not True]
    if names:
        yield f"runAsNonRoot != true (pod or {_named(names)} must set securityContext.runAsNonRoot=true)"


def _root_user(spec: PodSpec) -> Iterator[str]:
    contexts: list[tuple[str, PodSecurityContext | SecurityContext]] = [
        ("pod", spec.get("securityContext") or {}),
        *_containers(spec),
    ]
    names = [name for name, context in contexts if context.get("runAsUser") == 0]
    if names:
        who = "pod" if names[0] == "pod" else _named(names)
        yield f"runAsUser=0 ({who} must not set runAsUser=0)"


def _seccomp(spec: PodSpec) -> Iterator[str]:
    of_pod = (spec.get("securityContext") or {}).get("seccompProfile")
    allowed = ("RuntimeDefault", "Localhost")
    names = [
        name
        for name, context in _containers(spec)
        if ((context.get("seccompProfile") or of_pod) or {}).get("type") not in allowed
    ]
    if names:
        what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {_named(names)} {what})"


_BASELINE: tuple[Check, ...] = (
    _host_namespaces,
    _privileged,
    _capabilities,
    _host_paths,
    _host_ports,
    _proc_mount,
    _seccomp_unconfined,
    _sysctls,
)
_RESTRICTED: tuple[Check, ...] = (_escalation, _drop_all, _volume_types, _not_root, _root_user, _seccomp)

"""Translates a pod's security fields to a container group's `securityContext`.

Seccomp profiles of the type Localhost are files beneath `seccomp` in the data directory. In a kubelet they are beneath
`/var/lib/kubelet/seccomp`. ACI accepts a profile as base64 of JSON.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Literal

from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import Container, Pod, PodSecurityContext
from cumulet.common.kubernetes.sysctls import SAFE, normal
from cumulet.node.errors import MissingError, RejectedError, UnsupportedError
from cumulet.node.resource import GroupSecurityContext

_SEGMENT = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}", re.ASCII)
#: Bytes of a profile; container groups refuse larger ones.
_PROFILE_LIMIT = 64 * 1024

#: Numeric fields of both security contexts; the container's take precedence.
_IDS: tuple[Literal["runAsUser", "runAsGroup"], ...] = ("runAsUser", "runAsGroup")


def check_sysctls(pod: Pod) -> None:
    """Raises `RejectedError` for a sysctl that is not in the safe set, in the kubelet's words."""
    for sysctl in (pod["spec"].get("securityContext") or {}).get("sysctls") or ():
        if normal(sysctl["name"]) not in SAFE:
            raise RejectedError("SysctlForbidden", f'forbidden sysctl: "{sysctl["name"]}" not allowlisted')


def security_context(pod: Pod, container: Container, config: Config) -> GroupSecurityContext:
    """Return the container's `securityContext`, empty when neither the container nor its pod has one.

    Raises `MissingError` when the node lacks the seccomp profile, `UnsupportedError` when its name is not valid.
    """
    above = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    translated: GroupSecurityContext = {}
    if (escalation := own.get("allowPrivilegeEscalation")) is not None:
        translated["allowPrivilegeEscalation"] = escalation
    if (capabilities := own.get("capabilities")) is not None:
        translated["capabilities"] = capabilities
    if (read_only := own.get("readOnlyRootFilesystem")) is not None:
        translated["readOnlyRootFilesystem"] = read_only
    for name in _IDS:
        number = own.get(name) if own.get(name) is not None else above.get(name)
        if number is not None:
            translated[name] = number
    non_root = own.get("runAsNonRoot") if own.get("runAsNonRoot") is not None else above.get("runAsNonRoot")
    if non_root is not None:
        translated["runAsNonRoot"] = non_root
    if groups := above.get("supplementalGroups"):
        translated["supplementalGroups"] = groups
    profile = own.get("seccompProfile") or above.get("seccompProfile") or {}
    if profile.get("type") == "Localhost":
        translated["seccompProfile"] = _local(config.data_dir / "seccomp", profile.get("localhostProfile") or "")
    return translated


def pod_security_context(pod: Pod) -> PodSecurityContext:
    """Return the parts of a pod's `securityContext` that concern the whole group."""
    above = pod["spec"].get("securityContext") or {}
    translated: PodSecurityContext = {}
    if (number := above.get("fsGroup")) is not None:
        translated["fsGroup"] = number
    if change := above.get("fsGroupChangePolicy"):
        translated["fsGroupChangePolicy"] = change
    if policy := above.get("supplementalGroupsPolicy"):
        translated["supplementalGroupsPolicy"] = policy
    if sysctls := above.get("sysctls"):
        translated["sysctls"] = sysctls
    return translated


def _local(folder: Path, name: str) -> str:
    """Return the base64 of a profile of the node."""
    parts = name.split("/")
    if not all(_SEGMENT.fullmatch(part) for part in parts):
        raise UnsupportedError(f"the seccomp profile {name!r} is not the path of a file beneath the node's profiles")
    path = folder.joinpath(*parts)
    try:
        with path.open("rb") as file:
            content = file.read(_PROFILE_LIMIT + 1)
    except OSError as error:
        raise MissingError(f'cannot load seccomp profile "{path}": {error.strerror}') from None
    if len(content) > _PROFILE_LIMIT:
        raise UnsupportedError(f"the seccomp profile {name} is larger than {_PROFILE_LIMIT} bytes")
    return base64.b64encode(content).decode()

"""From a pod's security fields to a container group's `securityContext`: honoured, or refused by name.

Seccomp profiles of the type Localhost are files of the node, beneath `seccomp` in the data directory, as a kubelet has
them beneath `/var/lib/kubelet/seccomp`. ACI takes a profile as base64 of JSON.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from cumulet.common.config import Config
from cumulet.node.references import MissingError, UnsupportedError

Object = dict[str, Any]

_SEGMENT = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}", re.ASCII)
#: Bytes of a profile; larger ones are refused by the container group.
_PROFILE_LIMIT = 64 * 1024

#: Passed on as they are; those in the second list may stand in the pod's own security context too.
_PASSED = ("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem")
_INHERITED = ("runAsUser", "runAsGroup", "runAsNonRoot")
_POD = {*_INHERITED, "fsGroup", "fsGroupChangePolicy", "supplementalGroups", "supplementalGroupsPolicy", "sysctls",
        "seccompProfile", "appArmorProfile", "seLinuxOptions", "seLinuxChangePolicy", "windowsOptions"}  # fmt: skip
_CONTAINER = {*_PASSED, *_INHERITED, "privileged", "procMount", "seccompProfile", "appArmorProfile", "seLinuxOptions",
              "windowsOptions"}  # fmt: skip


def check_security(pod: Object) -> None:
    """Raises `UnsupportedError` for what no container group can have."""
    spec = pod["spec"]
    name = pod["metadata"]["name"]
    for field in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        if spec.get(field):
            raise UnsupportedError(f"pod {name} asks for {field}, which virtual nodes do not have")
    context = spec.get("securityContext") or {}
    _check(f"pod {name}", context, _POD)
    if context.get("sysctls"):
        names = ", ".join(item["name"] for item in context["sysctls"])
        raise UnsupportedError(f"pod {name} sets sysctls ({names}), which virtual nodes do not allow")
    if context.get("supplementalGroupsPolicy") == "Strict":
        raise UnsupportedError(
            f"pod {name} has the supplementalGroupsPolicy Strict, which virtual nodes do not have: leave it out"
        )
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        _check(f"container {container['name']}", container.get("securityContext") or {}, _CONTAINER)


def security_context(pod: Object, container: Object, config: Config) -> Object:
    """The container's `securityContext`, empty where neither it nor its pod has one.

    Raises `MissingError` where the node lacks a profile, `UnsupportedError` where its name is not one.
    """
    above = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    found: Object = {name: own[name] for name in _PASSED if own.get(name) is not None}
    for name in _INHERITED:
        value = own[name] if own.get(name) is not None else above.get(name)
        if value is not None:
            found[name] = value
    groups = [*(above.get("supplementalGroups") or ()), *([above["fsGroup"]] if "fsGroup" in above else ())]
    if groups:
        found["supplementalGroups"] = groups
    profile = own.get("seccompProfile") or above.get("seccompProfile") or {}
    if profile.get("type") == "Localhost":
        found["seccompProfile"] = _local(config.data_dir / "seccomp", profile.get("localhostProfile") or "")
    return found


def _check(who: str, context: Object, known: set[str]) -> None:
    if context.get("privileged"):
        raise UnsupportedError(f"{who} is privileged, which virtual nodes do not allow")
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        raise UnsupportedError(
            f"{who} has the seccomp profile Unconfined, which virtual nodes do not allow: use RuntimeDefault or Localhost"
        )
    if (context.get("appArmorProfile") or {}).get("type", "Unconfined") != "Unconfined":
        raise UnsupportedError(
            f"Cannot enforce AppArmor: {who} has a profile, and AppArmor is not enabled on the node"
        )
    if context.get("procMount", "Default") != "Default":
        raise UnsupportedError(f"{who} has the procMount {context['procMount']}, which virtual nodes do not allow")
    for field in ("seLinuxOptions", "windowsOptions"):
        if context.get(field):
            raise UnsupportedError(f"{who} has {field}, which virtual nodes do not have")
    if unknown := sorted(context.keys() - known):
        raise UnsupportedError(
            f"{who} has a securityContext with {', '.join(unknown)}, which virtual nodes do not know"
        )


def _local(folder: Path, name: str) -> str:
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

"""The `securityContext` of a container: every field is checked, and refused by name unless it can be honoured.

The fields are ACI's (REST reference 2023-05-01, `SecurityContextDefinition`), with `seccompProfile` as base64 of JSON.
Extensions to ACI's API: Kubernetes' `readOnlyRootFilesystem`, `runAsNonRoot` and `supplementalGroups`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cumulet.common.ascii import raised
from cumulet.instances.security.seccomp import SeccompError, parse_profile

#: The default of containerd and docker.
DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
#: The capabilities that are safe to add with a user namespace only: without one, they reach beyond the group.
NAMESPACED_CAPABILITIES = frozenset({"DAC_READ_SEARCH", "SYS_NICE", "SYS_RESOURCE"})
#: The capabilities that a container can add: they are limited to its group's network and processes, and to its own files.
ADDABLE_CAPABILITIES = (
    DEFAULT_CAPABILITIES | NAMESPACED_CAPABILITIES | {"IPC_LOCK", "IPC_OWNER", "LEASE", "NET_BROADCAST", "SYS_PTRACE"}
)
_KERNEL = "it opens parts of the kernel that all groups share, and that containers have been left through"
_MACHINE = "it concerns the whole machine"
#: The other capabilities of Linux (capabilities(7)), and why no container has them.
_REFUSED_CAPABILITIES = {
    "AUDIT_CONTROL": _MACHINE,
    "AUDIT_READ": _MACHINE,
    "BLOCK_SUSPEND": _MACHINE,
    "BPF": _KERNEL,
    "CHECKPOINT_RESTORE": _KERNEL,
    "LINUX_IMMUTABLE": "a user namespace does not have it",
    "MAC_ADMIN": _MACHINE,
    "MAC_OVERRIDE": _MACHINE,
    "NET_ADMIN": _KERNEL,
    "PERFMON": _KERNEL,
    "SYSLOG": _MACHINE,
    "SYS_ADMIN": _KERNEL,
    "SYS_BOOT": _MACHINE,
    "SYS_MODULE": _MACHINE,
    "SYS_PACCT": _MACHINE,
    "SYS_RAWIO": _MACHINE,
    "SYS_TIME": _MACHINE,
    "SYS_TTY_CONFIG": _MACHINE,
    "WAKE_ALARM": _MACHINE,
}
#: Kubernetes' bound of ids.
_IDS = 2**31
_GROUPS = 32


class SecurityContextError(ValueError):
    """A field cannot be honoured; `field` is its path in the `securityContext`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Capabilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names without `CAP_`, or `ALL`. `ALL` in `drop` takes effect before `add`."""

    add: list[str] | None = None
    drop: list[str] | None = None


class SecurityContext(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A security context; ids are below 2**31."""

    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] | None = None
    read_only_root_filesystem: bool | None = None
    seccomp_profile: str | None = None

    def capability_names(self) -> list[str]:
        """Return the effective capabilities as `CAP_…`, sorted, combined as in Kubernetes."""
        requested = self.capabilities or Capabilities()
        added = {_plain(name) for name in requested.add or ()}
        dropped = {_plain(name) for name in requested.drop or ()}
        kept = frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES
        return sorted(f"CAP_{name}" for name in (kept | added) - dropped)

    def filtered_capabilities(self) -> list[str]:
        """Return the capabilities that open system calls.

        NET_RAW is in the default for programs such as ping, whose files demand it. Packet sockets are for who asks for it.
        """
        asked = {_plain(name) for name in (self.capabilities or Capabilities()).add or ()}
        return [name for name in self.capability_names() if name != "CAP_NET_RAW" or "NET_RAW" in asked]


def parse(document: Mapping[str, object] | None) -> SecurityContext:
    """Return a checked security context; the defaults for `None`. Raises `SecurityContextError`."""
    try:
        context = msgspec.convert(document or {}, SecurityContext)
    except msgspec.ValidationError as error:
        raise SecurityContextError("", str(error)) from None
    if context.privileged:
        raise SecurityContextError("privileged", "privileged containers are not allowed on this platform")
    _check_capabilities(context.capabilities or Capabilities())
    _check_id("runAsUser", context.run_as_user)
    _check_id("runAsGroup", context.run_as_group)
    for number in context.supplemental_groups or ():
        _check_id("supplementalGroups", number)
    if len(context.supplemental_groups or ()) > _GROUPS:
        raise SecurityContextError("supplementalGroups", f"more than {_GROUPS} groups")
    if context.seccomp_profile is not None:
        try:
            parse_profile(context.seccomp_profile)
        except SeccompError as error:
            raise SecurityContextError("seccompProfile", str(error)) from None
    return context


def stored(document: Mapping[str, object] | None) -> SecurityContext:
    """Return the security context of a stored group, without fields that only an earlier version accepted."""
    try:
        return parse(document)
    except SecurityContextError:
        valid = {name: value for name, value in (document or {}).items() if _is_valid(name, value)}
        return parse(valid)


def needs_user_namespace(capabilities: Iterable[str]) -> set[str]:
    """Return the names, among capabilities as `CAP_…`, of those that are only safe in a user namespace."""
    return {_plain(name) for name in capabilities} & NAMESPACED_CAPABILITIES


def _is_valid(name: str, value: object) -> bool:
    try:
        parse({name: value})
    except SecurityContextError:
        return False
    return True


def _check_capabilities(capabilities: Capabilities) -> None:
    known = ADDABLE_CAPABILITIES | _REFUSED_CAPABILITIES.keys()
    for name in (_plain(name) for name in capabilities.drop or ()):
        if name != "ALL" and name not in known:
            raise SecurityContextError("capabilities.drop", f"{name!r} is not a capability")
    for name in (_plain(name) for name in capabilities.add or ()):
        if name not in ADDABLE_CAPABILITIES:
            why = _REFUSED_CAPABILITIES.get(name)
            allowed = ", ".join(sorted(ADDABLE_CAPABILITIES))
            raise SecurityContextError(
                "capabilities.add",
                f"the capability {name[:40]!r} is not allowed{f': {why}' if why else ''}; it is one of {allowed}",
            )


def _check_id(field: str, number: int | None) -> None:
    if number is not None and not 0 <= number < _IDS:
        raise SecurityContextError(field, f"{number} is not an id from 0 to {_IDS - 1}")


def _plain(name: str) -> str:
    """Return a capability in upper case, without `CAP_`."""
    return raised(name).removeprefix("CAP_")

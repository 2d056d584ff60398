"""As whom a container runs, and with which rights: ACI's securityContext, and of Kubernetes' what a group can have.

Beside ACI's properties: `readOnlyRootFilesystem`, `runAsNonRoot`, and a `seccompProfile` that is an object as Kubernetes
has it; ACI's, a profile in base64, is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_CAPABILITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,39}")


class SecurityContextError(ValueError):
    """A security context that no container here can have; `field` is what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class _Base(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    pass


class Capabilities(_Base):
    """Capabilities beside the usual ones, and those of the usual ones that are not had; `ALL` is all."""

    add: list[str] = []
    drop: list[str] = []


class SeccompProfile(_Base):
    """The system calls that are allowed, as Kubernetes has it."""

    type: str
    localhost_profile: str | None = None


class SecurityContext(_Base):
    """See the module."""

    run_as_user: _Id | None = None
    run_as_group: _Id | None = None
    run_as_non_root: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | str | None = None


def parse(document: dict[str, Any] | None) -> SecurityContext:
    """A checked security context; of none, the defaults. Raises `SecurityContextError`."""
    try:
        context = msgspec.convert(document or {}, SecurityContext)
    except msgspec.ValidationError as error:
        raise SecurityContextError("", str(error)) from None
    if context.privileged:
        raise SecurityContextError("privileged", "privileged containers are not allowed on this platform")
    profile = context.seccomp_profile
    if isinstance(profile, str) or (profile is not None and profile.type != "RuntimeDefault"):
        raise SecurityContextError("seccompProfile", "the only profile here is RuntimeDefault")
    asked = context.capabilities or Capabilities()
    if not all(_CAPABILITY.fullmatch(name) for name in (*asked.add, *asked.drop)):
        raise SecurityContextError("capabilities", "a name is not that of a capability")
    return context


def stored(document: dict[str, Any] | None) -> SecurityContext:
    """That of a group which an earlier version took without a check: what would be refused is left out."""
    try:
        return parse(document)
    except SecurityContextError:
        return parse({name: value for name, value in (document or {}).items() if _is_good(name, value)})


def _is_good(name: str, value: Any) -> bool:
    try:
        parse({name: value})
    except SecurityContextError:
        return False
    return True

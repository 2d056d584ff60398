"""The allow list of system calls of a container (OCI Runtime Specification 1.0, "Seccomp").

The list is in `seccomp.json`: the calls that docker allows by default. Four rules are stricter (`scripts/make_seccomp.py`).
The family in `socket` is compared as the kernel reads it, 32 bits wide. `socketcall`, whose arguments no filter can read,
fails as if the kernel lacked it: 32-bit programs can call `socket` since Linux 4.3. Packet sockets, which read and write
frames of the network, need NET_RAW in `capabilities`. The x32 ABI, which distributions have off, is not open: its calls end
a program with SIGSYS, and the runtime compiles a third less at every start. A container's own profile can only shorten the
list.
"""

from __future__ import annotations

import base64
import binascii
import errno
import platform
import re
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Required, TypedDict

import msgspec

#: Bytes of JSON of a container's own profile; docker's default has a fifth of them.
PROFILE_LIMIT = 64 * 1024

_ALLOW, _LOG, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO"
_PERMITS = (_ALLOW, _LOG)
_REFUSALS = (_ERRNO, "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP")
_COMPARISONS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
                "SCMP_CMP_MASKED_EQ")  # fmt: skip


class Argument(TypedDict, total=False):
    """A condition on an argument."""

    index: int
    value: int
    valueTwo: int
    op: str


class Rule(TypedDict, total=False):
    """An action for system calls, under the conditions in `args`."""

    names: Required[list[str]]
    action: Required[str]
    errnoRet: int
    args: list[Argument]


class SeccompProfile(TypedDict, total=False):
    """`linux.seccomp` of the runtime configuration."""

    defaultAction: Required[str]
    defaultErrnoRet: int
    architectures: Required[list[str]]
    syscalls: Required[list[Rule]]


class SeccompError(ValueError):
    """A profile is not valid; the message has the reason."""


class _Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An argument equals `value`, where `mask` keeps the bits to compare; both are hexadecimal. `also` must hold too."""

    argument: int
    value: str
    mask: str | None = None
    also: _Condition | None = None

    def rules(self) -> list[Argument]:
        return [self._rule(), *(self.also.rules() if self.also is not None else ())]

    def _rule(self) -> Argument:
        if self.mask is None:
            return {"index": self.argument, "value": int(self.value, 16), "op": "SCMP_CMP_EQ"}
        return {
            "index": self.argument,
            "value": int(self.mask, 16),
            "valueTwo": int(self.value, 16),
            "op": "SCMP_CMP_MASKED_EQ",
        }


class _Architecture(msgspec.Struct, frozen=True):
    names: list[str]
    calls: list[str]


class _Without(msgspec.Struct, frozen=True):
    """For a container without a capability: conditional calls, and calls that fail as if the kernel lacked them."""

    conditions: list[str]
    not_there: list[str]


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    architectures: dict[str, _Architecture]
    always: list[str]
    since_kernel: dict[str, list[str]]
    with_capability: dict[str, list[str]]
    without_capability: dict[str, _Without]
    conditions: dict[str, list[_Condition]]
    conditions_with_capability: dict[str, dict[str, list[_Condition]]]
    never: list[str]


def default_profile(
    capabilities: Collection[str], *, machine: str | None = None, kernel: str | None = None
) -> SeccompProfile:
    """Return the filter of a container with these capabilities (`CAP_…`): `RuntimeDefault` in Kubernetes.

    Raises `SeccompError` on a processor without a list, so that no container runs unconfined.
    """
    facts = _facts()
    machine = machine or platform.machine()
    if machine not in facts.architectures:
        raise SeccompError(f"there is no list of system calls for the processor {machine}")
    allowed = set(facts.always)
    allowed.update(facts.architectures[machine].calls)
    for version, names in facts.since_kernel.items():
        if _version(kernel or platform.release()) >= _version(version):
            allowed.update(names)
    for capability in capabilities:
        allowed.update(facts.with_capability.get(capability, ()))
    lacking = [found for name, found in facts.without_capability.items() if name not in capabilities]
    optional = {name for found in facts.without_capability.values() for name in found.conditions}
    conditional = (facts.conditions.keys() - optional) | {name for found in lacking for name in found.conditions}
    missing = sorted({*facts.never, *(name for found in lacking for name in found.not_there)})
    # First, because libseccomp derives a rule for `socketcall` from the one for `socket`, and the earlier one wins.
    rules: list[Rule] = [
        {"names": missing, "action": _ERRNO, "errnoRet": errno.ENOSYS},
        {"names": sorted(allowed - conditional), "action": _ALLOW},
    ]
    for name in sorted(conditional):
        more = [
            condition
            for capability, found in facts.conditions_with_capability.items()
            if capability in capabilities
            for condition in found.get(name, ())
        ]
        rules += (
            {"names": [name], "action": _ALLOW, "args": condition.rules()}
            for condition in (*facts.conditions[name], *more)
        )
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": errno.EPERM,
        "architectures": facts.architectures[machine].names,
        "syscalls": rules,
    }


class _Argument(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Call(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    comment: str = ""


class Profile(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A container's own profile, in the form of the OCI runtime configuration.

    Its `architectures` are ignored: it applies to every architecture of the default.
    """

    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    syscalls: list[_Call] = []


def parse_profile(text: str) -> Profile:
    """Parse ACI's `seccompProfile`, base64 of JSON. Raises `SeccompError`."""
    if len(text) > PROFILE_LIMIT * 4 // 3 + 4:
        raise SeccompError(f"it is larger than {PROFILE_LIMIT} bytes")
    try:
        profile = msgspec.json.decode(base64.b64decode(text, validate=True), type=Profile)
    except (binascii.Error, ValueError) as error:
        raise SeccompError(f"it is not base64 of a seccomp profile in JSON: {error}") from None
    if profile.default_action not in (*_PERMITS, *_REFUSALS):
        raise SeccompError(f"the defaultAction {profile.default_action!r} is not supported")
    permits = profile.default_action in _PERMITS
    for call in profile.syscalls:
        if call.action not in (*_PERMITS, *_REFUSALS):
            raise SeccompError(f"the action {call.action!r} is not supported")
        if not all(re.fullmatch(r"[a-z0-9_]{1,64}", name, re.ASCII) for name in call.names):
            raise SeccompError("names has a name that is not a system call's")
        for argument in call.args or ():
            if argument.op not in _COMPARISONS or not 0 <= argument.index <= 5:
                raise SeccompError("args has a condition that is not valid")
            if not 0 <= min(argument.value, argument.value_two) <= max(argument.value, argument.value_two) < 2**64:
                raise SeccompError("args has a value that does not fit into 64 bits")
        if call.args and (permits or call.action not in _PERMITS):
            raise SeccompError("args can only narrow a call that is allowed, below a defaultAction that refuses")
        if call.errno_ret is not None and not 0 < call.errno_ret < 4096:
            raise SeccompError("errnoRet is not an error number")
    return profile


def restricted_profile(
    profile: Profile, capabilities: Collection[str], *, machine: str | None = None
) -> SeccompProfile:
    """Return the filter that allows a call only if both the default and the profile do. Raises `SeccompError`."""
    found = default_profile(capabilities, machine=machine)
    permits = profile.default_action in _PERMITS
    refused = [call for call in profile.syscalls if call.action in _REFUSALS]
    never = {name for call in refused for name in call.names}
    allowed = {
        name: call.action
        for call in profile.syscalls
        if call.action in _PERMITS and not call.args
        for name in call.names
    }
    narrowed = [call for call in profile.syscalls if call.action in _PERMITS and call.args]

    def action_of(name: str) -> str | None:
        return None if name in never else allowed.get(name, profile.default_action if permits else None)

    rules: list[Rule] = []
    unconditional: set[str] = set()
    for rule in found["syscalls"]:
        if rule["action"] != _ALLOW:
            rules.append({**rule, "names": [name for name in rule["names"] if name not in never]})
            continue
        if "args" not in rule:
            unconditional = set(rule["names"])
        rules += (
            {**rule, "names": [name for name in rule["names"] if action_of(name) == action], "action": action}
            for action in _PERMITS
        )
    conditional = {name for rule in found["syscalls"] if "args" in rule for name in rule["names"]}
    for call in narrowed:
        if both := sorted(conditional & set(call.names) - allowed.keys() - never):
            raise SeccompError(f"args of {', '.join(both)} cannot be joined with the default's: leave them out")
        names = sorted(unconditional & set(call.names) - allowed.keys() - never)
        rules.append({"names": names, "action": call.action, "args": [_argument(item) for item in call.args or ()]})
    for call in refused:
        default = (call.action, call.errno_ret) == (profile.default_action, profile.default_errno_ret)
        if not default:
            refusal: Rule = {"names": sorted(set(call.names)), "action": call.action}
            if call.errno_ret is not None:
                refusal["errnoRet"] = call.errno_ret
            rules.append(refusal)
    if not permits:
        found["defaultAction"] = profile.default_action
        found.pop("defaultErrnoRet")
        if profile.default_action == _ERRNO:
            found["defaultErrnoRet"] = profile.default_errno_ret or errno.EPERM
    return {**found, "syscalls": [rule for rule in rules if rule["names"]]}


def _argument(argument: _Argument) -> Argument:
    return {"index": argument.index, "value": argument.value, "valueTwo": argument.value_two, "op": argument.op}


@cache
def _facts() -> _Facts:
    text = resources.files(__package__).joinpath("seccomp.json").read_bytes()
    return msgspec.json.decode(text, type=_Facts)


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else (0, 0)

"""Makes `instances/security/seccomp.json`: python scripts/make_seccomp.py FILE [--check].

`FILE` is docker's default profile, `seccomp/default.json` of https://github.com/moby/profiles. It says which calls are
allowed, with which capabilities, on which processors and kernels. What is decided here are the conditions on arguments, which
are stricter (`instances/security/seccomp.py`), `socketcall`, whose arguments no filter can read, and the x32 ABI.

With `--check` it writes nothing, and fails when the file is not up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src" / "cumulet" / "instances" / "security" / "seccomp.json"

_ALLOW, _ERRNO, _ENOSYS = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", 38
#: The processors of this project by their names in `uname`, in Go, and in libseccomp.
_MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
#: A call that fails as if the kernel lacked it.
_NEVER = ("socketcall",)
#: An ABI that distributions have off: the runtime compiles the list for each architecture at every start of a container.
_CLOSED = ("SCMP_ARCH_X32",)
#: A call of another processor, which the profile allows on all of them.
_ELSEWHERE = frozenset({"riscv_hwprobe"})
#: Address families that `socket` opens to everybody: all but AF_INET (below), AF_PACKET (17), AF_ALG (38) and AF_VSOCK (40).
#: Each row is the bits that are compared, and their value.
_FAMILIES = (
    (0xFFFFFFFE, 0),
    (0xFFFFFFFF, 3),
    (0xFFFFFFFC, 4),
    (0xFFFFFFF8, 8),
    (0xFFFFFFFF, 16),
    (0xFFFFFFFE, 18),
    (0xFFFFFFFC, 20),
    (0xFFFFFFF8, 24),
    (0xFFFFFFFC, 32),
    (0xFFFFFFFE, 36),
    (0xFFFFFFFF, 39),
    (0xFFFFFFFF, 41),
    (0xFFFFFFFE, 42),
    (0xFFFFFFFC, 44),
)
_WHOLE = 0xFFFFFFFF
_INET, _PACKET = 2, 17
#: The bit of SOCK_PACKET (10) that SOCK_STREAM, SOCK_DGRAM, SOCK_RAW and SOCK_SEQPACKET do not have.
_SOCK_PACKET = 8


def main(arguments: list[str]) -> int:
    """Write the file, or compare it."""
    profile = json.loads(Path(arguments[0]).read_text())
    text = json.dumps(_facts(profile), indent=1) + "\n"
    if "--check" in arguments[1:]:
        return 0 if TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


def _facts(profile: Mapping[str, Any]) -> dict[str, Any]:
    rules = profile["syscalls"]
    allowed = [rule for rule in rules if rule["action"] == _ALLOW and not rule.get("args")]
    conditions = {
        "clone": [_equal(argument["value"], 0) for argument in _arguments(rules, "clone", excluded="CAP_SYS_ADMIN")],
        "personality": [_exact(argument["value"]) for argument in _arguments(rules, "personality")],
        "socket": _sockets(),
    }
    return {
        "source": "docker's default profile (https://github.com/moby/profiles, seccomp/default.json), made stricter by "
        "scripts/make_seccomp.py",
        "architectures": {machine: _architecture(profile, machine) for machine in _MACHINES},
        "always": _names(rule for rule in allowed if not rule.get("includes")),
        "since_kernel": {
            rule["includes"]["minKernel"]: _names([rule])
            for rule in allowed
            if "minKernel" in rule.get("includes", {})
        },
        "with_capability": {
            capability: _names([rule])
            for rule in sorted(allowed, key=lambda rule: str(rule.get("includes")))
            for capability in rule.get("includes", {}).get("caps", ())
        },
        "without_capability": {
            capability: {"conditions": ["clone"], "not_there": _names([rule])}
            for rule in rules
            if rule["action"] == _ERRNO and rule.get("errnoRet") == _ENOSYS
            for capability in rule["excludes"]["caps"]
        },
        "conditions": conditions,
        "conditions_with_capability": {
            "CAP_NET_RAW": {"socket": [_equal(_WHOLE, _INET), _equal(_WHOLE, _PACKET)]},
        },
        "never": list(_NEVER),
    }


def _architecture(profile: Mapping[str, Any], machine: str) -> dict[str, list[str]]:
    go, libseccomp = _MACHINES[machine]
    (family,) = [item for item in profile["archMap"] if item["architecture"] == libseccomp]
    calls = [rule for rule in profile["syscalls"] if go in rule.get("includes", {}).get("arches", ())]
    return {
        "names": [libseccomp, *(name for name in family["subArchitectures"] if name not in _CLOSED)],
        "calls": _names(calls),
    }


def _names(rules: Any) -> list[str]:
    return sorted({name for rule in rules for name in rule["names"]} - {*_NEVER, *_ELSEWHERE})


def _arguments(rules: Any, name: str, excluded: str = "") -> Iterator[dict[str, Any]]:
    """Yield the conditions on the first argument of a call; `excluded` is a capability that has no conditions."""
    for rule in rules:
        if name in rule["names"] and (not excluded or excluded in rule.get("excludes", {}).get("caps", ())):
            yield from (argument for argument in rule.get("args") or () if argument["index"] == 0)


def _sockets() -> list[dict[str, Any]]:
    rows = [_equal(mask, value) for mask, value in _FAMILIES]
    inet = {**_equal(_WHOLE, _INET), "also": {"argument": 1, "mask": hex(_SOCK_PACKET), "value": "0x0"}}
    return [rows[0], inet, *rows[1:]]


def _equal(mask: int, value: int) -> dict[str, Any]:
    return {"argument": 0, "mask": hex(mask), "value": hex(value)}


def _exact(value: int) -> dict[str, Any]:
    return {"argument": 0, "value": hex(value)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

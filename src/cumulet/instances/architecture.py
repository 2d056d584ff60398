"""The architecture of this machine, as images name it (GOARCH) and as seccomp does."""

from __future__ import annotations

import platform

_KNOWN: dict[str, tuple[str, list[str]]] = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}

#: What an image index has for this machine, and the sets of system calls that its kernel knows.
GOARCH, SECCOMP = _KNOWN.get(platform.machine(), (platform.machine(), []))

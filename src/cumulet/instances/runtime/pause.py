"""The container that holds the PID namespace which the containers of a group share: its process is the first one there.

It is Kubernetes' pause container. Its program ignores SIGCHLD, so that the kernel removes orphaned processes that end, and
waits for ever. A program of this machine would show the machine's files to the group, through `/proc/1/root`; so there
is one of its own, an ELF file of one segment, alone in its root.
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path

from cumulet.instances.runtime.bundle import UserMapping, mappings, namespaces
from cumulet.instances.runtime.configuration import Configuration
from cumulet.instances.runtime.limits import lowest_oom_score
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.security.seccomp import default_profile

_PROGRAM = "pause"
#: The user and group of Kubernetes' pause image, and its score for the kernel's choice of processes to kill.
_USER, _SCORE = 65535, -998
_PROCESSES = 16
_ADDRESS, _PAGE = 0x400000, 0x10000
_HEADERS = 64 + 56
_SIGCHLD, _SIG_IGN = 17, 1
#: `struct kernel_sigaction`: the handler, flags, restorer and mask.
_ACTION = struct.pack("<4Q", _SIG_IGN, 0, 0, 0)


def write_program(folder: Path) -> None:
    """Write the program in a folder, which becomes the container's root. Raises `SandboxError`, `OSError`."""
    programs = {"x86_64": (62, _x86_64), "aarch64": (183, _aarch64)}
    if platform.machine() not in programs:
        raise SandboxError(f"shareProcessNamespace is not supported on the processor {platform.machine()}")
    machine, code = programs[platform.machine()]
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / _PROGRAM
    path.write_bytes(_elf(machine, code()))
    path.chmod(0o555)


def describe_pause(
    root: Path, *, namespace: Path, hostname: str, cgroup: str, users: UserMapping | None
) -> Configuration:
    """Return the configuration of the container whose root is mounted at a path. Raises `SeccompError`."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": _USER, "gid": _USER, "additionalGids": []},
            "args": [f"/{_PROGRAM}"],
            "env": [],
            "cwd": "/",
            "rlimits": [],
            "oomScoreAdj": max(_SCORE, lowest_oom_score()),
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": hostname,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": namespaces(namespace, users),
            "uidMappings": mappings(users),
            "gidMappings": mappings(users),
            "cgroupsPath": cgroup,
            "resources": {
                "cpu": {},
                "memory": {},
                "pids": {"limit": _PROCESSES},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "sysctl": {},
            "maskedPaths": [],
            "readonlyPaths": [],
            "seccomp": default_profile([]),
        },
    }


def _elf(machine: int, code: bytes) -> bytes:
    """Return an executable with one segment, which contains the file as a whole (elf(5))."""
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
    return identity + header + segment + code


def _x86_64() -> bytes:
    """rt_sigaction(SIGCHLD, action, NULL, 8), then pause() for ever."""
    head = b"\xb8" + struct.pack("<I", 13) + b"\xbf" + struct.pack("<I", _SIGCHLD)
    rest = b"\x31\xd2" + b"\x41\xba" + struct.pack("<I", 8) + b"\x0f\x05"  # edx = 0, r10 = 8, syscall
    wait = b"\xb8" + struct.pack("<I", 34) + b"\x0f\x05" + b"\xeb\xf7"  # back to the start of `wait`
    # rsi = the address of the action, which follows the code.
    address = b"\x48\x8d\x35" + struct.pack("<i", len(rest) + len(wait))
    return head + address + rest + wait + _ACTION


def _aarch64() -> bytes:
    """rt_sigaction(SIGCHLD, action, NULL, 8), then ppoll(NULL, 0, NULL, NULL, 0) for ever."""
    call = 0xD4000001

    def move(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    wait = [*(move(register, 0) for register in range(5)), move(8, 73), call]
    back = 0x14000000 | (-len(wait) & 0x3FFFFFF)
    after = [move(2, 0), move(3, 8), call, *wait, back]
    distance = (1 + len(after)) * 4
    address = 0x10000000 | (distance & 3) << 29 | (distance >> 2) << 5 | 1  # x1 = the address of the action
    words = [move(8, 134), move(0, _SIGCHLD), address, *after]
    return struct.pack(f"<{len(words)}I", *words) + _ACTION

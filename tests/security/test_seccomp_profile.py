"""The profile of system calls as a truth table: (processor, capabilities, call, arguments) → what the kernel answers."""

from __future__ import annotations

import base64
import errno
import json
from typing import Any

import pytest

from cumulet.instances.security.seccomp import (
    Argument,
    SeccompError,
    SeccompProfile,
    default_profile,
    parse_profile,
    restricted_profile,
)

ALLOWED = 0
_MACHINES = ("x86_64", "aarch64")


def answer(profile: SeccompProfile, name: str, arguments: tuple[int, ...] = ()) -> int:
    """0 where the call is allowed, else the error number: the first unconditional rule wins, then any that matches."""
    rules = [rule for rule in profile["syscalls"] if name in rule["names"]]
    for rule in sorted(rules, key=lambda rule: "args" in rule):
        if all(_holds(condition, arguments[condition["index"]]) for condition in rule.get("args", ())):
            return ALLOWED if rule["action"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") else int(rule["errnoRet"])
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    return int(profile["defaultErrnoRet"])


def _holds(condition: Argument, value: int) -> bool:
    match condition["op"]:
        case "SCMP_CMP_EQ":
            return value == int(condition["value"])
        case "SCMP_CMP_MASKED_EQ":
            return value & int(condition["value"]) == int(condition["valueTwo"])
    raise AssertionError(condition)


#: What is open to everyone on every processor, a call of each kind.
_OPEN = [
    "read",
    "write",
    "openat2",
    "execve",
    "fork",
    "futex_waitv",
    "mmap",
    "memfd_create",
    "epoll_pwait2",
    "inotify_init1",
    "io_submit",
    "getrandom",
    "rt_sigaction",
    "timerfd_create",
    "semop",
    "shmat",
    "mq_open",
    "setuid",
    "capset",
    "connect",
    "recvmmsg",
    "seccomp",
    "landlock_restrict_self",
    "ptrace",
    "process_vm_readv",
    "name_to_handle_at",
    "statmount",
    "mknodat",
    "clock_adjtime",
]
#: What is closed to everyone who has no capability for it.
_CLOSED = {
    "": "io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl add_key request_key kexec_load "
    "kexec_file_load swapon swapoff pivot_root nfsservctl uselib ustat sysfs vm86 move_pages migrate_pages "
    "create_module query_module remap_foo",
    "CAP_SYS_ADMIN": "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
    "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare "
    "lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}
_NAMESPACES = (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)


@pytest.mark.parametrize("machine", _MACHINES)
def test_calls_of_everyone_are_open(machine: str) -> None:
    profile = default_profile([], machine=machine)
    assert {name: answer(profile, name) for name in _OPEN} == dict.fromkeys(_OPEN, ALLOWED)


@pytest.mark.parametrize("machine", _MACHINES)
@pytest.mark.parametrize("capability", sorted(_CLOSED))
def test_a_call_is_open_to_its_capability_and_to_nobody_else(machine: str, capability: str) -> None:
    names = _CLOSED[capability].split()
    closed = default_profile([], machine=machine)
    assert {name: answer(closed, name) for name in names} == dict.fromkeys(names, errno.EPERM)
    if capability:
        opened = default_profile([capability], machine=machine)
        assert {name: answer(opened, name) for name in names} == dict.fromkeys(names, ALLOWED)


@pytest.mark.parametrize("machine", _MACHINES)
def test_new_namespaces_are_made_by_none_but_an_administrator(machine: str) -> None:
    profile = default_profile(["CAP_SYS_CHROOT"], machine=machine)
    assert answer(profile, "clone", (17,)) == ALLOWED
    assert answer(profile, "clone", (0x00010F00 | 17,)) == ALLOWED, "a thread"
    assert {flag: answer(profile, "clone", (flag | 17,)) for flag in _NAMESPACES} == dict.fromkeys(
        _NAMESPACES, errno.EPERM
    )
    assert answer(profile, "clone3") == errno.ENOSYS, "a C library then asks for clone, whose flags are seen"
    administrator = default_profile(["CAP_SYS_ADMIN"], machine=machine)
    assert answer(administrator, "clone", (_NAMESPACES[4],)) == answer(administrator, "clone3") == ALLOWED


@pytest.mark.parametrize("machine", _MACHINES)
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_every_family_of_sockets_but_three_is_open(machine: str, high: int) -> None:
    profile = default_profile([], machine=machine)
    found = {family: answer(profile, "socket", (high | family, 1, 0)) for family in range(46)}
    closed = {17: errno.EPERM, 38: errno.EPERM, 40: errno.EPERM}  # AF_PACKET, AF_ALG and AF_VSOCK
    assert found == {family: closed.get(family, ALLOWED) for family in range(46)}
    assert answer(profile, "socketcall", (1, 0)) == errno.ENOSYS
    # The kernel makes a packet socket of SOCK_PACKET in AF_INET, whatever its flags.
    assert answer(profile, "socket", (high | 2, high | 10 | 0x80000, 0)) == errno.EPERM
    assert answer(profile, "socket", (high | 2, high | 3 | 0x80800, 0)) == ALLOWED
    raw = default_profile(["CAP_NET_RAW"], machine=machine)
    assert answer(raw, "socket", (high | 17, 3, 0)) == answer(raw, "socket", (high | 2, 10, 0)) == ALLOWED
    assert answer(raw, "socket", (high | 40, 1, 0)) == errno.EPERM


@pytest.mark.parametrize("machine", _MACHINES)
def test_personalities_are_the_five_that_are_known(machine: str) -> None:
    profile = default_profile([], machine=machine)
    known = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    assert [answer(profile, "personality", (value,)) for value in known] == [ALLOWED] * 5
    assert answer(profile, "personality", (0x0040000,)) == errno.EPERM  # ADDR_NO_RANDOMIZE
    assert answer(profile, "personality", (0x400000,)) == errno.EPERM  # READ_IMPLIES_EXEC


def test_each_processor_has_its_own_calls_and_sub_architectures() -> None:
    found = {machine: default_profile([], machine=machine) for machine in _MACHINES}
    assert found["x86_64"]["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert found["aarch64"]["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    own = {"x86_64": ["arch_prctl", "modify_ldt"], "aarch64": ["set_tls", "cacheflush", "sync_file_range2"]}
    for machine, profile in found.items():
        for other, names in own.items():
            expected = ALLOWED if machine == other else errno.EPERM
            assert [answer(profile, name) for name in names] == [expected] * len(names)
    with pytest.raises(SeccompError, match="no list of system calls for the processor sparc"):
        default_profile([], machine="sparc")


def test_an_old_kernel_whose_filters_ptrace_evades_has_no_ptrace() -> None:
    assert answer(default_profile([], kernel="4.7.0"), "ptrace") == errno.EPERM
    assert answer(default_profile([], kernel="4.8.0-1"), "ptrace") == ALLOWED
    assert answer(default_profile(["CAP_SYS_PTRACE"], kernel="4.4"), "ptrace") == ALLOWED


def encoded(profile: dict[str, Any]) -> str:
    """As `seccompProfile` has it."""
    return base64.b64encode(json.dumps(profile).encode()).decode()


def narrowed(profile: dict[str, Any]) -> SeccompProfile:
    """What becomes of a profile that a container brings."""
    return restricted_profile(parse_profile(encoded(profile)), [], machine="x86_64")


def test_a_profile_of_a_container_only_takes_from_the_default() -> None:
    everything = narrowed({"defaultAction": "SCMP_ACT_ALLOW"})
    default = default_profile([], machine="x86_64")
    names = [*_OPEN, *" ".join(_CLOSED.values()).split()]
    assert [answer(everything, name) for name in names] == [answer(default, name) for name in names]
    rules = [{"names": ["read", "mount", "clone", "socket", "io_uring_setup"], "action": "SCMP_ACT_ALLOW"}]
    few = narrowed({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules})
    assert answer(few, "read") == ALLOWED
    assert answer(few, "write") == answer(few, "mount") == answer(few, "io_uring_setup") == 38
    assert answer(few, "clone", (0x10000000,)) == answer(few, "socket", (40, 1, 0)) == 38
    assert answer(few, "clone", (17,)) == answer(few, "socket", (2, 1, 0)) == ALLOWED
    without = {"names": ["ptrace", "clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    denied = narrowed({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [without]})
    assert answer(denied, "ptrace") == answer(denied, "clone", (17,)) == 13
    assert answer(denied, "read") == ALLOWED
    condition = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
    reading = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [condition]}
    some = narrowed({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [reading]})
    assert answer(some, "read", (1,)) == ALLOWED
    assert answer(some, "read", (2,)) == errno.EPERM


def test_a_profile_may_have_calls_logged() -> None:
    allowed = {"names": ["write"], "action": "SCMP_ACT_ALLOW", "comment": "often"}
    logged = narrowed({"defaultAction": "SCMP_ACT_LOG", "syscalls": [allowed]})
    actions = {rule["action"] for rule in logged["syscalls"] if "read" in rule["names"]}
    assert actions == {"SCMP_ACT_LOG"}
    assert {rule["action"] for rule in logged["syscalls"] if "write" in rule["names"]} == {"SCMP_ACT_ALLOW"}
    assert answer(logged, "mount") == answer(logged, "socket", (40, 1, 0)) == errno.EPERM


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({}, "defaultAction"),
        ({"defaultAction": "SCMP_ACT_TRACE"}, "defaultAction 'SCMP_ACT_TRACE' is not supported"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/l"}, "unknown field `listenerPath`"),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}}],
            },
            "unknown field `excludes`",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["a/b"], "action": "SCMP_ACT_ALLOW"}]}, "names"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "NO"}]}, "action 'NO'"),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [
                    {
                        "names": ["clone"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                    }
                ],
            },
            "args of clone cannot be joined",
        ),
    ],
)
def test_a_profile_that_cannot_be_followed_is_refused(profile: dict[str, Any], why: str) -> None:
    with pytest.raises(SeccompError, match=why):
        narrowed(profile)


@pytest.mark.parametrize("text", ["", "not base64!", "e30", base64.b64encode(b"[]").decode(), "A" * 100_000])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(SeccompError):
        parse_profile(text)

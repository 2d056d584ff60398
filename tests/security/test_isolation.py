"""What a container cannot do to the kernel that it shares with others, tried from inside real containers."""

from __future__ import annotations

import base64
import errno
import json
import platform
import signal
from typing import Any

import pytest

from tests.instances.conftest import door, machine, registry, room, shared_config  # noqa: F401
from tests.instances.door import FrontDoor, container, group, is_over
from tests.instances.images import Registry, busybox_layer, entry, layer
from tests.security.probes import WORDS, Call, program, program_i386

_SIGCHLD, _NEWUSER = 17, 0x10000000
_NOWHERE = 2**64 - 1
_I386 = 0

#: (call, error number that a container without added capabilities gets). None of the calls would do any harm.
TABLE = [
    (Call("getpid", 39, 172), 0),
    (Call("ptrace", 101, 117, (_NOWHERE, 1)), errno.ESRCH),
    (Call("chroot", 161, 51, (0,)), errno.EFAULT),
    (Call("clone", 56, 220, (_SIGCHLD, 0, 0, 0, 0)), 0),
    (Call("clone_newuser", 56, 220, (_NEWUSER | _SIGCHLD, 0, 0, 0, 0)), errno.EPERM),
    (Call("clone_newcgroup", 56, 220, (0x02000000 | _SIGCHLD, 0, 0, 0, 0)), errno.EPERM),
    (Call("clone3", 435, 435, (0, 0)), errno.ENOSYS),
    (Call("unshare_nothing", 272, 97, (0,)), errno.EPERM),
    (Call("unshare_user", 272, 97, (_NEWUSER,)), errno.EPERM),
    (Call("setns", 308, 268, (_NOWHERE, 0)), errno.EPERM),
    (Call("io_uring_setup", 425, 425, (1, 0)), errno.EPERM),
    (Call("io_uring_enter", 426, 426, (_NOWHERE, 0, 0, 0, 0, 0)), errno.EPERM),
    (Call("io_uring_register", 427, 427, (_NOWHERE, 0, 0, 0)), errno.EPERM),
    (Call("userfaultfd", 323, 282, (1,)), errno.EPERM),
    (Call("keyctl", 250, 219, (0xFFFF,)), errno.EPERM),
    (Call("add_key", 248, 217, (0, 0, 0, 0, 0)), errno.EPERM),
    (Call("bpf", 321, 280, (0xFFFF, 0, 0)), errno.EPERM),
    (Call("perf_event_open", 298, 241, (0, 0, 0, 0, 0)), errno.EPERM),
    (Call("open_tree", 428, 428, (_NOWHERE, 0, 0)), errno.EPERM),
    (Call("fsopen", 430, 430, (0, 0)), errno.EPERM),
    (Call("kcmp", 312, 272, (1, 1, 0xFFFF, 0, 0)), errno.EPERM),
    (Call("pidfd_getfd", 438, 438, (_NOWHERE, 0, 0)), errno.EPERM),
    (Call("mbind", 237, 235, (1, 0, 0, 0, 0, 0)), errno.EPERM),
    (Call("lookup_dcookie", 212, 18, (0, 0, 0)), errno.EPERM),
    (Call("socket_inet", 41, 198, (2, 1, 0)), 0),
    (Call("socket_unix", 41, 198, (1, 1, 0)), 0),
    (Call("socket_netlink", 41, 198, (16, 3, 0)), 0),
    (Call("socket_nfc", 41, 198, (39, 0xFF, 0)), errno.EINVAL),
    (Call("socket_alg", 41, 198, (38, 5, 0)), errno.EPERM),
    (Call("socket_vsock", 41, 198, (40, 1, 0)), errno.EPERM),
    # The kernel reads 32 bits of the family; a filter that compares 64 would let these pass.
    (Call("socket_alg_wide", 41, 198, (38 | 1 << 32, 5, 0)), errno.EPERM),
    (Call("socket_vsock_wide", 41, 198, (40 | 1 << 32, 1, 0)), errno.EPERM),
    (Call("socket_raw", 41, 198, (2, 3, 1)), 0),
    (Call("socket_packet", 41, 198, (17, 3, 0)), errno.EPERM),
    (Call("socket_packet_of_old", 41, 198, (2, 10, 0)), errno.EPERM),
    (Call("socket_packet_wide", 41, 198, (17 | 1 << 32, 3, 0)), errno.EPERM),
    (Call("socket_ping", 41, 198, (2, 2, 1)), 0),
    (Call("personality_read", 135, 92, (0xFFFFFFFF,)), 0),
    (Call("personality_linux32", 135, 92, (8,)), 0),
    (Call("personality_no_random", 135, 92, (0x0040000,)), errno.EPERM),
]
TABLE_I386 = [
    ("i386_getpid", program_i386(20, ()), 0),
    ("i386_unshare", program_i386(310, (0,)), errno.EPERM),
    ("i386_socket_vsock", program_i386(359, (40, 1, 0)), errno.EPERM),
    ("i386_socketcall_vsock", program_i386(102, (1, WORDS), (40, 1, 0)), errno.ENOSYS),
    ("i386_socket_inet", program_i386(359, (2, 1, 0)), 0),
    ("i386_clone_newuser", program_i386(120, (_NEWUSER | _SIGCHLD, 0, 0, 0, 0)), errno.EPERM),
    # The ABI is not open: the kernel ends the program.
    ("x32_getpid", program(Call("x32_getpid", 0x40000000 | 39, 0, ())), 128 + signal.SIGSYS),
]


def probes() -> list[tuple[str, bytes, int]]:
    """Name, program and expected error number of every probe that this machine can run."""
    found = [(call.name, program(call), code) for call, code in TABLE]
    return found + (TABLE_I386 if platform.machine() == "x86_64" else [])


@pytest.fixture(scope="module")
def tools(registry: Registry) -> str:  # noqa: F811
    """An image with a shell and the probes."""
    files = [entry(f"probe/{name}", content, mode=0o755) for name, content, _ in probes()]
    more = ["ps", "touch", "stat", "mount", "unshare", "nsenter", "ping", "mkdir", "chmod", "chown", "mknod", "ln"]
    links = [entry(f"bin/{name}", type=b"2", linkname="busybox") for name in more]
    registry.push("tools:v1", [busybox_layer(), layer(entry("probe", type=b"5", mode=0o755), *files, *links)])
    return "tools:v1"


async def output_of(door: FrontDoor, tools: str, name: str, script: str, **properties: Any) -> str:  # noqa: F811
    """What a script writes in a container of its own, that then goes away."""
    volumes = properties.pop("volumes", [])
    asked = container(image=tools, command=["/bin/sh", "-c", script], **properties)
    await door.call("PUT", name, group(asked, restartPolicy="Never", volumes=volumes))
    found = await door.until(name, is_over)
    events = found["properties"]["containers"][0]["properties"]["instanceView"].get("events")
    text: str = (await door.call("GET", f"{name}/containers/web/logs"))["content"]
    await door.call("DELETE", f"{name}?gracePeriodSeconds=0")
    assert text, events
    return text


# The shell writes of a program that a signal ended.
RUN_PROBES = 'for probe in /probe/*; do "$probe"; echo "${probe#/probe/} $?"; done 2>/dev/null'


def results(text: str) -> dict[str, int]:
    """Probe → error number."""
    rows = [line.split() for line in text.splitlines()]
    return {name: int(code) for name, code in rows}


async def test_a_container_makes_the_system_calls_of_the_list_and_no_others(door: FrontDoor, tools: str) -> None:  # noqa: F811
    found = results(await output_of(door, tools, "calls", RUN_PROBES))
    assert found == {name: code for name, _, code in probes()}


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["personality", "socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EACCES}],
}


async def test_a_profile_of_its_own_refuses_more_and_allows_nothing_more(door: FrontDoor, tools: str) -> None:  # noqa: F811
    profile = base64.b64encode(json.dumps(PROFILE).encode()).decode()
    found = results(
        await output_of(door, tools, "own", RUN_PROBES, securityContext={"seccompProfile": profile}),
    )
    expected = {name: code for name, _, code in probes()}
    for name in expected:
        if name.startswith(("socket", "personality", "i386_socket")) and name != "i386_socketcall_vsock":
            expected[name] = errno.EACCES
    assert found == expected


async def test_capabilities_are_the_default(door: FrontDoor, tools: str) -> None:  # noqa: F811
    assert await capabilities_of(door, tools, "caps", {}) == {
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
        "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP", "NET_RAW",
    }  # fmt: skip
    raw = {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW", "CAP_SYS_PTRACE"]}}
    assert await capabilities_of(door, tools, "raw", raw) == {"NET_RAW", "SYS_PTRACE"}


#: The first 22 of capabilities(7), by their numbers.
_NUMBERS = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
] + [str(number) for number in range(22, 64)]
_NUMBERS[27], _NUMBERS[29], _NUMBERS[31] = "MKNOD", "AUDIT_WRITE", "SETFCAP"


async def capabilities_of(door: FrontDoor, tools: str, name: str, context: dict[str, Any]) -> set[str]:  # noqa: F811
    """What a container can get at most, which is what root has."""
    text = await output_of(door, tools, name, "cat /proc/self/status", securityContext=context)
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert status["CapEff"] == status["CapBnd"]
    assert status["Seccomp"] == "2"
    return {name for bit, name in enumerate(_NUMBERS) if int(status["CapBnd"], 16) >> bit & 1}


async def test_privileges_grow_only_where_that_is_allowed(door: FrontDoor, tools: str) -> None:  # noqa: F811
    for said, shown in ((None, "0"), (True, "0"), (False, "1")):
        context = {} if said is None else {"allowPrivilegeEscalation": said}
        text = await output_of(door, tools, f"grow-{said}".lower(), "cat /proc/self/status", securityContext=context)
        assert f"NoNewPrivs:\t{shown}\n" in text


@pytest.mark.parametrize(
    ("context", "field", "why"),
    [
        ({"privileged": True}, "privileged", "privileged containers are not allowed"),
        ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities.add", "'SYS_ADMIN' is not allowed"),
        ({"capabilities": {"add": ["CAP_NET_ADMIN"]}}, "capabilities.add", "'NET_ADMIN' is not allowed"),
        ({"capabilities": {"add": ["ALL"]}}, "capabilities.add", "'ALL' is not allowed"),
        ({"capabilities": {"add": ["\u017fYS_CHROOT"]}}, "capabilities.add", "is not allowed"),
        ({"capabilities": {"drop": ["NET_ROW"]}}, "capabilities.drop", "'NET_ROW' is not a capability"),
        ({"capabilities": {"add": "ALL"}}, "", "Expected `array"),
        ({"runAsGroup": "abc"}, "", "Expected `int"),
        ({"runAsUser": -1}, "runAsUser", "-1 is not an id"),
        ({"runAsUser": 2**31}, "runAsUser", "is not an id"),
        ({"runAsUser": 2**80}, "runAsUser", "is not an id"),
        ({"runAsUser": 1.5}, "", "Expected `int"),
        ({"seccompProfile": "Unconfined"}, "seccompProfile", "is not base64"),
        ({"seccompProfile": {"type": "Unconfined"}}, "", "Expected `str"),
        ({"seccomp": "x"}, "", "unknown field `seccomp`"),
    ],
)
async def test_what_a_container_may_not_have_is_refused_by_name(
    door: FrontDoor,  # noqa: F811
    context: dict[str, Any],
    field: str,
    why: str,
) -> None:
    answer = await door.call("PUT", "refused", group(container(securityContext=context)), status=400)
    assert answer["error"]["code"] == "InvalidSecurityContext"
    assert why in answer["error"]["message"]
    assert answer["error"]["target"] == f"properties.containers[0].properties.securityContext.{field}".rstrip(".")
    await door.call("GET", "refused", status=404)

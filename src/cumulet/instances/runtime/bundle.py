"""Builds the configuration of a container for the runtime, and the description of further processes in it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulet.common.private_files import write_private
from cumulet.instances.images.image_config import Execution
from cumulet.instances.model.arguments import ArgumentsError, check_arguments
from cumulet.instances.model.pod import PodSecurityContext
from cumulet.instances.model.properties import Container, GroupProperties
from cumulet.instances.runtime.accounts import Account, AccountError, Files
from cumulet.instances.runtime.configuration import Configuration, IdMapping, MountPoint, Namespace, Process
from cumulet.instances.runtime.control_group import control_group_limits
from cumulet.instances.runtime.limits import oom_score, resource_limits
from cumulet.instances.sandbox.id_ranges import IDS
from cumulet.instances.sandbox.mounts import Bind
from cumulet.instances.security import sysctls
from cumulet.instances.security.context import SecurityContext, needs_user_namespace, stored
from cumulet.instances.security.seccomp import (
    SeccompError,
    SeccompProfile,
    default_profile,
    parse_profile,
    restricted_profile,
)

_MASKED = [
    f"/proc/{name}"
    for name in (
        "acpi",
        "asound",
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "timer_stats",
        "sched_debug",
        "scsi",
    )
] + ["/sys/firmware", "/sys/devices/virtual/powercap"]
_READ_ONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The file, in a container's folder, that describes its process.
_PROCESS = "process.json"


class BundleError(Exception):
    """The properties of the container do not fit its image; the message has the reason."""


class UserMapping(NamedTuple):
    """The user namespace of a container: the file that names it, and its root's id on this machine.

    `ipc` names the IPC namespace that all containers of the group share.
    """

    path: Path
    start: int
    ipc: Path | None = None


def describe(
    root: Path,
    group: GroupProperties,
    container: Container,
    image: Execution,
    *,
    namespace: Path,
    hostname: str,
    cgroup: str,
    mounts: list[Bind],
    users: UserMapping | None = None,
    processes: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Configuration:
    """Return the configuration of a container whose root is mounted at a path. It contains secure values.

    `processes` is the file that names another container's PID namespace, which the container shares. `variables` are those that
    the platform sets; the container's own have precedence. It reads files of the image, so call it on a thread. Raises `BundleError`, `OSError`.
    """
    properties = container.properties
    above = group.security_context or PodSecurityContext()
    context = stored(properties.security_context)
    capabilities = context.capability_names()
    try:
        user = image.user or "" if context.run_as_user is None else str(context.run_as_user)
        account = Files(root).find(user)
    except AccountError as error:
        raise BundleError(str(error)) from None
    uid, gid = account.uid, account.gid if context.run_as_group is None else context.run_as_group
    groups = _groups(gid, account, context, above)
    if users is None and (reaching := sorted(needs_user_namespace(capabilities))):
        raise BundleError(
            f"the capabilities {', '.join(reaching)} need a user namespace, which this machine does not have"
        )
    if users is not None and (beyond := [number for number in (uid, *groups) if number >= IDS]):
        what = "user" if uid in beyond else "group"
        raise BundleError(f"{what} {beyond[0]}: a container group has ids from 0 to {IDS - 1} only")
    process: Process = {
        "terminal": properties.tty,
        "user": {"uid": uid, "gid": gid, "additionalGids": groups},
        "args": arguments(container, image),
        "env": _environment(container, image, hostname, variables or {}),
        "cwd": _working_folder(container, image),
        "rlimits": resource_limits(capabilities),
        "oomScoreAdj": oom_score(group, container),
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        # As in Kubernetes, the default allows escalation.
        "noNewPrivileges": context.allow_privilege_escalation is False,
    }
    try:
        check_arguments([*process["args"], *process["env"]])
    except ArgumentsError as error:
        raise BundleError(f"the process cannot be started: {error}") from None
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(root), "readonly": bool(context.read_only_root_filesystem)},
        "hostname": hostname,
        "mounts": [*_MOUNTS, *(_bind(mount.source, mount.path, mount.read_only) for mount in mounts)],
        "linux": {
            "namespaces": namespaces(namespace, users, processes),
            "uidMappings": mappings(users),
            "gidMappings": mappings(users),
            "cgroupsPath": cgroup,
            "resources": control_group_limits(group, container),
            "sysctl": sysctls.of_group((item.name, item.value) for item in above.sysctls),
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
            "seccomp": _seccomp(context),
        },
    }


def _groups(gid: int, account: Account, context: SecurityContext, above: PodSecurityContext) -> list[int]:
    """Return the groups of a process, its own first.

    `Strict` leaves out those that the image's account files give its user (Kubernetes, KEP-3619).
    """
    strict = above.supplemental_groups_policy == "Strict"
    groups = [gid, *(() if strict else account.groups), *(context.supplemental_groups or ())]
    if above.fs_group is not None:
        groups.append(above.fs_group)
    return [*dict.fromkeys(groups)]


def owner_of(process: Process, users: UserMapping | None) -> tuple[int, int]:
    """Return the user and group of a container's process on this machine."""
    start = users.start if users else 0
    return start + process["user"]["uid"], start + process["user"]["gid"]


def namespaces(network: Path, users: UserMapping | None, processes: Path | None = None) -> list[Namespace]:
    """Return the namespaces of a container: those that files name, and new ones."""
    return [
        {"type": "pid"} if processes is None else {"type": "pid", "path": str(processes)},
        {"type": "ipc", "path": str(users.ipc)} if users is not None and users.ipc else {"type": "ipc"},
        {"type": "uts"},
        {"type": "mount"},
        {"type": "cgroup"},
        {"type": "network", "path": str(network)},
        *([_user_namespace(users)] if users else ()),
    ]


def _user_namespace(users: UserMapping) -> Namespace:
    return {"type": "user", "path": str(users.path)}


def mappings(users: UserMapping | None) -> list[IdMapping]:
    """Return the ids of a container's users on this machine."""
    return [] if users is None else [{"containerID": 0, "hostID": users.start, "size": IDS}]


def arguments(container: Container, defaults: Execution) -> list[str]:
    """Return the command line: `command` replaces the image's entry point and command, `args` only the latter."""
    properties = container.properties
    if properties.command:
        line = [*properties.command, *(properties.args or ())]
    else:
        line = [
            *(defaults.entrypoint or ()),
            *(properties.args if properties.args is not None else defaults.cmd or ()),
        ]
    if not line:
        raise BundleError("no command specified: the image has no entry point, and the container no command")
    return line


def _working_folder(container: Container, defaults: Execution) -> str:
    folder = container.properties.working_dir or defaults.working_dir or "/"
    # A path in /proc could reach a descriptor of the runtime's own, and escape (CVE-2024-21626).
    if not folder.startswith("/") or f"{posixpath.normpath(folder)}/".lstrip("/").startswith("proc/"):
        raise BundleError(f"the working folder {folder[:100]!r} is not an absolute path outside /proc")
    return folder


def keep_process(folder: Path, process: Process, container: Container) -> None:
    """Write the description of a container's process, without secure values, for further processes in it."""
    secure = _secure_names(container)
    env = [item for item in process["env"] if item.partition("=")[0] not in secure]
    write_private(folder / _PROCESS, msgspec.json.encode({**process, "env": env}))


def forget_configuration(folder: Path, container: Container) -> None:
    """Remove the configuration that an earlier version left in a container's folder, secure values included."""
    file = folder / "config.json"
    if file.exists():
        if not (folder / _PROCESS).exists():
            keep_process(folder, msgspec.json.decode(file.read_bytes())["process"], container)
        file.unlink()


def process_of(folder: Path, container: Container, command: list[str], *, tty: bool) -> bytes:
    """Return the description of a further process in a container, with the same user and environment.

    It contains secure values. Raises `OSError`.
    """
    process: Process = msgspec.json.decode((folder / _PROCESS).read_bytes())
    secure = _secure_names(container)
    values = {item.name: item.text for item in container.properties.environment_variables if item.name in secure}
    env = [*process["env"], *(f"{name}={value}" for name, value in values.items())]
    if tty:
        env.append("TERM=xterm")
    return msgspec.json.encode({**process, "args": command, "terminal": tty, "env": env})


def _secure_names(container: Container) -> set[str]:
    return {item.name for item in container.properties.environment_variables if item.secure_value is not None}


_MOUNTS: list[MountPoint] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
]


def _bind(source: Path, destination: str, read_only: bool) -> MountPoint:
    options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if read_only else "rw"]
    if os.statvfs(source).f_flag & os.ST_NOEXEC:
        options.append("noexec")  # the runtime would clear it, which a user namespace cannot
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def _environment(container: Container, defaults: Execution, hostname: str, platform: Mapping[str, str]) -> list[str]:
    values: dict[str, str] = {"PATH": _PATH, "HOSTNAME": hostname}
    for item in filter(None, defaults.env or ()):
        name, _, value = item.partition("=")
        values[name] = value
    values |= platform
    if container.properties.tty:
        values.setdefault("TERM", "xterm")
    for variable in container.properties.environment_variables:
        values[variable.name] = variable.text
    return [f"{name}={value}" for name, value in values.items()]


def _seccomp(context: SecurityContext) -> SeccompProfile:
    capabilities = context.filtered_capabilities()
    try:
        if context.seccomp_profile is None:
            return default_profile(capabilities)
        return restricted_profile(parse_profile(context.seccomp_profile), capabilities)
    except SeccompError as error:
        raise BundleError(f"seccomp profile: {error}") from None

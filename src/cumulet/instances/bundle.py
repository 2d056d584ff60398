"""What a container is to the runtime: the OCI runtime configuration (Runtime Specification 1.0, `config.json`)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cumulet.common.config import write_private
from cumulet.instances.id_ranges import IDS
from cumulet.instances.limits import oom_score, resource_limits
from cumulet.instances.model import Container, GroupProperties
from cumulet.instances.seccomp import SeccompError, default_profile, parse_profile, restricted_profile
from cumulet.instances.security_context import SecurityContext, stored

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
_CPU_PERIOD = 100_000


class BundleError(Exception):
    """The image and what is asked of it do not go together; the message says how."""


class UserMapping(NamedTuple):
    """The user namespace of a container: the file that names it, and the id of its root on this machine."""

    path: Path
    start: int


def write_bundle(
    folder: Path,
    group: GroupProperties,
    container: Container,
    image: dict[str, Any],
    *,
    root: Path,
    namespace: Path,
    users: UserMapping | None,
    hostname: str,
    cgroup: str,
    mounts: list[tuple[Path, str, bool]],
) -> tuple[int, int]:
    """Write `config.json`; the user and group of the container's first process, as the machine has them.

    `mounts` are (source, path in the container, read only). Raises `BundleError`.
    """
    defaults = image.get("config") or {}
    properties = container.properties
    context = stored(properties.security_context)
    capabilities = context.capability_names()
    user = context.run_as_user
    uid, gid, groups = _user(root, str(user) if user is not None else defaults.get("User") or "")
    if context.run_as_group is not None:
        gid = context.run_as_group
    groups = [*groups, *(number for number in context.supplemental_groups or () if number not in groups)]
    if users is not None and not max(uid, gid, *groups) < IDS:
        raise BundleError(f"user {uid} and group {gid}: a container group has ids from 0 to {IDS - 1} only")
    document = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "args": arguments(container, defaults),
            "env": _environment(container, defaults, hostname),
            "cwd": properties.working_dir or defaults.get("WorkingDir") or "/",
            "rlimits": resource_limits(),
            "oomScoreAdj": oom_score(group, container),
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            # As Kubernetes has it: what is not said allows it.
            "noNewPrivileges": context.allow_privilege_escalation is False,
        },
        "root": {"path": str(root), "readonly": bool(context.read_only_root_filesystem)},
        "hostname": hostname,
        "mounts": [*_MOUNTS, *(_bind(*mount) for mount in mounts)],
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
                {"type": "network", "path": str(namespace)},
                *([{"type": "user", "path": str(users.path)}] if users else ()),
            ],
            **_mappings(users),
            "cgroupsPath": cgroup,
            "resources": _limits(group, container),
            # Whoever is in the group's network may ping without a capability.
            "sysctl": {"net.ipv4.ping_group_range": "0 65535"},
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
            "seccomp": _seccomp(context, capabilities),
        },
    }
    write_private(folder / "config.json", msgspec.json.encode(document))
    start = users.start if users else 0
    return start + uid, start + gid


def _mappings(users: UserMapping | None) -> dict[str, Any]:
    if users is None:
        return {}
    mapping = {"containerID": 0, "hostID": users.start, "size": IDS}
    return {"uidMappings": [mapping], "gidMappings": [mapping]}


def arguments(container: Container, defaults: dict[str, Any]) -> list[str]:
    """The command line: `command` replaces entry point and command of the image, `args` only the latter."""
    properties = container.properties
    if properties.command:
        found = [*properties.command, *(properties.args or ())]
    else:
        entry = list(defaults.get("Entrypoint") or ())
        found = [*entry, *(properties.args if properties.args is not None else defaults.get("Cmd") or ())]
    if not found:
        raise BundleError("no command specified: the image has no entry point, and the container no command")
    return found


def process_of(bundle: Path, command: list[str], *, tty: bool) -> dict[str, Any]:
    """A further process in a running container, as the same user with the same environment."""
    document = msgspec.json.decode((bundle / "config.json").read_bytes())
    process: dict[str, Any] = {**document["process"], "args": command, "terminal": tty}
    if tty:
        process["env"] = [*process["env"], "TERM=xterm"]
    return process


_MOUNTS: list[dict[str, Any]] = [
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
    {
        "destination": "/dev/shm",  # noqa: S108  (the container's own)
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
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


def _bind(source: Path, destination: str, read_only: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if read_only else "rw"]
    if os.statvfs(source).f_flag & os.ST_NOEXEC:
        options.append("noexec")  # a user namespace cannot undo it, and the runtime would try
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def _environment(container: Container, defaults: dict[str, Any], hostname: str) -> list[str]:
    values: dict[str, str] = {"PATH": _PATH, "HOSTNAME": hostname}
    for item in defaults.get("Env") or ():
        name, _, value = str(item).partition("=")
        values[name] = value
    for variable in container.properties.environment_variables:
        values[variable.name] = variable.secure_value if variable.secure_value is not None else variable.value or ""
    return [f"{name}={value}" for name, value in values.items()]


def _seccomp(context: SecurityContext, capabilities: list[str]) -> dict[str, Any]:
    try:
        if context.seccomp_profile is None:
            return default_profile(capabilities)
        return restricted_profile(parse_profile(context.seccomp_profile), capabilities)
    except SeccompError as error:
        raise BundleError(f"seccomp profile: {error}") from None


def _limits(group: GroupProperties, container: Container) -> dict[str, Any]:
    """What a container may have: its limit, or what the whole group asked for, as ACI shares it."""
    resources = container.properties.resources
    limits = resources.limits
    cpu = (limits.cpu if limits else None) or sum(
        item.properties.resources.requests.cpu or 1.0 for item in group.containers
    )
    memory = (limits.memory_in_gb if limits else None) or sum(
        item.properties.resources.requests.memory_in_gb or 1.5 for item in group.containers
    )
    total = int(memory * 1_000_000_000)
    return {
        "cpu": {"period": _CPU_PERIOD, "quota": max(int(cpu * _CPU_PERIOD), 1000)},
        "memory": {"limit": total, "swap": total},
        "pids": {"limit": 4096},
        "devices": [{"allow": False, "access": "rwm"}],
    }


def _user(root: Path, text: str) -> tuple[int, int, list[int]]:
    """Numbers of `user[:group]`, looked up in the image's own files."""
    name, _, group = text.partition(":")
    name = name or "0"
    accounts = _database(root, "passwd")
    if name.isdecimal():
        found = next((row for row in accounts if len(row) > 3 and row[2] == name), None)
        uid, gid = int(name), int(found[3]) if found else 0
    else:
        found = next((row for row in accounts if len(row) > 3 and row[0] == name), None)
        if found is None:
            raise BundleError(f"unable to find user {name}: no matching entries in passwd file")
        uid, gid = int(found[2]), int(found[3])
    groups = _database(root, "group")
    if group:
        if group.isdecimal():
            gid = int(group)
        else:
            match = next((row for row in groups if len(row) > 2 and row[0] == group), None)
            if match is None:
                raise BundleError(f"unable to find group {group}: no matching entries in group file")
            gid = int(match[2])
    account = found[0] if found else ""
    more = {int(row[2]) for row in groups if len(row) > 3 and account in re.split(r"[,\s]+", row[3]) and account}
    return uid, gid, [gid, *sorted(more - {gid})]  # as containerd has it: the first group is among the further ones


def _database(root: Path, name: str) -> list[list[str]]:
    """The rows of `/etc/passwd` or `/etc/group` of an image; a link out of it is not followed."""
    file = root / "etc" / name
    if file.is_symlink() or (root / "etc").is_symlink() or not file.is_file():
        return []
    return [line.split(":") for line in file.read_text(errors="replace").splitlines()]

"""Lists what a program can leave on a Linux machine, to compare the state before and after."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from cumulet.common.ascii import is_digits

_CGROUPS = Path("/sys/fs/cgroup")


def traces(data_dir: Path) -> dict[str, set[str]]:
    """Return the names of objects by kind: processes, mounts, network namespaces, links, rules, cgroups and files.

    Processes are those with the data directory in their command or environment. The others are not of the installation.
    """
    return {
        "process": set(_processes(data_dir)),
        "mount": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "network namespace": set(_names("/run/netns")),
        "link": set(_names("/sys/class/net")),
        "rule": _rules(),
        "cgroup": {str(path) for path in _CGROUPS.glob("*/*") if path.is_dir()},
        "file": {f"{folder}/{name}" for folder in ("/etc", "/run", "/var/lib", "/var/run") for name in _names(folder)}
        | {f"/etc/hosts: {line}" for line in Path("/etc/hosts").read_text().splitlines()},
    }


def left_behind(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """Return the objects that exist now and did not before, one line each."""
    return [f"{kind} {name}" for kind, names in after.items() for name in sorted(names - before[kind])]


def _processes(data_dir: Path) -> Iterable[str]:
    mark = os.fsencode(data_dir)
    for entry in Path("/proc").iterdir():
        if not is_digits(entry.name) or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if mark in command or mark in (entry / "environ").read_bytes():
                yield f"{entry.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:80]}"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or belongs to another user


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (returns names, not paths)
    except FileNotFoundError:
        return []


def _rules() -> set[str]:
    try:
        listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return set()
    return set(listed.stdout.splitlines())

"""What an installation's container groups have in the kernel and on disk."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cumulet.common.config import Config
from cumulet.common.namespaces import NAMESPACES, inside
from cumulet.common.nftables import Nftables, UnavailableError
from cumulet.common.router import installation_id, namespace_name
from cumulet.instances.sandbox.names import STATE, run_dir


def remains(config: Config, room: int) -> dict[str, Counter[str]]:
    """Everything that a group could leave behind, by kind; `room` is the process of `instances`."""
    name = installation_id(config)
    folder = config.room_dir("instances")
    tops = [Path(f"/sys/fs/cgroup/cumulet-{name}"), *Path("/sys/fs/cgroup").glob(f"*/cumulet-{name}")]
    return {
        "processes": Counter(_processes(str(config.data_dir), room)),
        "mounts": Counter(_mounts(f"{folder}/", f"{run_dir(config)}/")),
        "network namespaces": Counter(path.name for path in NAMESPACES.glob(f"cumulet-{name}-*")),
        "links": Counter(_links(namespace_name(config))),
        "rules": Counter(_elements(namespace_name(config))),
        "descriptors": Counter(_descriptors(room)),
        "control groups": Counter(path for top in tops for path, _, _ in os.walk(top)),
        "ranges of ids": Counter(path.name for path in (STATE / "ids").iterdir() if _target(path) == config.data_dir),
        "files": Counter(_files(folder / "sandboxes", folder / "state", folder / "images", run_dir(config))),
    }


def _processes(data_dir: str, room: int) -> Iterator[str]:
    """Supervisors, runtimes, and children of the room, also those that nobody waited for."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended in the meantime
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == room or (words[0].endswith(("conmon", "runc")) and data_dir in "\0".join(words)):
                    yield words[0] or (entry / "comm").read_text()


def _mounts(*beneath: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if point.startswith(beneath):
            yield point


def _descriptors(room: int) -> Iterator[str]:
    """What the descriptors of a process are, without the numbers of sockets and pipes."""
    for entry in Path(f"/proc/{room}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed in the meantime
            yield str(entry.readlink()).partition(":[")[0]


def _links(namespace: str) -> list[str]:
    """The links of the router."""
    try:
        return inside(namespace, lambda: [name for _, name in socket.if_nameindex()])
    except FileNotFoundError:
        return []


def _elements(namespace: str) -> Iterator[str]:
    """The rules and sets of the router's tables, without what counts packets or time."""
    with contextlib.suppress(UnavailableError), Nftables(namespace) as rules:
        yield from (str(item) for item in rules.listing_now())


def _files(*tops: Path) -> Iterator[str]:
    for top in tops:
        for path, _, files in os.walk(top):
            yield path
            yield from (f"{path}/{name}" for name in files)


def _target(link: Path) -> Path:
    try:
        return link.readlink()
    except FileNotFoundError:  # another installation's, which was removed
        return Path()

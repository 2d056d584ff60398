"""Removes everything that an installation's container groups made in the kernel, also after a crash of the room.

The kernel is the only source: processes, mounts, namespaces, links and control groups are found by the installation's id in
their names.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cumulet.common import router
from cumulet.common.ascii import is_digits
from cumulet.common.config import Config
from cumulet.common.namespaces import NAMESPACES
from cumulet.common.nftables import AbsentError, Nftables
from cumulet.common.router import installation_id
from cumulet.instances.images.layers import FORMER
from cumulet.instances.metering.ending import record_end
from cumulet.instances.sandbox.id_ranges import release_all
from cumulet.instances.sandbox.links import delete_namespace
from cumulet.instances.sandbox.mounts import unmount_beneath
from cumulet.instances.sandbox.names import STATE, group_namespace, run_dir

_CGROUPS = Path("/sys/fs/cgroup")
#: Seconds to wait for the end of killed processes.
_PATIENCE = 10.0


def cleanup(config: Config) -> list[str]:
    """Remove everything; return a line for each removed object."""
    folder = config.room_dir("instances")
    name = installation_id(config)
    removed = [
        *_end_processes(folder, name),
        *(f"mount {point}" for point in unmount_beneath(folder)),
        *(f"mount {point}" for point in unmount_beneath(run_dir(config))),
        *_delete_network(config),
        *_delete_control_groups(f"cumulet-{name}"),
    ]
    # The runtime's state of containers; the groups stay in the store, and run again at the next start.
    shutil.rmtree(folder / "state", ignore_errors=True)
    shutil.rmtree(run_dir(config), ignore_errors=True)
    for part in FORMER:
        shutil.rmtree(folder / "images" / part, ignore_errors=True)
    release_all(config)
    with contextlib.suppress(OSError):  # another installation runs, or the folder does not exist
        STATE.rmdir()
    return removed


def _end_processes(folder: Path, name: str) -> list[str]:
    """Kill the processes of containers, then their supervisors."""
    inside = sorted({pid for group in _control_groups(f"cumulet-{name}") for pid in _members(group)})
    monitors = [pid for pid, command in _processes() if _is_monitor(command, folder)]
    _kill(inside)
    if inside:
        record_end(folder)
    _kill(monitors)
    found = [f"process {pid} of a container" for pid in inside]
    return found + [f"supervisor {pid} of a container" for pid in monitors]


def _processes() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if is_digits(entry.name):
            with contextlib.suppress(OSError):  # it ended in the meantime
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")


def _is_monitor(command: list[bytes], folder: Path) -> bool:
    """Return whether a process is a conmon or runc of this installation, by the paths in its command line."""
    program = command[0].rpartition(b"/")[2]
    inside = os.fsencode(folder) + b"/"
    return program in (b"conmon", b"runc") and any(word.startswith(inside) for word in command)


def _kill(pids: list[int]) -> None:
    """Kill processes and wait for their end."""
    poll = select.poll()
    waiting: set[int] = set()
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.register(pidfd, select.POLLIN)
        waiting.add(pidfd)
    until = time.monotonic() + _PATIENCE
    try:
        while waiting and (left := until - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(left * 1000):
                poll.unregister(pidfd)
                waiting.discard(pidfd)
                os.close(pidfd)
    finally:
        for pidfd in waiting:
            os.close(pidfd)


def _delete_network(config: Config) -> list[str]:
    """Remove the namespaces of groups, and the router with all links and tables in it."""
    found = sorted(NAMESPACES.glob(group_namespace(config, "*"))) if NAMESPACES.is_dir() else []
    removed = []
    for path in found:
        delete_namespace(path.name)
        removed.append(f"network namespace {path.name}")
    removed += [*router.remove(config), *_delete_former_network(config)]
    # The first `ip netns add` on a machine creates this folder and mounts it on itself. If another program uses it, it is
    # busy, and stays.
    if NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
        subprocess.run(["umount", str(NAMESPACES)], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            NAMESPACES.rmdir()
    return removed


def _delete_former_network(config: Config) -> list[str]:
    """Remove what an earlier version left, whose groups were ports of a bridge of the machine."""
    name, removed = installation_id(config), []
    links = [link for _, link in socket.if_nameindex() if link.startswith((f"cb{name}", f"cv{name}"))]
    for link in links:
        subprocess.run(["ip", "link", "delete", link], capture_output=True, check=True)
        removed.append(f"link {link}")
    if links:
        with Nftables() as nftables, contextlib.suppress(AbsentError):
            nftables.run_now(f"delete table bridge {router.table_name(config)}")
            removed.append(f"table bridge {router.table_name(config)}")
    return removed


def _control_groups(name: str) -> list[Path]:
    """Return the control groups of that name in every hierarchy of version 1 or 2, and those inside, innermost first."""
    tops = [_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")]
    return [Path(path) for top in tops for path, _, _ in os.walk(top, topdown=False)]


def _members(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []  # it was removed, or is threaded


def _delete_control_groups(name: str) -> list[str]:
    removed = []
    for group in _control_groups(name):
        # The kernel releases killed processes shortly after their end.
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                group.rmdir()
                removed.append(f"control group {group}")
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() < until:
                    time.sleep(0.01)
                    continue
                raise
            break
    return removed

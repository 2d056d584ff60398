"""Checks the requirements of the rooms on this machine, with a fix for each that is missing."""

from __future__ import annotations

import ipaddress
import os
import platform
import re
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

from cumulet.common import nftables, router
from cumulet.common.config import Config
from cumulet.instances.sandbox import firewall
from cumulet.up.hosts import is_enabled
from cumulet.up.runtime_version import missing_fixes

_PROGRAMS = {"runc": "runc", "conmon": "conmon", "ip": "iproute2"}

#: The longest prefix of a range with more than the router's addresses, the network's and the broadcast address.
_LONGEST_PREFIX = 29
#: Linux 5.3 added pidfd_open(2). 5.4 is the oldest long-term kernel with it.
_KERNEL = (5, 4)


class Problem(NamedTuple):
    """A missing requirement, and how to fix it."""

    what: str
    fix: str


def problems(config: Config) -> list[Problem]:
    """Return all missing requirements, so that they can be fixed together."""
    found: list[Problem] = []
    if os.geteuid() != 0:
        found.append(
            Problem(
                "root, to run containers and configure their network",
                f"run the same command with `sudo --preserve-env=HOME,CUMULET_DATA_DIR {shutil.which('cumulet') or 'cumulet'}`",
            )
        )
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        packages = " ".join(_PROGRAMS[program] for program in missing)
        found.append(Problem(f"not on PATH: {', '.join(missing)}", f"sudo apt-get install --yes {packages}"))
    else:
        found += _networks(config)
        found += _firewall(config)
    if why := nftables.missing():
        found.append(Problem(f"libnftables: {why}", "sudo apt-get install --yes libnftables1"))
    found += _kernel()
    found += _ports(config)
    if is_enabled(config) and not os.access("/etc/hosts", os.W_OK):
        found.append(
            Problem(
                "permission to write /etc/hosts, for --hosts",
                f"run as root, or omit --hosts and use docker login {config.addresses['registry'].host}:"
                f"{config.addresses['registry'].port}",
            )
        )
    return found


def warnings() -> list[Problem]:
    """Return problems of this machine that do not stop the rooms."""
    found = missing_fixes()
    if found is None:
        return []
    version, lacking = found
    return [
        Problem(
            f"runc {version} lacks the fixes of {', '.join(lacking)}, which allow container escapes",
            "install runc 1.2.8, 1.3.3, 1.4.0 or newer, or a distribution package with the fixes",
        )
    ]


def _kernel() -> list[Problem]:
    found: list[Problem] = []
    match = re.match(r"(\d+)\.(\d+)", platform.release(), re.ASCII)
    if match is None or (int(match[1]), int(match[2])) < _KERNEL:
        needed = ".".join(map(str, _KERNEL))
        found.append(Problem(f"Linux {needed} or newer; this is {platform.release()}", "sudo apt-get dist-upgrade"))
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        found.append(Problem("the overlay file system in the kernel", "sudo modprobe overlay"))
    if not Path("/proc/self/ns/net").exists():
        found.append(Problem("network namespaces in the kernel", "use a kernel with CONFIG_NET_NS, such as Debian's"))
    return found


def _networks(config: Config) -> list[Problem]:
    """Check that the pod range has addresses for groups, and is not routed to another network of this machine."""
    pods = ipaddress.IPv4Network(config.pod_cidr)
    if pods.prefixlen > _LONGEST_PREFIX:
        what = f"the pod range {pods} has no address for a container group: its first two are the router's"
        return [Problem(what, "cumulet up --pod-cidr 10.250.0.0/16, or another larger range")]
    return [
        Problem(
            f"the pod range {pods} is in use: {to} is routed to {link}",
            "cumulet up --pod-cidr 10.250.0.0/16, or another free range",
        )
        for to, link in router.other_routes(config)
        if pods.overlaps(to)
    ]


def _firewall(config: Config) -> list[Problem]:
    """Check that nftables can isolate container groups. None runs without that."""
    if os.geteuid() != 0 or nftables.missing() or (why := firewall.check(config)) is None:
        return []
    return [
        Problem(
            f"container groups cannot be isolated from each other: nftables reports {why}",
            "use a kernel with CONFIG_NF_TABLES_BRIDGE, such as Debian's, and run as root with CAP_NET_ADMIN",
        )
    ]


def _ports(config: Config) -> list[Problem]:
    found: list[Problem] = []
    for room in config.rooms:
        for address in config.listening(room):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address.host, address.port))
                except OSError as error:
                    found.append(
                        Problem(
                            f"{address.host}:{address.port} for the room {room}: {error.strerror}",
                            f"find the process with `ss -ltnp 'sport = :{address.port}'`, or "
                            + (
                                f"use another port: cumulet up --port {room}=0"
                                if address == config.addresses[room]
                                else f"omit --hosts and use docker login {config.addresses[room].host}:{config.addresses[room].port}"
                            ),
                        )
                    )
    return found

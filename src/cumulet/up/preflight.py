"""What this machine must have before the rooms can run, and the command that mends what it lacks."""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from cumulet.common.config import Config
from cumulet.instances.sandbox import firewall
from cumulet.instances.sandbox.names import SHORTEST_PREFIX, bridge_name
from cumulet.up.hosts import is_wanted
from cumulet.up.runtime_version import missing_fixes

_PROGRAMS = {"runc": "runc", "conmon": "conmon", "ip": "iproute2", "nft": "nftables"}

#: 5.3 brought pidfd_open(2) and 5.4 is the oldest long-term kernel that has it.
_KERNEL = (5, 4)


class Problem(NamedTuple):
    """Something that stops the rooms, and what mends it."""

    what: str
    cure: str


def problems(config: Config) -> list[Problem]:
    """Everything that is missing, so that it can be mended in one go; empty where the rooms can run."""
    found: list[Problem] = []
    if os.geteuid() != 0:
        found.append(
            Problem(
                "root is needed to run containers and to give them a network",
                "run the same command with `sudo --preserve-env=HOME,CUMULET_DATA_DIR`",
            )
        )
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        packages = " ".join(_PROGRAMS[program] for program in missing)
        found.append(Problem(f"not on PATH: {', '.join(missing)}", f"sudo apt-get install --yes {packages}"))
    else:
        found += _networks(config)
        found += _firewall(config)
    found += _kernel()
    found += _ports(config)
    if is_wanted(config) and not os.access("/etc/hosts", os.W_OK):
        found.append(
            Problem(
                "--hosts writes the names of login servers to /etc/hosts, which is not allowed",
                f"run it as root, or without --hosts: docker login {config.addresses['registry'].host}:"
                f"{config.addresses['registry'].port} works too",
            )
        )
    return found


def warnings() -> list[Problem]:
    """What is wrong with this machine and stops nothing."""
    found = missing_fixes()
    if found is None:
        return []
    version, lacking = found
    return [
        Problem(
            f"runc {version} lacks the fixes of {', '.join(lacking)}, by which a container can get out",
            "install runc 1.2.8, 1.3.3, 1.4.0 or newer, or a package of the distribution that has them",
        )
    ]


def _kernel() -> list[Problem]:
    found: list[Problem] = []
    match = re.match(r"(\d+)\.(\d+)", platform.release(), re.ASCII)
    if match is None or (int(match[1]), int(match[2])) < _KERNEL:
        needed = ".".join(map(str, _KERNEL))
        found.append(
            Problem(
                f"Linux {platform.release()} is too old, {needed} or newer is needed", "sudo apt-get dist-upgrade"
            )
        )
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        found.append(Problem("the kernel has no overlay file system", "sudo modprobe overlay"))
    if not Path("/proc/self/ns/net").exists():
        found.append(
            Problem("the kernel has no network namespaces", "use a kernel with CONFIG_NET_NS, as Debian's own has")
        )
    return found


def _networks(config: Config) -> list[Problem]:
    """Whether the pods' addresses are routed to some other network of this machine."""
    own = bridge_name(config)
    wanted = ipaddress.IPv4Network(config.pod_cidr)
    if wanted.prefixlen < SHORTEST_PREFIX:
        return [
            Problem(
                f"the range of the pods, {wanted}, is larger than a /{SHORTEST_PREFIX}",
                "choose a smaller one: cumulet up --pod-cidr 10.250.0.0/16",
            )
        ]
    listed = subprocess.run(["ip", "-4", "-json", "route", "show"], capture_output=True, check=True).stdout
    return [
        Problem(
            f"the range of the pods, {wanted}, is routed to {route['dev']} as {route['dst']}",
            "choose a free range: cumulet up --pod-cidr 10.250.0.0/16",
        )
        for route in json.loads(listed)
        if route["dst"] != "default"
        and route.get("dev") != own
        and wanted.overlaps(ipaddress.ip_network(route["dst"]))
    ]


def _firewall(config: Config) -> list[Problem]:
    """Whether groups can be kept from each other: without that none is run."""
    if os.geteuid() != 0 or (why := firewall.check(config)) is None:
        return []
    return [
        Problem(
            f"container groups cannot be isolated from each other: nft says {why}",
            "use a kernel with CONFIG_NF_TABLES_BRIDGE, as Debian's own has, and run as root with CAP_NET_ADMIN",
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
                            f"{address.host}:{address.port}, where the room {room} listens: {error.strerror}",
                            f"see who has it with `ss -ltnp 'sport = :{address.port}'`, or "
                            + (
                                f"choose another port: cumulet up --port {room}=0"
                                if address == config.addresses[room]
                                else f"do without: cumulet up without --hosts, and docker login {config.addresses[room].host}:{config.addresses[room].port}"
                            ),
                        )
                    )
    return found

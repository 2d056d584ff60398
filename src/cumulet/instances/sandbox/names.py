"""The names of an installation's objects in the kernel. Each contains the installation's id, or is in the router.

A link is named by its group's address, which is unique in the installation; the kernel allows 15 characters.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from cumulet.common.config import Config
from cumulet.common.router import installation_id

#: The machine's folder for running installations: links to namespaces, roots of containers. Every user may pass through.
STATE = Path("/run/cumulet")
#: The prefix of the names of the bridge's ports.
PORT_PREFIX = "pod"


def run_dir(config: Config) -> Path:
    """Return the folder of this installation in `STATE`."""
    return STATE / installation_id(config)


def port_name(config: Config, address: ipaddress.IPv4Address) -> str:
    """Return the name of the router's end of a group's link."""
    index = int(address) - int(ipaddress.IPv4Network(config.pod_cidr).network_address)
    return f"{PORT_PREFIX}{index:x}"


def group_namespace(config: Config, uid: str) -> str:
    """Return the name of a group's network namespace."""
    return f"cumulet-{installation_id(config)}-{uid}"

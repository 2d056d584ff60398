"""The names of an installation's objects in the kernel. Each contains the installation's id.

A link is named by its group's address, which is unique in the installation; the kernel allows 15 characters.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

from cumulet.common.config import Config

#: The shortest prefix of the pods' range for which every address has a link name.
SHORTEST_PREFIX = 12
#: The machine's folder for running installations: links to namespaces, roots of containers. Every user may pass through.
STATE = Path("/run/cumulet")
#: The machine's folder of named network namespaces (ip-netns(8)).
NAMESPACES = Path("/run/netns")


def installation_id(config: Config) -> str:
    """Return the id of this installation: eight characters."""
    return hashlib.sha256(str(config.data_dir).encode()).hexdigest()[:8]


def run_dir(config: Config) -> Path:
    """Return the folder of this installation in `STATE`."""
    return STATE / installation_id(config)


def bridge_name(config: Config) -> str:
    """Return the name of the bridge of this installation's groups."""
    return f"cb{installation_id(config)}"


def link_prefix(config: Config) -> str:
    """Return the prefix of the names of all ports of the bridge."""
    return f"cv{installation_id(config)}"


def link_name(config: Config, address: ipaddress.IPv4Address) -> str:
    """Return the name of the machine's end of a group's link."""
    index = int(address) - int(ipaddress.IPv4Network(config.pod_cidr).network_address)
    return f"{link_prefix(config)}{index:x}"


def mac_address(address: ipaddress.IPv4Address) -> str:
    """Return the MAC address of a group's end: locally administered, with the IPv4 address, as in CNI's bridge."""
    return "0a:58:" + address.packed.hex(":")


def namespace_name(config: Config, uid: str) -> str:
    """Return the name of a group's network namespace."""
    return f"cumulet-{installation_id(config)}-{uid}"


def table_name(config: Config) -> str:
    """Return the name of this installation's nftables tables."""
    return f"cumulet_{installation_id(config)}"

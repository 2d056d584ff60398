"""The names of what an installation's groups have in the kernel. Each tells the installation, so nobody else's is taken for ours.

Links are named by a group's address, which no other group of the installation has; the kernel allows 15 characters.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

from cumulet.common.config import Config

#: The shortest prefix of a range of pods, whose every address has a link name.
SHORTEST_PREFIX = 12
#: The machine's folder for running installations: links to namespaces, roots of containers. Every user may pass through.
STATE = Path("/run/cumulet")
#: The machine's folder of named network namespaces (ip-netns(8)).
NAMESPACES = Path("/run/netns")


def installation_id(config: Config) -> str:
    """Eight characters that tell this installation's names in the kernel from another's."""
    return hashlib.sha256(str(config.data_dir).encode()).hexdigest()[:8]


def run_dir(config: Config) -> Path:
    """The folder of this installation in `STATE`."""
    return STATE / installation_id(config)


def bridge_name(config: Config) -> str:
    """The link that the groups of this installation hang on."""
    return f"cb{installation_id(config)}"


def link_prefix(config: Config) -> str:
    """With what the names of all ports of the bridge begin."""
    return f"cv{installation_id(config)}"


def link_name(config: Config, address: ipaddress.IPv4Address) -> str:
    """The machine's end of a group's link."""
    index = int(address) - int(ipaddress.IPv4Network(config.pod_cidr).network_address)
    return f"{link_prefix(config)}{index:x}"


def mac_address(address: ipaddress.IPv4Address) -> str:
    """The address of a group's end of its link: locally administered, and the IPv4 address, as with CNI's bridge."""
    return "0a:58:" + address.packed.hex(":")


def namespace_name(config: Config, uid: str) -> str:
    """A group's network namespace."""
    return f"cumulet-{installation_id(config)}-{uid}"


def table_name(config: Config) -> str:
    """The nftables tables of this installation."""
    return f"cumulet_{installation_id(config)}"

"""The machine's own resolver configuration (resolv.conf(5)), which pods with the DNS policy `Default` get."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import NamedTuple

#: The file, and the servers behind it where it is systemd-resolved's: that listens on loopback only.
_FILE, _BEHIND = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")


class Resolver(NamedTuple):
    """Name servers, search domains, and options as they are written."""

    servers: list[str]
    searches: list[str]
    options: list[str]


def text() -> str:
    """Return the configuration, empty without one. If it names only loopback addresses, those are not a pod's."""
    found = _read(_FILE)
    servers = parse(found).servers
    if servers and all(is_loopback(server) for server in servers):
        return _read(_BEHIND) or found
    return found


def parse(content: str) -> Resolver:
    """Return the parts of a configuration; of several lines `search` or `domain`, the last counts."""
    resolver = Resolver([], [], [])
    for line in content.splitlines():
        keyword, *words = re.split(r"[ \t]+", line.strip(" \t"), flags=re.ASCII)
        match keyword:
            case "nameserver" if words:
                resolver.servers.append(words[0])
            case "search" | "domain":
                # A kubelet takes a domain with and without a dot at its end as the same.
                resolver.searches[:] = [word if word == "." else word.removesuffix(".") for word in words]
            case "options":
                resolver.options.extend(words)
    return resolver


def lines(resolver: Resolver) -> str:
    """Return the text of a configuration, in the order in which containerd writes it."""
    written = [f"search {' '.join(resolver.searches)}\n"] if resolver.searches else []
    written += [f"nameserver {server}\n" for server in resolver.servers]
    if resolver.options:
        written.append(f"options {' '.join(resolver.options)}\n")
    return "".join(written)


def is_loopback(server: str) -> bool:
    """Return whether an address is of the machine itself, so that no pod reaches it."""
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""

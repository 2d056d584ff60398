"""The files that all containers of a group share: hosts, hostname and resolv.conf, as the kubelet and containerd write them."""

from __future__ import annotations

import os
from pathlib import Path

from cumulet.common.kubernetes import resolv_conf
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.sandbox.mounts import Bind

_HEAD = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
_ALIASES = "\n# Entries added by HostAliases.\n"


def host_name(name: str, properties: GroupProperties) -> str:
    """Return the host name of a group's containers; `name` is that of the group."""
    hostname = properties.hostname or name
    if properties.set_hostname_as_fqdn and properties.subdomain:
        return f"{hostname}.{properties.subdomain}"
    return hostname


def write(
    folder: Path, name: str, address: str, name_server: str, properties: GroupProperties, *, read_only: bool
) -> list[Bind]:
    """Write the files of the group of that name and address in its folder; return their binds. Raises `OSError`.

    Groups ask `name_server` unless they have a `dnsConfig`. With a `read_only` root, only the hosts file can be written, as in Kubernetes.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    files = {
        "hosts": _hosts(properties.hostname or name, address, properties),
        "hostname": f"{host_name(name, properties)}\n",
        "resolv.conf": _resolver(name_server, properties),
    }
    for file, text in files.items():
        _replace(folder / file, text.encode())
    return [Bind(folder / file, f"/etc/{file}", read_only and file != "hosts") for file in files]


def _hosts(hostname: str, address: str, properties: GroupProperties) -> str:
    names = f"{hostname}.{properties.subdomain}\t{hostname}" if properties.subdomain else hostname
    lines = [_HEAD, f"{address}\t{names}\n"]
    if properties.host_aliases:
        lines.append(_ALIASES)
        lines += (f"{alias.ip}\t{chr(9).join(alias.hostnames)}\n" for alias in properties.host_aliases)
    return "".join(lines)


def _resolver(name_server: str, properties: GroupProperties) -> str:
    if properties.dns_config is not None:
        return properties.dns_config.text()
    # The name server asks those of the machine, and knows the names of its domains.
    searches = resolv_conf.parse(resolv_conf.text()).searches
    return resolv_conf.lines(resolv_conf.Resolver([name_server], searches, []))


def _replace(path: Path, content: bytes) -> None:
    """Write a file in place, because running containers have mounted it, unless it has that content.

    Containers can write the file, so no more of it is read than is compared.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        os.fchmod(file.fileno(), 0o644)
        if file.read(len(content) + 1) != content:
            file.seek(0)
            file.truncate()
            file.write(content)

"""Creates and renews the certificates of an installation, and writes the kubeconfigs and trust bundles from them.

`maintain` runs at each start and, while the rooms run, when the first certificate is due (`renewal`). Nothing else reads
the keys of the authorities, except the cluster's signers in `controllers`.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import ipaddress
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
from cryptography import x509

from cumulet.common import clock, doors
from cumulet.common.config import (
    DEFAULT_PORTS,
    DISK_DRIVER,
    DISKS,
    FRONT_PROXY_CLIENT,
    KUBELET_CLIENT,
    SCRAPER,
    AuthorityName,
    Config,
    RoomName,
    room_id,
    scraper_id,
)
from cumulet.common.node_names import pool_node_name
from cumulet.common.private_files import private_folder, write_private
from cumulet.common.tls import Authority, Purpose, alternatives, load_key, renewal, subject

#: The purpose of each authority.
AUTHORITIES: dict[AuthorityName, Purpose] = {
    "serving": "server auth",
    "rooms": "client auth",
    "cluster": "client auth",
    "kubelet-serving": "server auth",
    "kubelet-client": "client auth",
    "front-proxy": "client auth",
}
#: Common names of server certificates that differ from the room's name.
_SERVERS: dict[RoomName, str] = {"kube": "kube-apiserver"}
#: The Kubernetes users that have certificates: user and groups (common name and organizations).
_USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("kubernetes-admin", ("system:masters",)),
    "scheduler": ("system:kube-scheduler", ()),
    "controllers": ("system:kube-controller-manager", ()),
    "balancer": ("system:cloud-controller-manager", ()),
    "network": ("system:kube-proxy", ()),
    DISKS: (DISK_DRIVER, ()),
    SCRAPER: (SCRAPER, ("system:monitoring",)),
}


class Leaf(NamedTuple):
    """The specification of a certificate."""

    authority: AuthorityName
    files: tuple[Path, Path]
    common_name: str
    organizations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    uri: str | None = None


def maintain(config: Config) -> set[AuthorityName]:
    """Create missing certificates, renew due ones, and return the affected authorities.

    Raises `OSError`, and `ValueError` if the file of an authority is not valid.
    """
    # The kubeconfigs of the own cluster are kept up to date while the rooms work in another one.
    config = msgspec.structs.replace(config, kubeconfig=None)
    changed: set[AuthorityName] = set()
    with _locked(config):
        _maintain(config, changed)
    return changed


def _maintain(config: Config, changed: set[AuthorityName]) -> None:
    authorities = {name: _authority(config, name, changed) for name in AUTHORITIES}
    for leaf in leaves(config):
        authority = authorities[leaf.authority]
        if not _is_good(leaf, authority):
            certificate, key = authority.issue(
                leaf.common_name, organizations=leaf.organizations, hosts=leaf.hosts, uri=leaf.uri
            )
            certificate_file, key_file = leaf.files
            write_private(key_file, key)
            write_private(certificate_file, certificate)
            changed.add(leaf.authority)
    _publish(config)


@contextlib.contextmanager
def _locked(config: Config) -> Iterator[None]:
    """Exclude other processes, so that a certificate and its key match."""
    path = private_folder(config.pki_dir) / "lock"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def next_renewal(config: Config) -> dt.datetime:
    """Return when `maintain` has to run next. Raises `OSError`, `ValueError`."""
    files = [config.authority_file(name) for name in AUTHORITIES] + [leaf.files[0] for leaf in leaves(config)]
    return min(renewal(x509.load_pem_x509_certificate(file.read_bytes())) for file in files)


def expiry(config: Config) -> dict[AuthorityName, tuple[dt.datetime, dt.datetime]]:
    """Return when each authority expires, and the first of the certificates that it signed for this installation."""
    ends: dict[AuthorityName, list[dt.datetime]] = {}
    for name in get_args(AuthorityName):
        files = [leaf.files[0] for leaf in leaves(config) if leaf.authority == name]
        ends[name] = [
            x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
            for file in [config.authority_file(name), *files]
        ]
    return {name: (own, min(others, default=own)) for name, (own, *others) in ends.items()}


def leaves(config: Config) -> Iterator[Leaf]:
    """Yield the specification of each certificate of an installation."""
    node = (f"system:node:{config.node_name}", ("system:nodes",))
    for room in DEFAULT_PORTS:
        files = config.certificate_files(room)
        if room == "node":
            hosts = (config.node_name, config.addresses["node"].host)
            yield Leaf(config.serving_authority(room), files, *node, hosts=hosts)
        else:
            yield Leaf(config.serving_authority(room), files, _SERVERS.get(room, room), hosts=_hosts(config, room))
        yield Leaf("rooms", config.room_files(room), room, uri=room_id(config.trust_domain, room))
    for user, (name, groups) in {**_USERS, "node": node}.items():
        yield Leaf("cluster", config.user_files(user), name, groups)
    for member in config.pool:
        name = pool_node_name(config, member)
        node = (f"system:node:{name}", ("system:nodes",))
        yield Leaf("kubelet-serving", config.node_certificate_files(name), *node, hosts=(name, member.address.host))
        yield Leaf("cluster", config.user_files(name), *node)
    yield Leaf("rooms", config.scraper_files, SCRAPER, uri=scraper_id(config.trust_domain))
    yield Leaf("kubelet-client", config.kubelet_client_files, KUBELET_CLIENT)
    yield Leaf("front-proxy", config.front_proxy_files, FRONT_PROXY_CLIENT)


def _authority(config: Config, name: AuthorityName, changed: set[AuthorityName]) -> Authority:
    files = config.authority_file(name), config.authority_key_file(name)
    if not files[0].exists():
        changed.add(name)
    authority = Authority.open(*files, f"Cumulet {name} CA", AUTHORITIES[name])
    if renewal(authority.certificate) <= clock.now():
        authority = authority.renewed()
        write_private(files[0], authority.pem)
        changed.add(name)
    return authority


def _is_good(leaf: Leaf, authority: Authority) -> bool:
    """Return whether a certificate exists, matches its specification, and is not due for renewal."""
    certificate_file, key_file = leaf.files
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = load_key(key_file)
    except (FileNotFoundError, ValueError):
        return False
    return (
        certificate.public_key() == key.public_key()
        and authority.signed(certificate)
        and certificate.subject == subject(leaf.common_name, leaf.organizations)
        and alternatives(certificate) == set(leaf.hosts) | ({leaf.uri} if leaf.uri else set())
        and renewal(certificate) > clock.now()
    )


def _hosts(config: Config, room: RoomName) -> tuple[str, ...]:
    hosts = {"localhost", "127.0.0.1", *(address.host for address in config.listening(room))}
    if room == "registry":
        hosts.add(f"*.{config.registry_suffix}")
    if room in doors.PORTS:
        hosts.add(doors.door(config, room).host)
    if room == "kube":
        hosts |= {
            doors.api_server(config).host,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            str(next(ipaddress.ip_network(config.service_cidr).hosts())),
        }
    return tuple(sorted(hosts))


def _publish(config: Config) -> None:
    """Write the trust files and kubeconfigs whose content has changed."""
    authority = config.authority_file("serving").read_bytes()
    system = ssl.get_default_verify_paths().cafile
    roots = Path(system).read_bytes() if system and Path(system).exists() else b""
    _write(config.ca_file, authority)
    _write(config.trust_bundle_file, roots + b"\n" + authority)
    nodes = [pool_node_name(config, member) for member in config.pool]
    for user in ("admin", "scheduler", "controllers", "node", "balancer", "network", DISKS, *nodes):
        certificate, key = (file.read_bytes() for file in config.user_files(user))
        _write(config.kubeconfig_file(user), _kubeconfig(config, user, authority, certificate, key))


def _write(file: Path, content: bytes) -> None:
    if not file.exists() or file.read_bytes() != content:
        write_private(file, content)


def _kubeconfig(config: Config, user: str, authority: bytes, certificate: bytes, key: bytes) -> bytes:
    import yaml

    name = f"clusterAdmin_{config.cluster_resource_group}_{config.cluster}" if user == "admin" else user
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": config.cluster,
                "cluster": {
                    "server": config.url("kube"),
                    "certificate-authority-data": _base64(authority),
                    "disable-compression": True,  # the server is on this machine
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)},
            }
        ],
        "contexts": [{"name": config.cluster, "context": {"cluster": config.cluster, "user": name}}],
        "current-context": config.cluster,
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

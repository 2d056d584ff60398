"""Makes an installation: the data directory with its settings, certificates, kubeconfigs and first principals.

Everything is made once and kept; running it again makes what is missing and follows changed ports.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
import ssl
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cumulet.common import config as settings
from cumulet.common.config import DEFAULT_PORTS, Address, Config, RoomName
from cumulet.common.entra import Credential
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.tls import Authority
from cumulet.up import hosts

#: Who the rooms are, as Kubernetes' users and groups (common name, organisations).
_IDENTITIES: dict[RoomName, tuple[str, tuple[str, ...]]] = {
    "kube": ("kube-apiserver", ("system:masters",)),
    "scheduler": ("system:kube-scheduler", ()),
    "controllers": ("system:kube-controller-manager", ()),
    "balancer": ("system:cloud-controller-manager", ()),
}
_KUBERNETES_CLIENTS: tuple[RoomName, ...] = ("scheduler", "controllers", "node", "balancer")


def install(
    data_dir: Path,
    *,
    ports: Mapping[RoomName, int] | None = None,
    pod_cidr: str | None = None,
    external_cidr: str | None = None,
    with_hosts: bool = False,
    kubeconfig: Path | None = None,
    client_ca: Path | None = None,
    node_address: str | None = None,
) -> Config:
    """Make or complete the installation in `data_dir` and return its settings.

    `ports` says where rooms listen from now on; 0 picks a free port. `with_hosts` gives the
    registry port 443 of an address for its login servers too. With `kubeconfig` and `client_ca` the rooms work in a
    cluster that is not ours (`Config`), whose API server reaches the node at `node_address`. Raises `ConfigError`, `OSError`.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.demand_own(data_dir)
    if kubeconfig is not None:
        load_kubeconfig(kubeconfig)  # what cannot be used is told now and not in each room's log
    config = hosts.with_hosts(_settings(data_dir, ports or {}, pod_cidr, external_cidr), with_hosts)
    config = msgspec.structs.replace(
        config,
        addresses=config.addresses | {"node": Address(node_address or "127.0.0.1", config.addresses["node"].port)},
        kubeconfig=kubeconfig and kubeconfig.absolute(),
        client_ca=client_ca and client_ca.absolute(),
    )
    settings.save(config)
    authority = Authority.open(config.ca_file, config.ca_file.with_suffix(".key"))
    _certificates(config, authority)
    _trust_bundle(config)
    # Those of our own cluster are kept for the time when the rooms work in it again.
    _kubeconfigs(msgspec.structs.replace(config, kubeconfig=None), authority)
    _principals(config)
    return config


def _settings(
    data_dir: Path, ports: Mapping[RoomName, int], pod_cidr: str | None, external_cidr: str | None
) -> Config:
    if (data_dir / "config.json").exists():
        config = settings.load(data_dir)
    else:
        config = Config(
            data_dir=data_dir,
            addresses={room: Address("127.0.0.1", port) for room, port in DEFAULT_PORTS.items()},
            tenant_id=str(uuid.uuid4()),
            subscription_id=str(uuid.uuid4()),
        )
    addresses = dict(config.addresses)
    for room, port in ports.items():
        address = Address(addresses[room].host, port)
        addresses[room] = address if port else address.free({other.port for other in addresses.values()})
    return msgspec.structs.replace(
        config,
        data_dir=data_dir,
        addresses=addresses,
        pod_cidr=pod_cidr or config.pod_cidr,
        external_cidr=external_cidr or config.external_cidr,
    )


def _certificates(config: Config, authority: Authority) -> None:
    for room in DEFAULT_PORTS:
        certificate_file, key_file = config.certificate_files(room)
        if certificate_file.exists() and key_file.exists():
            continue
        default = (f"system:node:{config.node_name}", ("system:nodes",)) if room == "node" else (room, ())
        user, groups = _IDENTITIES.get(room, default)
        certificate, key = authority.issue(user, organizations=groups, hosts=_hosts(config, room))
        settings.write_private(key_file, key)
        settings.write_private(certificate_file, certificate)


def _hosts(config: Config, room: RoomName) -> list[str]:
    hosts = ["localhost", "127.0.0.1", *{address.host for address in config.listening(room)} - {"127.0.0.1"}]
    if room == "registry":
        hosts.append(f"*.{config.registry_suffix}")
    if room == "node":
        hosts.append(config.node_name)
    if room == "kube":
        service_address = str(next(ipaddress.ip_network(config.service_cidr).hosts()))
        hosts += [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            service_address,
        ]
    return hosts


def _trust_bundle(config: Config) -> None:
    system = ssl.get_default_verify_paths().cafile
    roots = Path(system).read_bytes() if system and Path(system).exists() else b""
    settings.write_private(config.trust_bundle_file, roots + b"\n" + config.ca_file.read_bytes())


def _kubeconfigs(config: Config, authority: Authority) -> None:
    """One a client room, and the user's own as cluster administrator. A certificate in one is kept."""
    for room in _KUBERNETES_CLIENTS:
        certificate_file, key_file = config.certificate_files(room)
        _write_kubeconfig(config, room, certificate_file.read_bytes(), key_file.read_bytes())
    certificate_file, key_file = (config.ca_file.with_name(f"admin.{kind}") for kind in ("crt", "key"))
    if not (certificate_file.exists() and key_file.exists()):
        certificate, key = authority.issue("kubernetes-admin", organizations=["system:masters"])
        settings.write_private(key_file, key)
        settings.write_private(certificate_file, certificate)
    _write_kubeconfig(config, "admin", certificate_file.read_bytes(), key_file.read_bytes())


def _write_kubeconfig(config: Config, user: str, certificate: bytes, key: bytes) -> None:
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
                    "certificate-authority-data": _base64(config.ca_file.read_bytes()),
                    "disable-compression": True,  # it is on this machine
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
    settings.write_private(config.kubeconfig_file(user), yaml.safe_dump(document, sort_keys=False).encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _principals(config: Config) -> None:
    """The first service principals; the identity room takes them in when it starts."""
    subscription = f"/subscriptions/{config.subscription_id}"
    wanted = {
        "owner": ("cumulet-owner", "Owner", subscription),
        "virtual-node": (
            f"aciconnectorlinux-{config.cluster}",
            "Contributor",
            f"{subscription}/resourceGroups/{config.node_resource_group}",
        ),
        "registry": ("cumulet-registry", "Reader", subscription),
    }
    for file, (display_name, role, scope) in wanted.items():
        path = config.credential_file(file)
        if path.exists():
            continue
        credential = Credential(
            tenant_id=config.tenant_id,
            client_id=str(uuid.uuid4()),
            object_id=str(uuid.uuid4()),
            display_name=display_name,
            client_secret=secrets.token_urlsafe(32),
            roles=[(role, scope)],
        )
        settings.write_private(path, msgspec.json.format(msgspec.json.encode(credential), indent=2))

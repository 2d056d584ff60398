"""Creates an installation: the data directory with settings, certificates, kubeconfigs and the first principals.

Running it again creates missing files, renews due certificates and applies changed settings. Settings are checked
before they are saved.
"""

from __future__ import annotations

import ipaddress
import itertools
import secrets
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cumulet.common import config as settings
from cumulet.common import private_files
from cumulet.common.config import DEFAULT_PORTS, Address, Config, ConfigError, RoomName
from cumulet.common.egress import Exempt
from cumulet.common.entra import Credential
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.up import certificates, hosts, migration, pools
from cumulet.up.folders import close_folders


def install(
    data_dir: Path,
    *,
    ports: Mapping[RoomName, int] | None = None,
    pod_cidr: str | None = None,
    service_cidr: str | None = None,
    external_cidr: str | None = None,
    with_hosts: bool = False,
    kubeconfig: Path | None = None,
    client_ca: Path | None = None,
    node_address: str | None = None,
    allow_egress: Sequence[Exempt] | None = None,
    strict_aci: bool | None = None,
    pool: pools.Wanted = pools.UNCHANGED,
) -> Config:
    """Create or update the installation in `data_dir` and return its settings.

    `ports` are the rooms' new ports; 0 picks a free port. Ranges are CIDR. `with_hosts` also gives the registry port
    443 of an address for its login servers. `allow_egress` replaces the saved exceptions, and
    `strict_aci` the saved setting. `pool` is the size of the node pool. With `kubeconfig` and
    `client_ca` the rooms use another cluster (`Config`), whose API server reaches the node at the IPv4 address
    `node_address`. Raises `ConfigError`, `OSError`.
    """
    private_files.private_folder(data_dir)
    settings.demand_own(data_dir)
    close_folders(data_dir)
    if kubeconfig is not None:
        load_kubeconfig(kubeconfig)  # an unusable file is reported here and not in the log of each room
    config = hosts.with_hosts(_settings(data_dir, ports or {}), with_hosts)
    if service_cidr not in (None, config.service_cidr) and (config.room_dir("kube") / "kube.db").exists():
        raise ConfigError(
            f"--service-cidr: the cluster has {config.service_cidr}, and its Services keep their addresses. "
            "Set another range in a new --data-dir"
        )
    config = with_ranges(config, pod_cidr=pod_cidr, service_cidr=service_cidr, external_cidr=external_cidr)
    config = msgspec.structs.replace(
        config,
        addresses=config.addresses | {"node": Address(node_host(node_address), config.addresses["node"].port)},
        kubeconfig=kubeconfig and kubeconfig.absolute(),
        client_ca=client_ca and client_ca.absolute(),
        allow_egress=config.allow_egress if allow_egress is None else list(allow_egress),
        strict_aci=config.strict_aci if strict_aci is None else strict_aci,
    )
    config = pools.with_pool(config, pool)
    settings.save(config)
    try:
        certificates.maintain(config)
    except ValueError as error:
        raise ConfigError(f"the certificates in {config.pki_dir} cannot be used: {error}") from error
    migration.finish(config)
    if config.kubeconfig is None:
        pools.forget(config)
    _principals(config)
    return config


def _settings(data_dir: Path, ports: Mapping[RoomName, int]) -> Config:
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
    return msgspec.structs.replace(config, data_dir=data_dir, addresses=addresses)


def with_ranges(
    config: Config, *, pod_cidr: str | None = None, service_cidr: str | None = None, external_cidr: str | None = None
) -> Config:
    """Return the settings with other ranges, in canonical form.

    Raises `ConfigError` if a range is not an IPv4 network, or if two of them overlap.
    """
    ranges = {
        "--pod-cidr": _network("--pod-cidr", pod_cidr or config.pod_cidr),
        "--service-cidr": _network("--service-cidr", service_cidr or config.service_cidr),
        "--external-cidr": _network("--external-cidr", external_cidr or config.external_cidr),
    }
    for (one, first), (other, second) in itertools.combinations(ranges.items(), 2):
        if first.overlaps(second):
            raise ConfigError(f"{one} {first} and {other} {second} overlap. Set separate ranges")
    pods, services, external = map(str, ranges.values())
    return msgspec.structs.replace(config, pod_cidr=pods, service_cidr=services, external_cidr=external)


def _network(option: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}. Set an IPv4 network, such as 10.250.0.0/16") from None


def node_host(text: str | None) -> str:
    """Return the IPv4 address of the virtual node, 127.0.0.1 by default. Raises `ConfigError`."""
    try:
        return str(ipaddress.IPv4Address(text or "127.0.0.1"))
    except ValueError as error:
        raise ConfigError(f"--node-address: {error}. Set an IPv4 address") from None


def _principals(config: Config) -> None:
    """Create the first service principals. The identity room imports them at its start."""
    subscription = f"/subscriptions/{config.subscription_id}"
    principals = {
        "owner": ("cumulet-owner", "Owner", subscription),
        "virtual-node": (
            f"aciconnectorlinux-{config.cluster}",
            "Contributor",
            f"{subscription}/resourceGroups/{config.node_resource_group}",
        ),
        "registry": ("cumulet-registry", "Reader", subscription),
    }
    for file, (display_name, role, scope) in principals.items():
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
        private_files.write_private(path, msgspec.json.format(msgspec.json.encode(credential), indent=2))

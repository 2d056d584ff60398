"""Makes an installation: the data directory with its settings, certificates, kubeconfigs and first principals.

Everything is made once and kept; running it again makes what is missing or due, and follows changed ports.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cumulet.common import config as settings
from cumulet.common.config import DEFAULT_PORTS, Address, Config, ConfigError, RoomName
from cumulet.common.egress import Exempt
from cumulet.common.entra import Credential
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.up import certificates, hosts, migration


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
    allow_egress: Sequence[Exempt] | None = None,
) -> Config:
    """Make or complete the installation in `data_dir` and return its settings.

    `ports` says where rooms listen from now on; 0 picks a free port. `with_hosts` gives the
    registry port 443 of an address for its login servers too. `allow_egress` replaces the exceptions that there were. With `kubeconfig` and `client_ca` the rooms work in a
    cluster that is not ours (`Config`), whose API server reaches the node at `node_address`. Raises `ConfigError`, `OSError`.
    """
    settings.private_folder(data_dir)
    settings.demand_own(data_dir)
    settings.close_folders(data_dir)
    if kubeconfig is not None:
        load_kubeconfig(kubeconfig)  # what cannot be used is told now and not in each room's log
    config = hosts.with_hosts(_settings(data_dir, ports or {}, pod_cidr, external_cidr), with_hosts)
    config = msgspec.structs.replace(
        config,
        addresses=config.addresses | {"node": Address(node_address or "127.0.0.1", config.addresses["node"].port)},
        kubeconfig=kubeconfig and kubeconfig.absolute(),
        client_ca=client_ca and client_ca.absolute(),
        allow_egress=config.allow_egress if allow_egress is None else list(allow_egress),
    )
    settings.save(config)
    try:
        certificates.maintain(config)
    except ValueError as error:
        raise ConfigError(f"the certificates in {config.pki_dir} cannot be used: {error}") from error
    migration.finish(config)
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

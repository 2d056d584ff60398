"""The settings of one installation, read by every room from `<data-dir>/config.json`.

`cumulet up` writes the file once. It has the address of each room, and a room finds the others by address only. To use
the real cloud instead of a room, change that address.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cumulet.common.ascii import is_digits
from cumulet.common.egress import Egress, Exempt
from cumulet.common.limits import (
    ContainerLogs,
    DiskLimits,
    HttpLimits,
    ImageLimits,
    InstanceLimits,
    RegistryLimits,
)
from cumulet.common.private_files import write_private

RoomName = Literal[
    "identity", "registry", "arm", "kube", "scheduler", "controllers", "instances", "node", "balancer", "network"
]

#: Every room in the order of their start, with its default port on loopback.
#: 6443, 10249, 10250, 10256, 10257 and 10259 are Kubernetes' ports of the same components.
DEFAULT_PORTS: dict[RoomName, int] = {
    "identity": 8444,
    "kube": 6443,
    "arm": 8443,
    "registry": 5443,
    "instances": 8445,
    "node": 10250,
    "scheduler": 10259,
    "controllers": 10257,
    "balancer": 10256,
    "network": 10249,
}

#: The certificate authorities of an installation. Each has one purpose and is trusted in one place (`docs/architecture.md`).
#: `serving` signs the rooms' server certificates, and `rooms` the client certificates for calls between rooms.
#: `cluster` signs client certificates of Kubernetes users, and `kubelet-serving` server certificates of nodes.
#: `kubelet-client` and `front-proxy` sign the API server's client certificates for kubelets and aggregated API servers.
AuthorityName = Literal["serving", "rooms", "cluster", "kubelet-serving", "kubelet-client", "front-proxy"]

#: The API server's users for kubelets and for aggregated API servers, with kubeadm's names.
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
#: The scraper of metrics, as a file name and as a user of Kubernetes.
SCRAPER = "metrics"
#: The controller of disks, as a file name; its user of Kubernetes is `DISK_DRIVER`, AKS's account.
DISKS, DISK_DRIVER = "disks", "csi-azuredisk-controller"
FRONT_PROXY_CLIENT = "front-proxy-client"

#: The range of automatically chosen ports. It is below the node ports of Services and below the ephemeral ports. The
#: kernel could take an ephemeral port between its choice and its use.
_FREE_PORTS = range(20000, 30000)


class ConfigError(Exception):
    """The settings are missing or not valid; the message has the file, the reason and the fix."""


class Address(msgspec.Struct, frozen=True):
    """The address of a room: an IPv4 address or host name, and a TCP port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The `https` base URL, without a trailing slash."""
        return f"https://{self.host}:{self.port}"

    def free(self, taken: Collection[int] = ()) -> Address:
        """Return the address with an unused port that is not in `taken`. Raises `ConfigError` if there is none."""
        first = random.randrange(len(_FREE_PORTS))
        for number in range(len(_FREE_PORTS)):
            port = _FREE_PORTS[(first + number) % len(_FREE_PORTS)]
            if port not in taken:
                with contextlib.suppress(OSError), socket.socket() as probe:
                    probe.bind((self.host, port))
                    return Address(self.host, port)
        raise ConfigError(f"no port of {self.host} from {_FREE_PORTS.start} to {_FREE_PORTS.stop - 1} is free")


#: The largest number of nodes of the node pool, each of which has a port on this machine.
POOL_LIMIT = 10


class PoolNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the node pool: its number in the scale set, and where its kubelet listens.

    `cumulet up` drains and deletes one that leaves, as AKS does when it scales a pool down.
    """

    number: Annotated[int, msgspec.Meta(ge=0, lt=POOL_LIMIT)]
    address: Address
    leaves: bool = False


class FileShare(msgspec.Struct, frozen=True, kw_only=True):
    """A file share of a storage account, which is a folder of this machine.

    `key` is the key of the account, base64. Only the owner may reach the folder: a container writes files as root there.
    """

    account: str
    name: str
    folder: Path
    key: str


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one installation.

    Addresses are on loopback by default. Ranges are CIDR: `pod_cidr` for pod addresses, `service_cidr` for cluster IPs,
    and `external_cidr` for the EXTERNAL-IPs of LoadBalancer Services.
    """

    data_dir: Path
    addresses: dict[RoomName, Address]
    #: Additional addresses of a room, such as port 443 of a loopback address that login servers resolve to.
    more_addresses: dict[RoomName, list[Address]] = {}
    tenant_id: str
    subscription_id: str
    location: str = "eastus"
    #: TLS of the rooms that send files and watches: `own` lets OpenSSL write to the socket (`common.tls_loop`), `asyncio`
    #: is the event loop's own.
    tls: Literal["own", "asyncio"] = "own"
    cluster: str = "aksdemo2"
    cluster_resource_group: str = "aks-rg2"
    node_name: str = "virtual-node-aci-linux"
    #: The ordinary nodes, without those of another cluster: they belong to the cluster of this installation only.
    node_pool: list[PoolNode] = []
    #: The size of the nodes' virtual machines, one of `node.machine_sizes`.
    node_size: str = "Standard_DS2_v2"
    #: The resource id of the subnet of the virtual node's container groups, if it is not the cluster's own.
    node_subnet: str | None = None
    #: The virtual node refuses what Azure's virtual node refuses, and sends published properties of container groups only.
    strict_aci: bool = False
    registry_suffix: str = "azurecr.io"
    registry_limits: RegistryLimits = RegistryLimits()
    http_limits: HttpLimits = HttpLimits()
    container_logs: ContainerLogs = ContainerLogs()
    instance_limits: InstanceLimits = InstanceLimits()
    image_limits: ImageLimits = ImageLimits()
    #: The Azure Files shares that container groups can mount.
    file_shares: list[FileShare] = []
    disk_limits: DiskLimits = DiskLimits()
    pod_cidr: str = "10.241.0.0/16"
    service_cidr: str = "10.0.0.0/16"
    external_cidr: str = "10.242.0.0/24"
    #: The room `balancer` forwards connections itself, for TCP only: where there is no root or no nftables for `network`.
    user_space_proxy: bool = False
    #: Exceptions from the check of addresses that users choose (`common.egress`).
    allow_egress: list[Exempt] = []
    #: The kubeconfig of an external Kubernetes cluster that the rooms work in. `client_ca` is the authority that signs the
    #: API server's client certificates for nodes, if it is not the authority in the kubeconfig.
    kubeconfig: Path | None = None
    client_ca: Path | None = None

    @property
    def rooms(self) -> list[RoomName]:
        """The rooms that `cumulet up` starts; an external cluster has its own control plane."""
        external = ("kube", "scheduler", "controllers") if self.kubeconfig is not None else ()
        return [room for room in DEFAULT_PORTS if room not in external]

    @property
    def node_resource_group(self) -> str:
        """The resource group of the container groups, with AKS's name for it."""
        return f"MC_{self.cluster_resource_group}_{self.cluster}_{self.location}"

    @property
    def node_subnet_id(self) -> str:
        """The subnet of the virtual node's container groups. Only groups of the same cluster can reach each other."""
        return self.node_subnet if self.node_subnet is not None else self.subnet_of(self.cluster)

    def subnet_of(self, cluster: str, subnet: str = "virtual-node-aci") -> str:
        """Return a subnet of a cluster's container groups, in the resource group of this installation's cluster."""
        provider = f"{self.node_resource_group_id}/providers/Microsoft.Network"
        return f"{provider}/virtualNetworks/aks-vnet-{cluster_number(cluster)}/subnets/{subnet}"

    @property
    def node_resource_group_id(self) -> str:
        """The resource id of `node_resource_group`."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.node_resource_group}"

    @property
    def pool(self) -> list[PoolNode]:
        """The nodes of the pool that run here: none while the rooms work in another cluster, which has its own nodes."""
        return self.node_pool if self.kubeconfig is None else []

    def url(self, room: RoomName) -> str:
        """Return the base URL of a room."""
        return self.addresses[room].url

    @property
    def oidc_issuer(self) -> str:
        """The issuer of the cluster's service account tokens, AKS's `oidcIssuerProfile.issuerURL`: the API server's URL."""
        return self.url("kube")

    def listening(self, room: RoomName) -> list[Address]:
        """Return every address that a room listens on, the main one first."""
        pool = [node.address for node in self.pool] if room == "node" else []
        return [self.addresses[room], *self.more_addresses.get(room, ()), *pool]

    def egress(self, *, reach_pods: bool = False, reach_rooms: Collection[RoomName] = ()) -> Egress:
        """Return the check of addresses that users choose, which may allow pods and some rooms of this installation."""
        ranges = [self.service_cidr, self.external_cidr, *(() if reach_pods else (self.pod_cidr,))]
        rooms = [
            Exempt.of(socket.gethostbyname(address.host), address.port)
            for room in reach_rooms
            for address in self.listening(room)
        ]
        return Egress(ranges, [*self.allow_egress, *rooms])

    # The files of an installation. Only their owner can read them (directories 0700, secrets 0600).

    @property
    def pki_dir(self) -> Path:
        """The folder of all certificates and keys."""
        return self.data_dir / "pki"

    @property
    def ca_file(self) -> Path:
        """The authority that clients trust, PEM: a copy of the certificate of `serving`."""
        return self.pki_dir / "ca.crt"

    @property
    def trust_bundle_file(self) -> Path:
        """The machine's authorities and `ca_file`, PEM, for `SSL_CERT_FILE` and similar variables."""
        return self.pki_dir / "bundle.crt"

    def authority_file(self, name: AuthorityName) -> Path:
        """Return the file of an authority's certificate, PEM."""
        return self.pki_dir / "authorities" / f"{name}.crt"

    def authority_key_file(self, name: AuthorityName) -> Path:
        """Return the file of an authority's key. `up` reads all of them, `controllers` `cluster` and `kubelet-serving`."""
        return self.pki_dir / "authorities" / f"{name}.key"

    def certificate_files(self, room: RoomName) -> tuple[Path, Path]:
        """Return the files of a room's server certificate and key, PEM, signed by its `serving_authority`."""
        return self._leaf_files(self.serving_authority(room), room)

    def node_certificate_files(self, node: str) -> tuple[Path, Path]:
        """Return the files of the server certificate and key, PEM, of a node of the pool."""
        return self._leaf_files("kubelet-serving", node)

    def serving_authority(self, room: RoomName) -> AuthorityName:
        """Return the authority that signs the server certificate of a room."""
        return "kubelet-serving" if room == "node" else "serving"

    def room_files(self, room: RoomName) -> tuple[Path, Path]:
        """Return the files of a room's client certificate and key, PEM, for calls to other rooms."""
        return self._leaf_files("rooms", room)

    def user_files(self, user: str = "admin") -> tuple[Path, Path]:
        """Return the files of the certificate and key, PEM, of a Kubernetes user: `admin`, or a room."""
        return self._leaf_files("cluster", user)

    @property
    def kubelet_client_files(self) -> tuple[Path, Path]:
        """The API server's client certificate and key, PEM, for kubelets only."""
        return self._leaf_files("kubelet-client", KUBELET_CLIENT)

    @property
    def front_proxy_files(self) -> tuple[Path, Path]:
        """The API server's client certificate and key, PEM, for aggregated API servers only."""
        return self._leaf_files("front-proxy", FRONT_PROXY_CLIENT)

    def _leaf_files(self, authority: AuthorityName, name: str) -> tuple[Path, Path]:
        folder = self.pki_dir / authority
        return folder / f"{name}.crt", folder / f"{name}.key"

    @property
    def trust_domain(self) -> str:
        """The SPIFFE trust domain of the installation's rooms."""
        return self.tenant_id

    @property
    def scraper_files(self) -> tuple[Path, Path]:
        """The client certificate and key, PEM, of the scraper of the rooms' metrics, such as Prometheus."""
        return self._leaf_files("rooms", SCRAPER)

    def kubeconfig_file(self, user: str = "admin") -> Path:
        """Return the kubeconfig of the owner (`admin`), or of a room that is a client of the API server."""
        if self.kubeconfig is not None:
            return self.kubeconfig
        return self.data_dir / "kubeconfigs" / f"{user}.yaml"

    def credential_file(self, name: str) -> Path:
        """Return the file of the service principal of a room or of the owner, JSON (`common.entra.Credential`)."""
        return self.data_dir / "credentials" / f"{name}.json"

    @property
    def login_servers_file(self) -> Path:
        """The login servers of the registry, one a line. The room `registry` writes it, `cumulet up --hosts` watches it."""
        return self.room_dir("registry") / "login-servers"

    @property
    def group_names_file(self) -> Path:
        """The DNS names of container groups, lines `ADDRESS NAME`. The room `instances` writes it, `cumulet up --hosts` watches it."""
        return self.room_dir("instances") / "names"

    def room_dir(self, room: RoomName) -> Path:
        """Return the folder of a room's state, which no other room uses."""
        return self.data_dir / room


def cluster_number(cluster: str) -> str:
    """Return the number that AKS derives from a cluster for the names of what it creates."""
    return f"{int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:4]) % 10**8:08}"


def room_id(trust_domain: str, room: RoomName) -> str:
    """Return the SPIFFE ID of a room, the only URI in its client certificate (SPIFFE ID and X.509-SVID standards)."""
    return f"spiffe://{trust_domain}/room/{room}"


def scraper_id(trust_domain: str) -> str:
    """Return the SPIFFE ID of the scraper, which can read the rooms' metrics and nothing else."""
    return f"spiffe://{trust_domain}/scraper"


def default_data_dir() -> Path:
    """Return `CUMULET_DATA_DIR`, or the folder `cumulet` in the user's data directory (XDG Base Directory Specification)."""
    if given := os.environ.get("CUMULET_DATA_DIR"):
        return Path(given).absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "cumulet"


def demand_own(data_dir: Path) -> None:
    """Raises `ConfigError` if another user can write in a data directory, because root acts on its files.

    Root and the user who ran `sudo` may own it.
    """
    try:
        status = data_dir.stat()
    except FileNotFoundError:
        return
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and is_digits(caller := os.environ.get("SUDO_UID", "")):
        trusted.add(int(caller))
    if status.st_uid not in trusted:
        raise ConfigError(
            f"{data_dir} belongs to the user {status.st_uid}, who could make root write to any file: "
            "change its owner, or name another --data-dir"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"other users can write in {data_dir}: run `chmod 0700 {data_dir}`")


def load(data_dir: Path) -> Config:
    """Read the settings of an installation. Raises `ConfigError` if they are missing or not valid."""
    demand_own(data_dir)
    path = data_dir / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config, dec_hook=lambda kind, value: kind(value))
        # An earlier version, which wrote the file, may have had fewer rooms.
        added = {room: Address("127.0.0.1", port) for room, port in DEFAULT_PORTS.items()}
        # The folder may have been moved.
        return msgspec.structs.replace(config, data_dir=data_dir, addresses=added | config.addresses)
    except FileNotFoundError:
        raise ConfigError(
            f"no installation in {data_dir}: run `cumulet up` first, or name another --data-dir"
        ) from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not valid: {error}") from None


def save(config: Config) -> None:
    """Write the settings atomically: a reader sees the old file or the new one."""
    path = config.data_dir / "config.json"
    write_private(path, msgspec.json.format(msgspec.json.encode(config, enc_hook=str), indent=2))

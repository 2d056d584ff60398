"""The settings of one installation, read by every room from `<data-dir>/config.json`.

The file is written once by `cumulet up` and says where each room listens, so a room finds another by its address
only. Putting the real cloud in a room's place is changing that address.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec

from cumulet.common.ascii import is_digits
from cumulet.common.egress import Egress, Exempt

RoomName = Literal["identity", "registry", "arm", "kube", "scheduler", "controllers", "instances", "node", "balancer"]

#: Every room in the order in which they are started, with the loopback port that it takes by default.
#: 6443, 10250, 10256, 10257 and 10259 are the ports that Kubernetes gives to the same components.
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
}

#: The certificate authorities of an installation. Each has one purpose and is trusted in one place (`docs/architecture.md`).
#: `serving` signs the rooms' server certificates and `rooms` the client certificates that they show to each other.
#: `cluster` signs client certificates of Kubernetes users, `kubelet-serving` server certificates of nodes, and
#: `kubelet-client` and `front-proxy` the ones that the API server shows to kubelets and to aggregated API servers.
AuthorityName = Literal["serving", "rooms", "cluster", "kubelet-serving", "kubelet-client", "front-proxy"]

#: The users that the API server authenticates as to kubelets and to aggregated API servers, named as kubeadm names them.
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
#: What reads metrics, as a file name and as a user of Kubernetes.
SCRAPER = "metrics"
FRONT_PROXY_CLIENT = "front-proxy-client"

#: Where free ports are picked: below the node ports of Services, and below those that the kernel gives to outgoing
#: connections, which would take one between its choice and its use.
_FREE_PORTS = range(20000, 30000)


#: Folders whose subfolders are private too, and to what depth: `registry/content/blobs/sha256`.
_CLOSED = {*DEFAULT_PORTS, "pki"} - {"instances"}
_DEPTH = 4


class ConfigError(Exception):
    """The settings are missing or cannot be used; the message says which and what to do."""


class Address(msgspec.Struct, frozen=True):
    """Where a room listens: an IPv4 address or host name, and a TCP port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The `https` base URL, without a trailing slash."""
        return f"https://{self.host}:{self.port}"

    def free(self, taken: Collection[int] = ()) -> Address:
        """The same with a port that nobody listens on, nor is in `taken`. Raises `ConfigError` where there is none."""
        for port in random.sample(_FREE_PORTS, len(_FREE_PORTS)):
            if port not in taken:
                with contextlib.suppress(OSError), socket.socket() as probe:
                    probe.bind((self.host, port))
                    return Address(self.host, port)
        raise ConfigError(f"no port of {self.host} from {_FREE_PORTS.start} to {_FREE_PORTS.stop - 1} is free")


class RegistryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds within which the registry works: sizes in bytes, times in seconds.

    `upload_stall` is how long the body of a request may stand still before the request is given up, in which time it has
    to bring `upload_rate` bytes a second on the average, and `upload_idle` how long an upload may before it is forgotten. `collection_grace` is how long content
    that nothing needs is kept after a client was told that it is there, which must be longer than any client pauses
    within a push. `collection_interval` is the time from one collection to the next. `login_wait` is how long identity and
    the front door may take to answer for a login, less than clients wait for a token.
    """

    manifest_bytes: int = 4 * 1024**2
    blob_bytes: int = 200 * 1024**3
    page_entries: int = 1000
    upload_stall: float = 120.0
    upload_rate: float = 240.0
    upload_idle: float = 24 * 3600.0
    collection_grace: float = 3600.0
    collection_interval: float = 600.0
    login_wait: float = 10.0


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client of any room's HTTP server may take, in seconds.

    `handshake` is for that of TLS, `head` for the head of a request as a whole, `idle` between two requests. Of a body
    `body_rate` bytes a second must come, on the average of each `body` seconds in which the server reads.
    """

    handshake: float = 30.0
    head: float = 30.0
    idle: float = 90.0
    body: float = 60.0
    body_rate: float = 240.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One installation.

    Addresses are loopback unless the user says otherwise. Ranges are CIDR: `pod_cidr` for pod addresses,
    `service_cidr` for cluster IPs, `external_cidr` for the EXTERNAL-IPs of LoadBalancer Services.
    """

    data_dir: Path
    addresses: dict[RoomName, Address]
    #: Further addresses of a room, such as port 443 of a loopback address that login servers resolve to.
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
    #: The resource id of the subnet that the virtual node puts its container groups in, where it is not the cluster's own.
    node_subnet: str | None = None
    registry_suffix: str = "azurecr.io"
    registry_limits: RegistryLimits = RegistryLimits()
    http_limits: HttpLimits = HttpLimits()
    pod_cidr: str = "10.241.0.0/16"
    service_cidr: str = "10.0.0.0/16"
    external_cidr: str = "127.10.0.0/24"
    #: What rooms may connect to at a user's word although it is refused otherwise (`common.egress`).
    allow_egress: list[Exempt] = []
    #: The kubeconfig of a Kubernetes that is not ours, in whose cluster the rooms then work, and who signs the
    #: certificates that its API server shows to nodes, where that is another than the kubeconfig says.
    kubeconfig: Path | None = None
    client_ca: Path | None = None

    @property
    def rooms(self) -> list[RoomName]:
        """The rooms that are started; a cluster that is not ours has a control plane."""
        theirs = ("kube", "scheduler", "controllers") if self.kubeconfig is not None else ()
        return [room for room in DEFAULT_PORTS if room not in theirs]

    @property
    def node_resource_group(self) -> str:
        """The resource group that holds the container groups, named as AKS names it."""
        return f"MC_{self.cluster_resource_group}_{self.cluster}_{self.location}"

    @property
    def node_subnet_id(self) -> str:
        """The subnet of the virtual node's container groups: all of one cluster's reach each other, and no other cluster's."""
        if self.node_subnet is not None:
            return self.node_subnet
        # AKS names a virtual network of its own making after the cluster.
        number = int.from_bytes(hashlib.sha256(self.cluster.encode()).digest()[:4]) % 10**8
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.node_resource_group}"
        network = f"{group}/providers/Microsoft.Network/virtualNetworks/aks-vnet-{number:08}"
        return f"{network}/subnets/virtual-node-aci"

    def url(self, room: RoomName) -> str:
        """The base URL of a room."""
        return self.addresses[room].url

    def listening(self, room: RoomName) -> list[Address]:
        """Every address on which a room listens, its own first."""
        return [self.addresses[room], *self.more_addresses.get(room, ())]

    def egress(self, *, reach_pods: bool = False, reach_rooms: Collection[RoomName] = ()) -> Egress:
        """The check of addresses that users name; pods, or public rooms of this installation, may be among them."""
        ranges = [self.service_cidr, self.external_cidr, *(() if reach_pods else (self.pod_cidr,))]
        ours = [
            Exempt.of(socket.gethostbyname(address.host), address.port)
            for room in reach_rooms
            for address in self.listening(room)
        ]
        return Egress(ranges, [*self.allow_egress, *ours])

    # The files of an installation. Each is private to its owner (directories 0700, secrets 0600).

    @property
    def pki_dir(self) -> Path:
        """The folder of all certificates and keys."""
        return self.data_dir / "pki"

    @property
    def ca_file(self) -> Path:
        """The authority that users trust, PEM: a copy of the certificate of `serving`."""
        return self.pki_dir / "ca.crt"

    @property
    def trust_bundle_file(self) -> Path:
        """The machine's own authorities and ours, PEM: what `SSL_CERT_FILE` and its like are set to."""
        return self.pki_dir / "bundle.crt"

    def authority_file(self, name: AuthorityName) -> Path:
        """The certificate of an authority, PEM."""
        return self.pki_dir / "authorities" / f"{name}.crt"

    def authority_key_file(self, name: AuthorityName) -> Path:
        """The key of an authority. `up` reads all of them, `controllers` those of `cluster` and `kubelet-serving`."""
        return self.pki_dir / "authorities" / f"{name}.key"

    def certificate_files(self, room: RoomName) -> tuple[Path, Path]:
        """The server certificate and key of a room, PEM, signed by its `serving_authority`."""
        return self._leaf_files(self.serving_authority(room), room)

    def serving_authority(self, room: RoomName) -> AuthorityName:
        """The authority that signs the server certificate of a room."""
        return "kubelet-serving" if room == "node" else "serving"

    def room_files(self, room: RoomName) -> tuple[Path, Path]:
        """The client certificate and key, PEM, that a room shows to other rooms."""
        return self._leaf_files("rooms", room)

    def user_files(self, user: str = "admin") -> tuple[Path, Path]:
        """The client certificate and key, PEM, of a Kubernetes user: `admin`, or a room that is a client of the API server."""
        return self._leaf_files("cluster", user)

    @property
    def kubelet_client_files(self) -> tuple[Path, Path]:
        """The client certificate and key, PEM, that the API server shows to kubelets only."""
        return self._leaf_files("kubelet-client", KUBELET_CLIENT)

    @property
    def front_proxy_files(self) -> tuple[Path, Path]:
        """The client certificate and key, PEM, that the API server shows to aggregated API servers only."""
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
        """The client certificate and key, PEM, of what reads the metrics of the rooms, such as Prometheus."""
        return self._leaf_files("rooms", SCRAPER)

    def kubeconfig_file(self, user: str = "admin") -> Path:
        """A kubeconfig: `admin` is the user's, the rest are those of the rooms that are Kubernetes clients."""
        if self.kubeconfig is not None:
            return self.kubeconfig
        return self.data_dir / "kubeconfigs" / f"{user}.yaml"

    def credential_file(self, name: str) -> Path:
        """The service principal of a room, or of the owner, as JSON (`common.entra.Credential`)."""
        return self.data_dir / "credentials" / f"{name}.json"

    @property
    def login_servers_file(self) -> Path:
        """The names that the registry answers to, one a line: its room keeps it, `cumulet up --hosts` follows it."""
        return self.room_dir("registry") / "login-servers"

    def room_dir(self, room: RoomName) -> Path:
        """The folder in which a room keeps its state, and no other room looks."""
        return self.data_dir / room


def room_id(trust_domain: str, room: RoomName) -> str:
    """The SPIFFE ID of a room, the only URI in its client certificate (SPIFFE ID and X.509-SVID standards)."""
    return f"spiffe://{trust_domain}/room/{room}"


def scraper_id(trust_domain: str) -> str:
    """The SPIFFE ID of what reads the metrics of rooms. It is none of a room, and good for nothing else."""
    return f"spiffe://{trust_domain}/scraper"


def default_data_dir() -> Path:
    """The platform's user data directory (XDG Base Directory Specification), or `CUMULET_DATA_DIR`."""
    if given := os.environ.get("CUMULET_DATA_DIR"):
        return Path(given).absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "cumulet"


def demand_own(data_dir: Path) -> None:
    """Raises `ConfigError` where somebody else may write in a data directory: root follows what is there.

    Whoever ran `sudo` may, and so may root.
    """
    try:
        found = data_dir.stat()
    except FileNotFoundError:
        return
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and is_digits(caller := os.environ.get("SUDO_UID", "")):
        trusted.add(int(caller))
    if found.st_uid not in trusted:
        raise ConfigError(
            f"{data_dir} belongs to the user {found.st_uid}, who could have root write anywhere: "
            "change its owner, or name another --data-dir"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write in {data_dir}: chmod 0700 {data_dir}")


def load(data_dir: Path) -> Config:
    """Read the settings of an installation. Raises `ConfigError` where there are none or they are not valid."""
    demand_own(data_dir)
    path = data_dir / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config, dec_hook=lambda kind, value: kind(value))
        return msgspec.structs.replace(config, data_dir=data_dir)  # it may have been moved
    except FileNotFoundError:
        raise ConfigError(
            f"no installation in {data_dir}: run `cumulet up` first, or name another --data-dir"
        ) from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not valid: {error}") from None


def save(config: Config) -> None:
    """Write the settings so that a reader sees either the old file or the whole new one."""
    path = config.data_dir / "config.json"
    write_private(path, msgspec.json.format(msgspec.json.encode(config, enc_hook=str), indent=2))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically and durably; missing folders are made private."""
    private_folder(path.parent)
    # Nobody can know the name and put a link there.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> Path:
    """Make a folder and its missing parents, each with mode 0700, and return it.

    `Path.mkdir` applies its mode to the last folder only.
    """
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


def close_folders(data_dir: Path) -> list[Path]:
    """Set the mode of an installation's folders to 0700 and return the ones that were changed.

    Folders that containers or container engines use keep their mode: those below `instances` and those of no room.
    """
    closed = []
    waiting = [data_dir]
    while waiting:
        folder = waiting.pop()
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
            closed.append(folder)
        below = folder.relative_to(data_dir).parts
        if not below or (below[0] in _CLOSED and len(below) < _DEPTH):
            waiting += [Path(item.path) for item in os.scandir(folder) if item.is_dir(follow_symlinks=False)]
    return closed

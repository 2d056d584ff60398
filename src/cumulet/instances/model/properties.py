"""The properties of a container group (REST reference 2023-05-01), with their defaults.

Extensions to ACI's API: `args` of a container, which follow `command` or, without it, the image's entry point;
`workingDir`, `expandFields`, `subPath`; an emptyDir's `medium` and `sizeLimit`, a secret volume's `defaultMode` and
`items`; `hostname`, `terminationGracePeriodSeconds`, `activeDeadlineSeconds`, `hostUsers`, `labels` and `pod` of a group.
`hostUsers: false` demands a user namespace, which a group has by default if the machine supports it; `true` is refused.
`labels` are for the bill. A group with `virtualMachine` is not billed: the machine is. It
can have volumes of the type `azureDisk`. `pod: true` is for a virtual node: a failed pull is repeated
instead of failing the group, and a PUT applies to the running containers instead of restarting them.
The types in `lifecycle.py` and `pod.py` are further extensions.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.kubernetes import resolv_conf
from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.instances.model.lifecycle import Lifecycle, MessagePolicy, Probe, RestartPolicy, RestartRule
from cumulet.instances.model.pod import HostAlias, PodSecurityContext, ResizePolicy, ResourceRequirements

#: Microsoft.Network's names: letters, digits, underscores, periods and hyphens, to 80 characters.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?"
#: The id of a subnet; the first group is the id of its virtual network.
SUBNET = re.compile(
    r"(?ai:(/subscriptions/[0-9a-f-]{36}/resourceGroups/[-A-Za-z0-9_.()]{1,90}"
    rf"/providers/Microsoft\.Network/virtualNetworks/{_WORD})/subnets/{_WORD})"
)

#: The credentials in a URL.
_USERINFO = re.compile(r"//[^/@]*@")


#: The properties of a group that are lists of containers.
CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")


class _Base(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    #: Properties of Azure's schema that are not supported here, and refused by name.
    UNSUPPORTED: ClassVar[tuple[str, ...]] = ()


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Variable(_Base):
    """An environment variable; a secure value is never returned."""

    UNSUPPORTED = ("secure_value_reference",)

    name: str
    value: str | None = None
    secure_value: str | None = None
    secure_value_reference: Any = None

    @property
    def text(self) -> str:
        """The value, secure or not."""
        return self.secure_value if self.secure_value is not None else self.value or ""


class Port(_Base):
    """A port that a container listens on."""

    port: _PortNumber
    protocol: Literal["TCP", "UDP"] = "TCP"


class Amount(_Base):
    """vCPUs and decimal gigabytes."""

    UNSUPPORTED = ("gpu",)

    cpu: float | None = None
    memory_in_gb: float | None = msgspec.field(default=None, name="memoryInGB")
    gpu: Any = None


class Resources(_Base):
    """The requests and limits of a container."""

    requests: Amount = msgspec.field(default_factory=Amount)
    limits: Amount | None = None


class Mount(_Base):
    """A volume in a container."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str | None = None


class ConfigMap(_Base):
    """The configuration of a container from a profile. `az` sends an empty one."""

    UNSUPPORTED = ("key_value_pairs",)

    key_value_pairs: Any = None


class ContainerProperties(_Base):
    """The properties of a container."""

    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "Always"
    command: list[str] | None = None
    args: list[str] | None = None
    ports: list[Port] = []
    environment_variables: list[Variable] = []
    resources: Resources = msgspec.field(default_factory=Resources)
    volume_mounts: list[Mount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: RestartPolicy | None = None
    restart_policy_rules: list[RestartRule] = []
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: MessagePolicy = "File"
    security_context: dict[str, object] | None = None
    working_dir: str | None = None
    #: Whether command, args, variables and subPaths name fields of the group: `expansion` replaces them.
    expand_fields: bool = False
    resource_requirements: ResourceRequirements | None = None
    resize_policy: list[ResizePolicy] = []
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    #: The container whose processes an ephemeral container sees.
    target_container_name: str | None = None
    config_map: ConfigMap | None = None


class Container(_Base):
    """A named container."""

    name: str
    properties: ContainerProperties


class Credential(_Base):
    """The credential for a registry; the password is never returned.

    Credentials of one registry are tried in the order of the group. `matchImages`, with the syntax of a kubelet's credential
    providers, limits one to some repositories.

    `identity` is a managed identity of the group: its resource id, or `system` for the group's own.
    """

    UNSUPPORTED = ("identity_url", "password_reference")

    server: str
    username: str = ""
    password: str | None = None
    match_images: list[str] = []
    identity: str | None = None
    identity_url: Any = None
    password_reference: Any = None


_Mode = Annotated[int, msgspec.Meta(ge=0, le=0o777)]


class EmptyDir(_Base):
    """An initially empty folder, on disk or, with the medium `Memory`, in memory; `sizeLimit` is a Kubernetes quantity."""

    medium: Literal["", "Memory"] = ""
    size_limit: str | None = None

    @property
    def size(self) -> int | None:
        """The limit in bytes, or `None`; 0 is no limit, as in Kubernetes."""
        return (int(decimal(self.size_limit)) or None) if self.size_limit is not None else None


class KeyToPath(_Base):
    """The path and the mode of a file of a secret volume."""

    key: str
    path: str
    mode: _Mode | None = None


class AzureFile(_Base):
    """A share of Azure Files; the key is never returned."""

    UNSUPPORTED = ("storage_account_key_reference",)

    share_name: str
    storage_account_name: str
    storage_account_key: str | None = None
    storage_account_key_reference: Any = None
    read_only: bool = False


class AzureDisk(_Base):
    """A managed disk by its resource id, for a group with a `virtualMachine`."""

    disk_uri: str = msgspec.field(name="diskURI")
    read_only: bool = False


class GitRepo(_Base):
    """A clone of a git repository, at its newest revision or another, in a folder of the volume."""

    repository: str
    revision: str | None = None
    directory: str | None = None

    @property
    def folder(self) -> str:
        """The folder of the clone, `.` for the volume itself; by default it has the name of the repository, as in git."""
        if self.directory:
            return self.directory
        return self.repository.rstrip("/").rpartition("/")[2].removesuffix(".git")


class Volume(_Base):
    """A volume of the group: `emptyDir`, `secret` (path to base64), `azureFile`, `azureDisk` or `gitRepo`."""

    UNSUPPORTED = ("secret_reference",)

    name: str
    empty_dir: EmptyDir | None = None
    secret: dict[str, str] | None = None
    git_repo: GitRepo | None = None
    azure_file: AzureFile | None = None
    azure_disk: AzureDisk | None = None
    secret_reference: Any = None
    default_mode: _Mode | None = None
    items: list[KeyToPath] | None = None

    @property
    def kind(self) -> str:
        """The type of the volume."""
        if self.azure_file is not None:
            return "azureFile"
        if self.azure_disk is not None:
            return "azureDisk"
        if self.git_repo is not None:
            return "gitRepo"
        return (
            "secret" if self.secret is not None else self.empty_dir.medium if self.empty_dir is not None else "none"
        )


class IpAddress(_Base):
    """The open ports, and the label of a DNS name. The room allocates the address.

    The scope is where another group can take the label over: by default, and with `Unsecure`, anywhere in the region.
    """

    ports: list[Port] = []
    type: Literal["Public", "Private"] = "Public"
    dns_name_label: str | None = None
    auto_generated_domain_name_label_scope: (
        Literal["Unsecure", "TenantReuse", "SubscriptionReuse", "ResourceGroupReuse", "Noreuse"] | None
    ) = None


class DnsConfig(_Base):
    """The DNS configuration; search domains and options are separated by spaces."""

    name_servers: list[str]
    search_domains: str | None = None
    options: str | None = None

    def text(self) -> str:
        """Return the file resolv.conf(5)."""
        words = [(text or "").split() for text in (self.search_domains, self.options)]
        return resolv_conf.lines(resolv_conf.Resolver(self.name_servers, *words))


class SubnetId(_Base):
    """A subnet of the group."""

    id: str
    name: str | None = None


class IdentityAcl(_Base):
    """Who may use an identity, by its resource id."""

    identity: str
    access: Literal["All", "System", "User"]


class IdentityAcls(_Base):
    """Who may use the identities of a group (REST reference 2024-05-01-preview).

    `System` is the platform, which pulls images, `User` the containers. Without any, it is `All`.
    """

    default_access: Literal["All", "System", "User"] = "All"
    acls: list[IdentityAcl] = []

    def gives_containers(self, identity: str) -> bool:
        """Return whether containers may get tokens of an identity; ids are compared without case."""
        access = next(
            (item.access for item in self.acls if fold(item.identity) == fold(identity)), self.default_access
        )
        return access != "System"


class GroupProperties(_Base):
    """The properties of a group."""

    UNSUPPORTED = (
        "diagnostics",
        "encryption_properties",
        "extensions",
        "confidential_compute_properties",
        "container_group_profile",
        "standby_pool_profile",
        "secret_references",
    )

    containers: list[Container]
    init_containers: list[Container] = []
    #: Kubernetes' ephemeral containers. An update can add some.
    ephemeral_containers: list[Container] = []
    image_registry_credentials: list[Credential] = []
    restart_policy: RestartPolicy = "Always"
    ip_address: IpAddress | None = None
    os_type: str = "Linux"
    volumes: list[Volume] = []
    dns_config: DnsConfig | None = None
    sku: str | None = None
    priority: Literal["Regular", "Spot"] | None = None
    termination_grace_period_seconds: _Seconds = 30
    active_deadline_seconds: _Count | None = None
    hostname: str | None = None
    subdomain: str | None = None
    set_hostname_as_fqdn: bool = msgspec.field(default=False, name="setHostnameAsFQDN")
    host_aliases: list[HostAlias] = []
    host_users: bool | None = None
    pod: bool = False
    security_context: PodSecurityContext | None = None
    share_process_namespace: bool = False
    #: The virtual machine that the group runs on, which is billed in its place.
    virtual_machine: str | None = None
    labels: dict[str, str] = {}
    diagnostics: Any = None
    subnet_ids: list[SubnetId] = []
    encryption_properties: Any = None
    extensions: Any = None
    confidential_compute_properties: Any = None
    container_group_profile: Any = None
    standby_pool_profile: Any = None
    identity_acls: IdentityAcls | None = None
    secret_references: Any = None

    @property
    def all_containers(self) -> list[Container]:
        """All containers but the ephemeral ones, the init containers first."""
        return [*self.init_containers, *self.containers]

    @property
    def numbered_containers(self) -> list[Container]:
        """All containers, each at its number, which does not change: ephemeral ones are added at the end."""
        return [*self.all_containers, *self.ephemeral_containers]


def virtual_network(properties: GroupProperties) -> str | None:
    """Return the id of the group's virtual network in lower case, or `None`; ids are compared without case."""
    for subnet in properties.subnet_ids:
        if match := SUBNET.fullmatch(subnet.id):
            return fold(match[1])
    return None


def shown(properties: GroupProperties) -> Object:
    """Return the properties as JSON, without passwords, secure values and the content of secrets."""
    document: Object = msgspec.to_builtins(properties)
    for credential in document.get("imageRegistryCredentials") or ():
        credential.pop("password", None)
    for container in (item for kind in CONTAINER_LISTS for item in document.get(kind) or ()):
        for variable in container["properties"].get("environmentVariables") or ():
            variable.pop("secureValue", None)
    for volume in document.get("volumes") or ():
        if "secret" in volume:
            volume["secret"] = dict.fromkeys(volume["secret"], "")
        if "gitRepo" in volume:
            volume["gitRepo"]["repository"] = _USERINFO.sub("//", volume["gitRepo"]["repository"])
        if "azureFile" in volume:
            volume["azureFile"].pop("storageAccountKey", None)
    return document

"""A container group as it is asked for (REST reference 2023-05-01), with its defaults; `validation` says what is valid.

Ours beside ACI's: `args` of a container, which follow `command` or, where that is absent, the image's entrypoint;
`workingDir`, `subPath`, probes by TCP, an emptyDir in memory, a secret volume's `defaultMode`; `hostname`,
`terminationGracePeriodSeconds` and `hostUsers` of a group: false asks for a user namespace, which it has anyway where
this machine can; true is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from cumulet.common.ascii import fold

#: Microsoft.Network's names: letters, digits, underscores, periods and hyphens, to 80 characters.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?"
#: The id of a subnet, and in it that of its virtual network.
SUBNET = re.compile(
    r"(?ai:(/subscriptions/[0-9a-f-]{36}/resourceGroups/[-A-Za-z0-9_.()]{1,90}"
    rf"/providers/Microsoft\.Network/virtualNetworks/{_WORD})/subnets/{_WORD})"
)


class _Base(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    #: Properties that Azure's schema has and no group here can have; they are refused by name.
    UNSUPPORTED: ClassVar[tuple[str, ...]] = ()


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Variable(_Base):
    """An environment variable; a secure value is never shown."""

    UNSUPPORTED = ("secure_value_reference",)

    name: str
    value: str | None = None
    secure_value: str | None = None
    secure_value_reference: Any = None

    @property
    def text(self) -> str:
        """Its value, secure or not."""
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
    """What a container asks for, and what it may have at most."""

    requests: Amount = msgspec.field(default_factory=Amount)
    limits: Amount | None = None


class Mount(_Base):
    """A volume in a container."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str | None = None


class ExecAction(_Base):
    """A command that succeeds where all is well."""

    command: list[str] = []


class HttpHeader(_Base):
    """A header of a request."""

    name: str
    value: str = ""


class HttpGet(_Base):
    """A page that answers 200 to 399 where all is well."""

    port: _PortNumber
    path: str = "/"
    scheme: Literal["http", "https", "HTTP", "HTTPS"] = "http"
    http_headers: list[HttpHeader] = []


class TcpSocket(_Base):
    """A port that can be connected to where all is well."""

    port: _PortNumber


class Probe(_Base):
    """When and how to ask whether all is well."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    initial_delay_seconds: _Seconds = 0
    period_seconds: _Seconds = 10
    failure_threshold: _Count = 3
    success_threshold: _Count = 1
    timeout_seconds: _Seconds = 1


class ContainerProperties(_Base):
    """One container."""

    UNSUPPORTED = ("config_map",)

    image: str
    command: list[str] | None = None
    args: list[str] | None = None
    ports: list[Port] = []
    environment_variables: list[Variable] = []
    resources: Resources = msgspec.field(default_factory=Resources)
    volume_mounts: list[Mount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    security_context: dict[str, Any] | None = None
    working_dir: str | None = None
    config_map: Any = None


class Container(_Base):
    """A named container."""

    name: str
    properties: ContainerProperties


class Credential(_Base):
    """Who pulls from a registry; the password is never shown."""

    UNSUPPORTED = ("identity", "identity_url", "password_reference")

    server: str
    username: str = ""
    password: str | None = None
    identity: str | None = None
    identity_url: Any = None
    password_reference: Any = None


class EmptyDir(_Base):
    """A folder that is empty at first, on disk or, with the medium `Memory`, in memory."""

    medium: Literal["", "Memory"] = ""


class Volume(_Base):
    """A volume of the group: `emptyDir`, `secret` (file name to base64), or one of those that are refused."""

    UNSUPPORTED = ("secret_reference",)

    name: str
    empty_dir: EmptyDir | None = None
    secret: dict[str, str] | None = None
    git_repo: Any = None
    azure_file: Any = None
    secret_reference: Any = None
    default_mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] | None = None

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return (
            "secret" if self.secret is not None else self.empty_dir.medium if self.empty_dir is not None else "none"
        )


class IpAddress(_Base):
    """The ports that are open, and how. The address is given, not chosen."""

    UNSUPPORTED = ("auto_generated_domain_name_label_scope",)

    ports: list[Port] = []
    type: Literal["Public", "Private"] = "Public"
    dns_name_label: str | None = None
    auto_generated_domain_name_label_scope: Any = None


class DnsConfig(_Base):
    """Which servers names are looked up at, and how; domains and options are words with spaces between."""

    name_servers: list[str]
    search_domains: str | None = None
    options: str | None = None

    def lines(self) -> list[str]:
        """As resolv.conf(5) has it."""
        found = [f"nameserver {server}" for server in self.name_servers]
        for key, words in (("search", self.search_domains), ("options", self.options)):
            if words and words.strip(" "):
                found.append(f"{key} {words.strip(' ')}")
        return found


class SubnetId(_Base):
    """A subnet that the group is in."""

    id: str
    name: str | None = None


class GroupProperties(_Base):
    """The whole group."""

    UNSUPPORTED = (
        "diagnostics",
        "encryption_properties",
        "extensions",
        "confidential_compute_properties",
        "container_group_profile",
        "standby_pool_profile",
        "identity_acls",
        "secret_references",
    )

    containers: list[Container]
    init_containers: list[Container] = []
    image_registry_credentials: list[Credential] = []
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    ip_address: IpAddress | None = None
    os_type: str = "Linux"
    volumes: list[Volume] = []
    dns_config: DnsConfig | None = None
    sku: str | None = None
    priority: Literal["Regular", "Spot"] | None = None
    termination_grace_period_seconds: _Seconds = 30
    hostname: str | None = None
    host_users: bool | None = None
    diagnostics: Any = None
    subnet_ids: list[SubnetId] = []
    encryption_properties: Any = None
    extensions: Any = None
    confidential_compute_properties: Any = None
    container_group_profile: Any = None
    standby_pool_profile: Any = None
    identity_acls: Any = None
    secret_references: Any = None

    @property
    def all_containers(self) -> list[Container]:
        """Every container, those that run first at the front."""
        return [*self.init_containers, *self.containers]


def virtual_network(properties: GroupProperties) -> str | None:
    """The id, in lower case, of the virtual network that the group is in; ids are compared without case."""
    for subnet in properties.subnet_ids:
        if match := SUBNET.fullmatch(subnet.id):
            return fold(match[1])
    return None


def shown(properties: GroupProperties) -> dict[str, Any]:
    """The properties as they are answered: without passwords and secure values."""
    document: dict[str, Any] = msgspec.to_builtins(properties)
    for credential in document.get("imageRegistryCredentials") or ():
        credential.pop("password", None)
    for container in [*(document.get("containers") or ()), *(document.get("initContainers") or ())]:
        for variable in container["properties"].get("environmentVariables") or ():
            variable.pop("secureValue", None)
    for volume in document.get("volumes") or ():
        if "secret" in volume:
            volume["secret"] = dict.fromkeys(volume["secret"], "")
    return document

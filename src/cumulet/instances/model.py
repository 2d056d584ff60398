"""A container group as it is asked for (REST reference 2023-05-01), checked and with its defaults.

Ours beside ACI's: `args` of a container, which follow `command` or, where that is absent, the image's entrypoint; and
`terminationGracePeriodSeconds` and `hostUsers` of a group: false asks for a user namespace, which it has anyway where
this machine can; true is refused.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cumulet.common.arm import ArmError
from cumulet.instances import security_context

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERVER = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d{1,5})?")

_CONTAINERS, _VOLUMES = 60, 20


class _Base(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    pass


class Variable(_Base):
    """An environment variable; a secure value is never shown."""

    name: str
    value: str | None = None
    secure_value: str | None = None


class Port(_Base):
    """A port that a container listens on."""

    port: int
    protocol: str = "TCP"


class Amount(_Base):
    """vCPUs and decimal gigabytes."""

    cpu: float | None = None
    memory_in_gb: float | None = msgspec.field(default=None, name="memoryInGB")


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


class HttpGet(_Base):
    """A page that answers 200 to 399 where all is well."""

    port: int
    path: str = "/"
    scheme: str = "http"
    http_headers: list[dict[str, str]] = []


class TcpSocket(_Base):
    """A port that can be connected to where all is well."""

    port: int


class Probe(_Base):
    """When and how to ask whether all is well."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    failure_threshold: int = 3
    success_threshold: int = 1
    timeout_seconds: int = 1


class ContainerProperties(_Base):
    """One container."""

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


class Container(_Base):
    """A named container."""

    name: str
    properties: ContainerProperties


class Credential(_Base):
    """Who pulls from a registry; the password is never shown."""

    server: str
    username: str = ""
    password: str | None = None
    identity: str | None = None


class Volume(_Base):
    """A volume of the group: `emptyDir`, `secret` (file name to base64), or one of those that are refused."""

    name: str
    empty_dir: dict[str, Any] | None = None
    secret: dict[str, str] | None = None
    git_repo: dict[str, Any] | None = None
    azure_file: dict[str, Any] | None = None
    default_mode: int | None = None


class IpAddress(_Base):
    """The ports that are open, and how."""

    ports: list[Port] = []
    type: str = "Public"
    dns_name_label: str | None = None


class GroupProperties(_Base):
    """The whole group."""

    containers: list[Container]
    init_containers: list[Container] = []
    image_registry_credentials: list[Credential] = []
    restart_policy: str = "Always"
    ip_address: IpAddress | None = None
    os_type: str = "Linux"
    volumes: list[Volume] = []
    dns_config: dict[str, Any] | None = None
    sku: str | None = None
    priority: str | None = None
    termination_grace_period_seconds: int = 30
    hostname: str | None = None
    host_users: bool | None = None


def parse(group: str, body: dict[str, Any]) -> GroupProperties:
    """The properties in a request. Raises `ArmError` 400 that names the field and what is wrong with it."""
    try:
        properties = msgspec.convert(body.get("properties") or {}, GroupProperties)
    except msgspec.ValidationError as error:
        raise ArmError(400, "InvalidRequestContent", f"properties: {error}", target="properties") from None
    if not 0 < len(properties.containers) + len(properties.init_containers) <= _CONTAINERS:
        raise _invalid("containers", f"A container group has 1 to {_CONTAINERS} containers.")
    if len(properties.volumes) > _VOLUMES:
        raise _invalid("volumes", f"A container group has at most {_VOLUMES} volumes.")
    if properties.os_type != "Linux":
        raise ArmError(
            400, "UnsupportedOsType", f"The osType '{properties.os_type}' is not supported: only Linux runs here."
        )
    if properties.restart_policy not in ("Always", "OnFailure", "Never"):
        raise _invalid(
            "restartPolicy", f"The restart policy '{properties.restart_policy}' is not Always, OnFailure or Never."
        )
    if properties.host_users:
        raise _invalid("hostUsers", "A container group has no access to the user namespace of its machine.")
    volumes = {volume.name for volume in properties.volumes}
    for volume in properties.volumes:
        if volume.azure_file is not None or volume.git_repo is not None:
            kind = "azureFile" if volume.azure_file is not None else "gitRepo"
            raise ArmError(
                400,
                "UnsupportedVolume",
                f"The volume '{volume.name}' of type {kind} is not supported here: use emptyDir or secret.",
            )
    names: set[str] = set()
    for container in [*properties.init_containers, *properties.containers]:
        if not NAME.fullmatch(container.name):
            raise _invalid("containers.name", f"The container name '{container.name}' is not valid.")
        if container.name in names:
            raise _invalid("containers.name", f"The container name '{container.name}' stands twice.")
        names.add(container.name)
        _check_security(container)
        for mount in container.properties.volume_mounts:
            if mount.name not in volumes:
                raise _invalid(
                    "volumeMounts",
                    f"The volume '{mount.name}' of container '{container.name}' is not a volume of the group.",
                )
            if not mount.mount_path.startswith("/") or ".." in mount.mount_path.split("/"):
                raise _invalid("volumeMounts", f"The mount path '{mount.mount_path}' must be absolute.")
    for credential in properties.image_registry_credentials:
        if not _SERVER.fullmatch(credential.server):
            raise ArmError(
                400,
                "InvalidImageRegistryServer",
                f"The server '{credential.server}' in the 'imageRegistryCredentials' of container group '{group}' is invalid. It "
                "should be a valid host name without protocol.",
            )
    return properties


def _check_security(container: Container) -> None:
    try:
        security_context.parse(container.properties.security_context)
    except security_context.SecurityContextError as error:
        field = f"securityContext.{error.field}" if error.field else "securityContext"
        raise ArmError(
            400,
            "InvalidSecurityContext",
            f"The {field} of container '{container.name}' is not supported: {error}.",
            target=f"properties.containers.{field}",
        ) from None


def requested(properties: GroupProperties) -> tuple[float, float]:
    """vCPUs and GB of the whole group, which is what is billed; ACI's least is one of each."""
    cpu = sum(item.properties.resources.requests.cpu or 1.0 for item in properties.containers)
    memory = sum(item.properties.resources.requests.memory_in_gb or 1.5 for item in properties.containers)
    return max(cpu, 1.0), max(memory, 1.0)


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


def _invalid(target: str, message: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", message, target=f"properties.{target}")

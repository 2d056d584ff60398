"""What a container group may ask for: every string and number of a PUT is checked here, before anything is made of it.

Errors have ARM's form; `target` is the path of the property. Where Azure Container Instances has words for a refusal
they are used.
"""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.instances.images.reference import parse
from cumulet.instances.model import amounts
from cumulet.instances.model.arguments import WordsError, check_words, is_variable_name
from cumulet.instances.model.properties import (
    SUBNET,
    Container,
    Credential,
    DnsConfig,
    GroupProperties,
    HttpGet,
    IpAddress,
    Probe,
    Volume,
)
from cumulet.instances.model.regions import Maximum
from cumulet.instances.security import context as security_context

#: Names of groups, containers and volumes: labels of DNS, as ACI has them.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOSTNAME = re.compile(
    r"(?=.{1,63}\Z)[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*"
)
_SERVER = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_SEARCH = re.compile(
    r"(?=.{1,253}\Z)(?:\.|[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?)*\.?)"
)
_OPTION = re.compile(r"[a-z][-a-z0-9]{0,31}(:[0-9]{1,5})?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_CONTAINERS, _VOLUMES, _MOUNTS, _PORTS, _CREDENTIALS, _FILES, _DEPTH = 60, 20, 100, 1000, 500, 10_000, 32
#: Of the properties of a group, in all.
_VALUES = 100_000
_SERVERS, _SEARCHES, _OPTIONS = 3, 32, 32
#: Bytes of a path and of a name; the folder that a path is in needs some of Linux's 4096.
_PATH, _NAME_BYTES = 2048, 255
#: Where a container has what the kernel shows of it; only the shared memory may be replaced.
_KERNEL, _SHARED_MEMORY = ("/proc", "/sys", "/dev"), "/dev/shm"  # noqa: S108  (a container's own)

_RESOURCE = ("id", "name", "type", "location", "tags", "properties", "systemData")
_RESOURCE_UNSUPPORTED = ("identity", "zones", "extendedLocation", "plan", "managedBy")
_GROUP_READ_ONLY = ("provisioningState", "instanceView", "isCreatedFromStandbyPool", "isCustomProvisioningTimeout")
_ADDRESS_READ_ONLY = ("ip", "fqdn")


def parse_group(group: str, location: str, body: dict[str, Any], maximum: Maximum) -> GroupProperties:
    """The properties in a request. Raises `ArmError` that names the property and what is wrong with it."""
    _check_resource(group, body)
    try:
        properties = msgspec.convert(_settable(body.get("properties")), GroupProperties)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        target = f"properties{path.strip('`').removeprefix('$')}"
        raise ArmError(400, "InvalidRequestContent", f"{target}: {message}", target=target) from None
    _refuse_unsupported(group, properties, "properties")
    check_group(group, properties)
    amounts.check(group, location, properties, maximum)
    return properties


def check_name(name: str) -> None:
    """Raises `ArmError` 400 unless a group may have that name, in letters of either case."""
    if not NAME.fullmatch(fold(name)):
        raise ArmError(
            400, "InvalidContainerGroupName", f"The container group name '{said(name)}' is invalid.", target="name"
        )


def said(text: str) -> str:
    """A part of a request in a message: not all of it, and nothing that is not printable ASCII."""
    return text[:100].encode("unicode_escape").decode()


def _invalid(target: str, message: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", message, target=target)


def _check_resource(group: str, body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name in _RESOURCE_UNSUPPORTED:
            if value and value != {"type": "None"}:
                raise _unsupported(group, name)
        elif name not in _RESOURCE:
            raise _invalid(said(name), f"The property '{said(name)}' is not a property of a container group.")


def _settable(properties: Any) -> Any:
    """Properties without those that a client that puts what it got sends back, and without nulls, which are absent."""
    found = _present(properties)
    if isinstance(found, dict):
        found = _without(found, _GROUP_READ_ONLY)
        if isinstance(found.get("ipAddress"), dict):
            found["ipAddress"] = _without(found["ipAddress"], _ADDRESS_READ_ONLY)
        for kind in ("containers", "initContainers"):
            for container in found[kind] if isinstance(found.get(kind), list) else ():
                if isinstance(container, dict) and isinstance(container.get("properties"), dict):
                    container["properties"] = _without(container["properties"], ("instanceView",))
    return found


def _without(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _present(value: Any) -> Any:
    """A copy without nulls. Raises `ArmError` where there is more in it than any group has."""
    left = _VALUES

    def copy(value: Any) -> Any:
        nonlocal left
        if not isinstance(value, (dict, list)):
            return value
        left -= len(value)
        if left < 0:
            raise _invalid("properties", f"The properties have more than {_VALUES} values.")
        if isinstance(value, dict):
            return {name: copy(item) for name, item in value.items() if item is not None}
        return [copy(item) for item in value]

    return copy(value)


def _refuse_unsupported(group: str, value: msgspec.Struct, path: str) -> None:
    for name, shown, unsupported in _fields(type(value)):
        found = getattr(value, name)
        if not found:
            if unsupported:
                setattr(value, name, None)
        elif unsupported:
            raise _unsupported(group, f"{path}.{shown}")
        elif isinstance(found, msgspec.Struct):
            _refuse_unsupported(group, found, f"{path}.{shown}")
        elif isinstance(found, list) and isinstance(found[0], msgspec.Struct):
            for number, item in enumerate(found):
                _refuse_unsupported(group, item, f"{path}.{shown}[{number}]")


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, bool], ...]:
    """The name, the name in JSON, and whether it is unsupported, of each field that may have or be a structure."""
    plain = (str, int, bool, float)
    unsupported = getattr(kind, "UNSUPPORTED", ())
    return tuple(
        (field.name, field.encode_name, field.name in unsupported)
        for field in msgspec.structs.fields(kind)
        if field.type not in plain
    )


def _unsupported(group: str, path: str) -> ArmError:
    return ArmError(
        400,
        "UnsupportedProperty",
        f"The property '{path}' of container group '{group}' is not supported here: remove it.",
        target=path,
    )


def check_group(group: str, properties: GroupProperties) -> None:
    """Raises `ArmError` where a property is not valid; what a number may be at most is `amounts`' part."""
    if not properties.containers or len(properties.all_containers) > _CONTAINERS:
        raise _invalid("properties.containers", f"A container group has 1 to {_CONTAINERS} containers.")
    if len(properties.volumes) > _VOLUMES:
        raise _invalid("properties.volumes", f"A container group has at most {_VOLUMES} volumes.")
    if properties.os_type != "Linux":
        raise ArmError(
            400,
            "UnsupportedOsType",
            f"The osType '{said(properties.os_type)}' is not supported: only Linux runs here.",
            target="properties.osType",
        )
    if properties.sku not in (None, "Standard"):
        raise _invalid(
            "properties.sku", f"The SKU '{said(properties.sku or '')}' is not supported here: use Standard."
        )
    if properties.hostname is not None and not _HOSTNAME.fullmatch(properties.hostname):
        raise _invalid("properties.hostname", f"The host name '{said(properties.hostname)}' is not valid.")
    volumes: set[str] = set()
    for number, volume in enumerate(properties.volumes):
        _check_volume(volume, f"properties.volumes[{number}]", volumes)
        volumes.add(volume.name)
    names: set[str] = set()
    for path, container in _containers(properties):
        if not NAME.fullmatch(container.name):
            raise _invalid(f"{path}.name", f"The container name '{said(container.name)}' is not valid.")
        if container.name in names:
            raise _invalid(f"{path}.name", f"The container name '{container.name}' stands twice.")
        names.add(container.name)
        _check_container(container, f"{path}.properties", volumes)
    if properties.dns_config is not None:
        _check_dns(properties.dns_config)
    if properties.ip_address is not None:
        _check_address(properties.ip_address)
    if len(properties.subnet_ids) > 1:
        raise _invalid("properties.subnetIds", "A container group is in at most one subnet.")
    for number, subnet in enumerate(properties.subnet_ids):
        if not SUBNET.fullmatch(subnet.id):
            raise _invalid(
                f"properties.subnetIds[{number}].id", f"'{said(subnet.id)}' is not the resource id of a subnet."
            )
    if len(properties.image_registry_credentials) > _CREDENTIALS:
        raise _invalid(
            "properties.imageRegistryCredentials", f"A container group has at most {_CREDENTIALS} credentials."
        )
    for number, credential in enumerate(properties.image_registry_credentials):
        _check_credential(group, credential, f"properties.imageRegistryCredentials[{number}]")


def _containers(properties: GroupProperties) -> Iterator[tuple[str, Container]]:
    for kind, found in (("initContainers", properties.init_containers), ("containers", properties.containers)):
        for number, container in enumerate(found):
            yield f"properties.{kind}[{number}]", container


def _check_volume(volume: Volume, path: str, names: set[str]) -> None:
    if not NAME.fullmatch(volume.name):
        raise _invalid(
            f"{path}.name",
            f"The volume name '{said(volume.name)}' is not valid: a name has 1 to 63 lower-case letters, digits and hyphens, "
            "and a letter or digit at each end.",
        )
    if volume.name in names:
        raise _invalid(f"{path}.name", f"The volume name '{volume.name}' stands twice.")
    if volume.azure_file is not None or volume.git_repo is not None:
        kind = "azureFile" if volume.azure_file is not None else "gitRepo"
        raise ArmError(
            400,
            "UnsupportedVolume",
            f"The volume '{volume.name}' of type {kind} is not supported here: use emptyDir or secret.",
            target=f"{path}.{kind}",
        )
    if (volume.empty_dir is None) == (volume.secret is None):
        raise _invalid(path, f"The volume '{volume.name}' must be one of emptyDir and secret.")
    if volume.secret is not None:
        _check_files(volume.name, volume.secret, f"{path}.secret")


def _check_files(volume: str, files: dict[str, str], path: str) -> None:
    if len(files) > _FILES:
        raise _invalid(path, f"The secret volume '{volume}' has more than {_FILES} files.")
    for name, content in files.items():
        parts = name.split("/")
        if len(parts) > _DEPTH or not _is_relative(name) or any(part in (".", "") for part in parts):
            raise _invalid(path, f"The file name '{said(name)}' of the secret volume '{volume}' is not valid.")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise _invalid(path, f"The file name '{said(name)}' of the secret volume '{volume}' is in another file.")
        try:
            base64.b64decode(content.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _invalid(
                path, f"The file '{said(name)}' of the secret volume '{volume}' is not valid base64."
            ) from None


def _is_relative(path: str) -> bool:
    """Whether a path stays beneath whatever it is resolved in, as far as its text says."""
    return (
        not path.startswith("/")
        and ".." not in path.split("/")
        and not _CONTROL.search(path)
        and len(path.encode()) <= _PATH
        and all(len(part.encode()) <= _NAME_BYTES for part in path.split("/"))
    )


def _is_absolute(path: str) -> bool:
    return path.startswith("/") and len(path) <= _PATH and _is_relative(path.lstrip("/"))


def _check_container(container: Container, path: str, volumes: set[str]) -> None:
    properties = container.properties
    try:
        parse(properties.image)
    except ValueError:
        raise ArmError(
            400,
            "InvalidImageName",
            f"The image '{said(properties.image)}' in container '{container.name}' is not a valid image reference.",
            target=f"{path}.image",
        ) from None
    _check_words(container, path)
    if len(properties.ports) > _PORTS:
        raise _invalid(f"{path}.ports", f"The container '{container.name}' has more than {_PORTS} ports.")
    if properties.working_dir is not None and (
        not _is_absolute(properties.working_dir) or _is_within(properties.working_dir, _KERNEL)
    ):
        raise _invalid(
            f"{path}.workingDir",
            f"The workingDir '{said(properties.working_dir)}' is not an absolute path outside {', '.join(_KERNEL)}.",
        )
    _check_mounts(container, f"{path}.volumeMounts", volumes)
    for kind, probe in (
        ("livenessProbe", properties.liveness_probe),
        ("readinessProbe", properties.readiness_probe),
    ):
        if probe is not None:
            _check_probe(probe, f"{path}.{kind}")
    _check_security(container, f"{path}.securityContext")


def _check_words(container: Container, path: str) -> None:
    properties = container.properties
    for number, variable in enumerate(properties.environment_variables):
        if not is_variable_name(variable.name):
            raise _invalid(
                f"{path}.environmentVariables[{number}].name",
                f"The name '{said(variable.name)}' of an environment variable in container '{container.name}' is not valid.",
            )
    variables = [f"{item.name}={item.text}" for item in properties.environment_variables]
    try:
        check_words([*(properties.command or ()), *(properties.args or ()), *variables])
    except WordsError as error:
        raise _invalid(
            path,
            f"The command, args and environment variables of container '{container.name}' are not valid: {error}.",
        ) from None


def _check_mounts(container: Container, path: str, volumes: set[str]) -> None:
    mounts = container.properties.volume_mounts
    if len(mounts) > _MOUNTS:
        raise _invalid(path, f"The container '{container.name}' has more than {_MOUNTS} volume mounts.")
    taken: set[str] = set()
    for number, mount in enumerate(mounts):
        if mount.name not in volumes:
            raise _invalid(
                f"{path}[{number}].name",
                f"The volume '{said(mount.name)}' of container '{container.name}' is not a volume of the group.",
            )
        where, target = mount.mount_path, f"{path}[{number}].mountPath"
        if not _is_absolute(where) or ":" in where:
            raise _invalid(
                target, f"The mount path '{said(where)}' must be absolute, without '..', ':' and control characters."
            )
        normal = posixpath.normpath("/" + where.lstrip("/"))
        if normal == "/" or (_is_within(normal, _KERNEL) and normal != _SHARED_MEMORY):
            raise _invalid(target, f"The mount path '{said(where)}' cannot be replaced by a volume.")
        if normal in taken:
            raise _invalid(target, f"The mount path '{said(where)}' of container '{container.name}' stands twice.")
        taken.add(normal)
        if mount.sub_path is not None and not _is_relative(mount.sub_path):
            raise _invalid(
                f"{path}[{number}].subPath",
                f"The subPath '{said(mount.sub_path)}' must be relative, without '..' and control characters.",
            )


def _is_within(path: str, folders: Sequence[str]) -> bool:
    normal = posixpath.normpath("/" + path.lstrip("/"))
    return any(normal == folder or normal.startswith(f"{folder}/") for folder in folders)


def _check_probe(probe: Probe, path: str) -> None:
    actions = [action for action in (probe.exec, probe.http_get, probe.tcp_socket) if action is not None]
    if len(actions) != 1:
        raise _invalid(path, "A probe must have exactly one of exec, httpGet and tcpSocket.")
    if probe.exec is not None:
        try:
            check_words(probe.exec.command)
        except WordsError as error:
            raise _invalid(f"{path}.exec.command", f"The command of a probe is not valid: {error}.") from None
        if not probe.exec.command:
            raise _invalid(f"{path}.exec.command", "The command of a probe is empty.")
    if probe.http_get is not None:
        _check_page(probe.http_get, f"{path}.httpGet")


def _check_page(page: HttpGet, path: str) -> None:
    if _CONTROL.search(page.path) or len(page.path) > _PATH:
        raise _invalid(f"{path}.path", f"The path '{said(page.path)}' of a probe is not valid.")
    if len(page.http_headers) > _PORTS:
        raise _invalid(f"{path}.httpHeaders", f"A probe has at most {_PORTS} headers.")
    for number, header in enumerate(page.http_headers):
        if not _HEADER.fullmatch(header.name) or _CONTROL.search(header.value) or len(header.value) > _PATH:
            raise _invalid(
                f"{path}.httpHeaders[{number}]", f"The header '{said(header.name)}' of a probe is not valid."
            )


def _check_security(container: Container, path: str) -> None:
    try:
        security_context.parse(container.properties.security_context)
    except security_context.SecurityContextError as error:
        target = f"{path}.{error.field}" if error.field else path
        raise ArmError(
            400,
            "InvalidSecurityContext",
            f"The securityContext of container '{container.name}' is not supported: {target}: {error}.",
            target=target,
        ) from None


def _check_dns(config: DnsConfig) -> None:
    path = "properties.dnsConfig"
    if not 0 < len(config.name_servers) <= _SERVERS:
        raise _invalid(f"{path}.nameServers", f"A dnsConfig has 1 to {_SERVERS} name servers.")
    for number, server in enumerate(config.name_servers):
        try:
            # The scope of an IPv6 address may be any text, line feeds among it.
            if "%" in server:
                raise ValueError(server)
            config.name_servers[number] = str(ipaddress.ip_address(server.strip(" ")))
        except ValueError:
            raise _invalid(
                f"{path}.nameServers[{number}]", f"The name server '{said(server)}' is not an IP address."
            ) from None
    domains = (config.search_domains or "").split(" ")
    if len(domains) > _SEARCHES or not all(not name or _SEARCH.fullmatch(name) for name in domains):
        raise _invalid(
            f"{path}.searchDomains",
            f"The search domains '{said(config.search_domains or '')}' are not at most {_SEARCHES} domain names with spaces "
            "between.",
        )
    options = (config.options or "").split(" ")
    if len(options) > _OPTIONS or not all(not option or _OPTION.fullmatch(option) for option in options):
        raise _invalid(
            f"{path}.options",
            f"The options '{said(config.options or '')}' are not at most {_OPTIONS} options with spaces between, such as "
            "ndots:5.",
        )


def _check_address(address: IpAddress) -> None:
    path = "properties.ipAddress"
    if len(address.ports) > _PORTS:
        raise _invalid(f"{path}.ports", f"A container group has at most {_PORTS} ports.")
    if address.dns_name_label is not None and not NAME.fullmatch(address.dns_name_label):
        raise _invalid(f"{path}.dnsNameLabel", f"The DNS name label '{said(address.dns_name_label)}' is not valid.")


def _check_credential(group: str, credential: Credential, path: str) -> None:
    if not _SERVER.fullmatch(credential.server):
        raise ArmError(
            400,
            "InvalidImageRegistryServer",
            f"The server '{said(credential.server)}' in the 'imageRegistryCredentials' of container group '{group}' is invalid. "
            "It should be a valid host name without protocol.",
            target=f"{path}.server",
        )
    for name, text in (("username", credential.username), ("password", credential.password or "")):
        if len(text) > 64 * 1024 or _CONTROL.search(text):
            raise _invalid(
                f"{path}.{name}", f"The {name} for '{credential.server}' has control characters or is too long."
            )

"""Resolves the references of a pod: environment from fields, secrets and config maps, files of volumes, pull secrets."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from cumulet.common.ascii import fold, raised
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import (
    ConfigMap,
    ConfigMapKeySelector,
    ConfigMapProjection,
    ConfigMapVolumeSource,
    Container,
    DownwardAPIVolumeFile,
    EnvVarSource,
    KeyToPath,
    Pod,
    ResourceFieldSelector,
    Secret,
    SecretKeySelector,
    SecretProjection,
    Service,
    ServiceAccountTokenProjection,
    Volume,
)
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.resource import GroupCredential, GroupVariable, GroupVolume

#: Returns a service account token for a pod.
TokenOf = Callable[[Pod, ServiceAccountTokenProjection], Awaitable[str]]

Kind = Literal["configMap", "secret"]

_VARIABLE = re.compile(r"\$(\$|\((\w[\w.-]*)\))", re.ASCII)
_DOCKER = ("index.docker.io", "registry-1.docker.io")


class MissingError(Exception):
    """An object that the pod refers to does not exist yet; the message is the kubelet's."""


class UnsupportedError(Exception):
    """The pod uses a feature that no container group supports; the message names it."""


class References:
    """Reads the informers of secrets, config maps and services."""

    def __init__(
        self,
        secrets: Informer[Secret],
        config_maps: Informer[ConfigMap],
        services: Informer[Service],
        token_of: TokenOf,
        address: str,
    ) -> None:
        self._secrets = secrets
        self._config_maps = config_maps
        self._services = services
        self._token_of = token_of
        self._address = address

    # Environment.

    def environment(self, pod: Pod, container: Container) -> list[GroupVariable]:
        """Return the environment of a container; values from secrets are secure values. Raises `MissingError`."""
        namespace = pod["metadata"]["namespace"]
        plain: dict[str, str] = {}
        secure: set[str] = set()
        if pod["spec"].get("enableServiceLinks", True):
            plain |= dict(self._service_links(namespace))
        for source in container.get("envFrom") or ():
            prefix = source.get("prefix", "")
            if config_map := source.get("configMapRef"):
                values = self._values("configMap", namespace, config_map.get("name"), config_map.get("optional"))
                plain |= {prefix + key: value.decode(errors="replace") for key, value in values.items()}
            if secret := source.get("secretRef"):
                values = self._values("secret", namespace, secret.get("name"), secret.get("optional"))
                plain |= {prefix + key: value.decode(errors="replace") for key, value in values.items()}
                secure |= {prefix + key for key in values}
        for variable in container.get("env") or ():
            name = variable["name"]
            secure.discard(name)
            if "valueFrom" in variable:
                resolved = self._value_from(pod, container, variable["valueFrom"])
                if resolved is None:
                    continue
                plain[name] = resolved
                if "secretKeyRef" in variable["valueFrom"]:
                    secure.add(name)
            else:
                plain[name] = expand(variable.get("value", ""), plain)
        return [
            {"name": name, "secureValue": value} if name in secure else {"name": name, "value": value}
            for name, value in plain.items()
        ]

    def _service_links(self, namespace: str) -> Iterator[tuple[str, str]]:
        for service in self._services:
            metadata, spec = service["metadata"], service["spec"]
            master = (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
            if (metadata["namespace"] != namespace and not master) or spec.get("clusterIP") in (None, "", "None"):
                continue
            prefix = raised(metadata["name"]).replace("-", "_")
            address, ports = spec["clusterIP"], spec.get("ports") or []
            if not ports:
                continue
            first = ports[0]
            yield f"{prefix}_SERVICE_HOST", address
            yield f"{prefix}_SERVICE_PORT", str(first["port"])
            yield f"{prefix}_PORT", f"{fold(first.get('protocol', 'TCP'))}://{address}:{first['port']}"
            for port in ports:
                if port.get("name"):
                    yield f"{prefix}_SERVICE_PORT_{raised(port['name']).replace('-', '_')}", str(port["port"])
                protocol = port.get("protocol", "TCP")
                base = f"{prefix}_PORT_{port['port']}_{protocol}"
                yield base, f"{fold(protocol)}://{address}:{port['port']}"
                yield f"{base}_PROTO", fold(protocol)
                yield f"{base}_PORT", str(port["port"])
                yield f"{base}_ADDR", address

    def _value_from(self, pod: Pod, container: Container, source: EnvVarSource) -> str | None:
        """Return the value of a variable, or `None` when an optional key is missing."""
        namespace = pod["metadata"]["namespace"]
        if field := source.get("fieldRef"):
            return self.field(pod, field["fieldPath"])
        if resource := source.get("resourceFieldRef"):
            return resource_field(container, resource)
        if config_map := source.get("configMapKeyRef"):
            return self._value("configMap", namespace, config_map)
        if secret := source.get("secretKeyRef"):
            return self._value("secret", namespace, secret)
        return None

    def _value(self, kind: Kind, namespace: str, reference: ConfigMapKeySelector | SecretKeySelector) -> str | None:
        """Return one value of a config map or secret, or `None` when it is missing and optional."""
        values = self._values(kind, namespace, reference.get("name"), reference.get("optional"))
        key = reference["key"]
        if key in values:
            return values[key].decode(errors="replace")
        if reference.get("optional"):
            return None
        what = "ConfigMap" if kind == "configMap" else "Secret"
        raise MissingError(f"couldn't find key {key} in {what} {namespace}/{reference['name']}")

    def field(self, pod: Pod, path: str) -> str:
        """Return a field of the pod, as the downward API formats it. Raises `UnsupportedError`."""
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
        if match := re.fullmatch(r"metadata\.(labels|annotations)(?:\['([^']+)'\])?", path):
            values = (metadata.get("labels") if match[1] == "labels" else metadata.get("annotations")) or {}
            if match[2]:
                return str(values.get(match[2], ""))
            return "\n".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in sorted(values.items()))
        simple = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.hostIP": self._address,
            "status.hostIPs": self._address,
            "status.podIP": status.get("podIP", ""),
            "status.podIPs": status.get("podIP", ""),
        }
        if path not in simple:
            raise UnsupportedError(f"the field path {path} is not supported")
        return str(simple[path])

    def _values(self, kind: Kind, namespace: str, name: str | None, optional: bool | None) -> dict[str, bytes]:
        """Return the data of a config map or secret, empty when it is missing and optional. Raises `MissingError`."""
        name = name or ""
        if kind == "configMap":
            config_map = self._config_maps.get(name, namespace)
            if config_map is not None:
                binary = (config_map.get("binaryData") or {}).items()
                values = {key: base64.b64decode(value) for key, value in binary}
                return values | {key: value.encode() for key, value in (config_map.get("data") or {}).items()}
        else:
            secret = self._secrets.get(name, namespace)
            if secret is not None:
                return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        if optional:
            return {}
        raise MissingError(f'{fold(kind)} "{name}" not found')

    # Volumes.

    async def volume(self, pod: Pod, volume: Volume) -> GroupVolume:
        """Return a volume of the group. Raises `MissingError`, `UnsupportedError`."""
        name = volume["name"]
        if (source := volume.get("emptyDir")) is not None:
            return {"name": name, "emptyDir": {"medium": source["medium"]} if source.get("medium") else {}}
        files = await self._files(pod, volume)
        if files is None:
            raise UnsupportedError(
                f"pod {pod['metadata']['name']} requires volume {name} which is of an unsupported type"
            )
        modes = (
            source.get("defaultMode")
            for source in (
                volume.get("secret"),
                volume.get("configMap"),
                volume.get("projected"),
                volume.get("downwardAPI"),
            )
            if source is not None
        )
        mode = next(modes, None)
        secret = {path: base64.b64encode(content).decode() for path, content in files.items()}
        return {"name": name, "secret": secret, "defaultMode": mode if mode is not None else 420}

    async def _files(self, pod: Pod, volume: Volume) -> dict[str, bytes] | None:
        """Return the content of a volume's files by path, or `None` for a type without files."""
        if source := volume.get("secret"):
            values = self._values(
                "secret", pod["metadata"]["namespace"], source["secretName"], source.get("optional")
            )
            return _selected(values, source.get("items"))
        if config_map := volume.get("configMap"):
            return self._projection("configMap", pod, config_map)
        if downward := volume.get("downwardAPI"):
            return self._downward(pod, downward.get("items") or ())
        if projected := volume.get("projected"):
            files: dict[str, bytes] = {}
            for part in projected.get("sources") or ():
                if secret := part.get("secret"):
                    files |= self._projection("secret", pod, secret)
                if map_ := part.get("configMap"):
                    files |= self._projection("configMap", pod, map_)
                if fields := part.get("downwardAPI"):
                    files |= self._downward(pod, fields.get("items") or ())
                if token := part.get("serviceAccountToken"):
                    files[token["path"]] = (await self._token_of(pod, token)).encode()
            return files
        return None

    def _projection(
        self, kind: Kind, pod: Pod, source: ConfigMapProjection | ConfigMapVolumeSource | SecretProjection
    ) -> dict[str, bytes]:
        values = self._values(kind, pod["metadata"]["namespace"], source.get("name"), source.get("optional"))
        return _selected(values, source.get("items"))

    def _downward(self, pod: Pod, items: Sequence[DownwardAPIVolumeFile]) -> dict[str, bytes]:
        files = {}
        for item in items:
            if field := item.get("fieldRef"):
                files[item["path"]] = self.field(pod, field["fieldPath"]).encode()
            elif resource := item.get("resourceFieldRef"):
                named = next(
                    (
                        container
                        for container in pod["spec"]["containers"]
                        if container["name"] == resource.get("containerName")
                    ),
                    pod["spec"]["containers"][0],
                )
                files[item["path"]] = resource_field(named, resource).encode()
        return files

    # Pull secrets.

    def credentials(self, pod: Pod) -> tuple[list[GroupCredential], list[str]]:
        """Return `imageRegistryCredentials`, and the names of pull secrets that are missing or not valid."""
        credentials: dict[str, GroupCredential] = {}
        missing: list[str] = []
        for reference in pod["spec"].get("imagePullSecrets") or ():
            name = reference.get("name", "")
            secret = self._secrets.get(name, pod["metadata"]["namespace"])
            if secret is None:
                missing.append(name)
                continue
            try:
                entries = _entries(secret)
            except ValueError:
                missing.append(name)
                continue
            for server, username, password in entries:
                credentials.setdefault(server, {"server": server, "username": username, "password": password})
        return list(credentials.values()), missing


def _entries(secret: Secret) -> Iterator[tuple[str, str, str]]:
    """Yield (server, user name, password) of a pull secret of either type. Raises `ValueError`."""
    data = secret.get("data") or {}
    if secret.get("type") == "kubernetes.io/dockerconfigjson":
        document = msgspec.json.decode(base64.b64decode(data.get(".dockerconfigjson", "")))
        auths = document.get("auths") or {}
    elif secret.get("type") == "kubernetes.io/dockercfg":
        auths = msgspec.json.decode(base64.b64decode(data.get(".dockercfg", "")))
    else:
        raise ValueError(
            "image pull secret type is not one of kubernetes.io/dockercfg or kubernetes.io/dockerconfigjson"
        )
    for server, entry in auths.items():
        username, password = entry.get("username", ""), entry.get("password", "")
        if auth := entry.get("auth"):
            try:
                username, _, password = base64.b64decode(auth).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ValueError(f"the auth of {server} is not base64") from None
        yield normal_server(server), username, password


def normal_server(text: str) -> str:
    """Return the host of a registry: of `https://index.docker.io/v1/`, for example, `docker.io`."""
    host = fold(re.sub(r"^\w+://", "", text.strip(), flags=re.ASCII).partition("/")[0])
    return "docker.io" if host in _DOCKER else host


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value and `$$` by a dollar sign; undefined references stay."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _VARIABLE.sub(replace, text)


def resource_field(container: Container, reference: ResourceFieldSelector) -> str:
    """Return a container's request or limit in units of the divisor, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    amounts = resources.get("limits") if kind == "limits" else resources.get("requests") if kind == "requests" else {}
    value = (amounts or {}).get(name, "0")
    divisor = decimal(reference.get("divisor") or "1") or 1
    quotient = decimal(value) / divisor
    return str(int(quotient) + (quotient > int(quotient)))


def _selected(values: dict[str, bytes], items: list[KeyToPath] | None) -> dict[str, bytes]:
    if not items:
        return values
    return {item["path"]: values[item["key"]] for item in items if item["key"] in values}

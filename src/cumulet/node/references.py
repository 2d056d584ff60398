"""What a pod refers to: environment from fields, secrets and config maps, files of volumes, pull secrets."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from cumulet.common.ascii import fold, raised
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.quantity import decimal

Object = dict[str, Any]
TokenOf = Callable[[Object, Object], Awaitable[str]]

_VARIABLE = re.compile(r"\$(\$|\((\w[\w.-]*)\))", re.ASCII)
_DOCKER = ("index.docker.io", "registry-1.docker.io")


class MissingError(Exception):
    """Something that the pod needs is not there (yet); the message is the kubelet's."""


class UnsupportedError(Exception):
    """Something that no container group can have; the message says what."""


class References:
    """Looks things up in the informers of secrets, config maps and services."""

    def __init__(
        self, secrets: Informer, config_maps: Informer, services: Informer, token_of: TokenOf, address: str
    ) -> None:
        self._secrets = secrets
        self._config_maps = config_maps
        self._services = services
        self._token_of = token_of
        self._address = address

    # Environment.

    def environment(self, pod: Object, container: Object) -> list[Object]:
        """`environmentVariables` of a container; what comes from a secret is secure. Raises `MissingError`."""
        namespace = pod["metadata"]["namespace"]
        plain: dict[str, str] = {}
        secure: set[str] = set()
        if pod["spec"].get("enableServiceLinks", True):
            plain |= dict(self._service_links(namespace))
        for source in container.get("envFrom") or ():
            prefix = source.get("prefix", "")
            for kind in ("configMapRef", "secretRef"):
                if reference := source.get(kind):
                    values = self._values(kind.removesuffix("Ref"), namespace, reference)
                    plain |= {prefix + key: value.decode(errors="replace") for key, value in values.items()}
                    if kind == "secretRef":
                        secure |= {prefix + key for key in values}
        for variable in container.get("env") or ():
            name = variable["name"]
            secure.discard(name)
            if "valueFrom" in variable:
                found = self._value_from(pod, container, variable["valueFrom"])
                if found is None:
                    continue
                plain[name] = found
                if "secretKeyRef" in variable["valueFrom"]:
                    secure.add(name)
            else:
                plain[name] = expand(variable.get("value", ""), plain)
        return [
            {"name": name, ("secureValue" if name in secure else "value"): value} for name, value in plain.items()
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

    def _value_from(self, pod: Object, container: Object, source: Object) -> str | None:
        namespace = pod["metadata"]["namespace"]
        if reference := source.get("fieldRef"):
            return self.field(pod, reference["fieldPath"])
        if reference := source.get("resourceFieldRef"):
            return resource_field(pod, container, reference)
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if reference := source.get(kind):
                values = self._values(kind.removesuffix("KeyRef"), namespace, reference)
                if reference["key"] in values:
                    return values[reference["key"]].decode(errors="replace")
                if reference.get("optional"):
                    return None
                what = "ConfigMap" if kind.startswith("config") else "Secret"
                raise MissingError(f"couldn't find key {reference['key']} in {what} {namespace}/{reference['name']}")
        return None

    def field(self, pod: Object, path: str) -> str:
        """The value of a field of the pod, as the downward API has it."""
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
        if match := re.fullmatch(r"metadata\.(labels|annotations)(?:\['([^']+)'\])?", path):
            values = metadata.get(match[1]) or {}
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

    def _values(self, kind: str, namespace: str, reference: Object) -> dict[str, bytes]:
        """The data of a config map or secret; nothing where it is missing and optional."""
        name = reference.get("name", "")
        informer = self._config_maps if kind == "configMap" else self._secrets
        found = informer.get(name, namespace)
        if found is None:
            if reference.get("optional"):
                return {}
            raise MissingError(f'{fold(kind)} "{name}" not found')
        values = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        for key, value in (found.get("data") or {}).items():
            values[key] = value.encode() if kind == "configMap" else base64.b64decode(value)
        return values

    # Volumes.

    async def volume(self, pod: Object, volume: Object) -> Object:
        """A volume of the group. Raises `MissingError`, `UnsupportedError`."""
        name = volume["name"]
        if (source := volume.get("emptyDir")) is not None:
            return {"name": name, "emptyDir": {"medium": source["medium"]} if source.get("medium") else {}}
        files = await self._files(pod, volume)
        if files is None:
            raise UnsupportedError(
                f"pod {pod['metadata']['name']} requires volume {name} which is of an unsupported type"
            )
        mode = next(
            (
                volume[kind].get("defaultMode")
                for kind in ("secret", "configMap", "projected", "downwardAPI")
                if kind in volume
            ),
            None,
        )
        secret = {path: base64.b64encode(content).decode() for path, content in files.items()}
        return {"name": name, "secret": secret, "defaultMode": mode if mode is not None else 420}

    async def _files(self, pod: Object, volume: Object) -> dict[str, bytes] | None:
        namespace = pod["metadata"]["namespace"]
        if source := volume.get("secret"):
            reference = {"name": source["secretName"], "optional": source.get("optional")}
            return _chosen(self._values("secret", namespace, reference), source.get("items"))
        if source := volume.get("configMap"):
            return _chosen(self._values("configMap", namespace, source), source.get("items"))
        if source := volume.get("downwardAPI"):
            return self._downward(pod, source)
        if source := volume.get("projected"):
            files: dict[str, bytes] = {}
            for part in source.get("sources") or ():
                for kind in ("secret", "configMap"):
                    if reference := part.get(kind):
                        files |= _chosen(self._values(kind, namespace, reference), reference.get("items"))
                if reference := part.get("downwardAPI"):
                    files |= self._downward(pod, reference)
                if reference := part.get("serviceAccountToken"):
                    files[reference["path"]] = (await self._token_of(pod, reference)).encode()
            return files
        return None

    def _downward(self, pod: Object, source: Object) -> dict[str, bytes]:
        files = {}
        for item in source.get("items") or ():
            if reference := item.get("fieldRef"):
                files[item["path"]] = self.field(pod, reference["fieldPath"]).encode()
            elif reference := item.get("resourceFieldRef"):
                named = next(
                    (
                        container
                        for container in pod["spec"]["containers"]
                        if container["name"] == reference.get("containerName")
                    ),
                    pod["spec"]["containers"][0],
                )
                files[item["path"]] = resource_field(pod, named, reference).encode()
        return files

    # Pull secrets.

    def credentials(self, pod: Object) -> tuple[list[Object], list[str]]:
        """`imageRegistryCredentials`, and the pull secrets that are not there or cannot be used."""
        found: dict[str, Object] = {}
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
                found.setdefault(server, {"server": server, "username": username, "password": password})
        return list(found.values()), missing


def _entries(secret: Object) -> Iterator[tuple[str, str, str]]:
    """(server, user, password) of a pull secret of either type. Raises `ValueError`."""
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
    """The host of a registry, however it was written: `https://index.docker.io/v1/` is `docker.io`."""
    host = fold(re.sub(r"^\w+://", "", text.strip(), flags=re.ASCII).partition("/")[0])
    return "docker.io" if host in _DOCKER else host


def expand(text: str, values: dict[str, str]) -> str:
    """`$(NAME)` by what was defined before; `$$` is a dollar, and what is not defined stays as it is."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _VARIABLE.sub(replace, text)


def resource_field(pod: Object, container: Object, reference: Object) -> str:
    """A container's request or limit in units of the divisor, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    value = ((container.get("resources") or {}).get(kind) or {}).get(name, "0")
    divisor = decimal(reference.get("divisor") or "1") or 1
    quotient = decimal(value) / divisor
    return str(int(quotient) + (quotient > int(quotient)))


def _chosen(values: dict[str, bytes], items: list[Object] | None) -> dict[str, bytes]:
    if not items:
        return values
    return {item["path"]: values[item["key"]] for item in items if item["key"] in values}

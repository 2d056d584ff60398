"""Reads the secrets and config maps that a pod refers to."""

from __future__ import annotations

import base64
from typing import Literal

from cumulet.common.ascii import fold
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import ConfigMap, Pod, Secret
from cumulet.node.errors import MissingError

Kind = Literal["configMap", "secret"]


class References:
    """Reads the informers of secrets and config maps."""

    def __init__(self, secrets: Informer[Secret], config_maps: Informer[ConfigMap]) -> None:
        self._secrets = secrets
        self._config_maps = config_maps

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a secret, or `None`."""
        return self._secrets.get(name, namespace)

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """Return a config map, or `None`."""
        return self._config_maps.get(name, namespace)

    def versions(self, pod: Pod) -> object:
        """Return what the content of all that a pod's containers refer to follows from: it differs if the content can."""
        namespace = pod["metadata"]["namespace"]
        found = {}
        for kind, name in mounted(pod) | in_environment(pod):
            obj = self.secret(namespace, name) if kind == "secret" else self.config_map(namespace, name)
            found[kind, name] = None if obj is None else (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
        return found

    def strings(self, kind: Kind, namespace: str, name: str, *, optional: bool) -> dict[str, str]:
        """Return the data of a secret or config map as text, without a config map's `binaryData`.

        It is empty when the object is missing and optional. Raises `MissingError`.
        """
        return {
            key: _text(kind, namespace, name, key, value)
            for key, value in self._data(kind, namespace, name, optional=optional).items()
        }

    def string(self, kind: Kind, namespace: str, name: str, key: str, *, optional: bool) -> str | None:
        """Return one value as text, or `None` when it is missing and optional. Raises `MissingError`."""
        data = self._data(kind, namespace, name, optional=optional)
        if key in data:
            return _text(kind, namespace, name, key, data[key])
        if optional:
            return None
        raise MissingError(f"couldn't find key {key} in {_title(kind)} {namespace}/{name}")

    def _data(self, kind: Kind, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
        if kind == "secret":
            if (secret := self._secrets.get(name, namespace)) is not None:
                return secret_data(secret)
        elif (config_map := self._config_maps.get(name, namespace)) is not None:
            return {key: value.encode() for key, value in (config_map.get("data") or {}).items()}
        if optional:
            return {}
        raise MissingError(not_found(kind, name))


def not_found(kind: Kind, name: str) -> str:
    """Return the kubelet's message about a missing object."""
    return f'{fold(kind)} "{name}" not found'


def secret_data(secret: Secret) -> dict[str, bytes]:
    """Return the content of a secret."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def config_map_data(config_map: ConfigMap) -> dict[str, bytes]:
    """Return the content of a config map, text and binary."""
    binary = {key: base64.b64decode(value) for key, value in (config_map.get("binaryData") or {}).items()}
    return binary | {key: value.encode() for key, value in (config_map.get("data") or {}).items()}


def _title(kind: Kind) -> str:
    return "ConfigMap" if kind == "configMap" else "Secret"


def _text(kind: Kind, namespace: str, name: str, key: str, value: bytes) -> str:
    """Return a value for the environment, which holds text only. Raises `MissingError`."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise MissingError(
            f"the value of key {key} in {_title(kind)} {namespace}/{name} is not text: mount it as a volume instead"
        )
    return text


def names_of(pod: Pod) -> set[str]:
    """Return the names of the secrets and config maps that a pod refers to."""
    pulled = {item.get("name", "") for item in pod["spec"].get("imagePullSecrets") or ()}
    return (pulled | {name for _, name in mounted(pod) | in_environment(pod)}) - {""}


def in_environment(pod: Pod) -> set[tuple[Kind, str]]:
    """Return kind and name of the secrets and config maps in the environment of a pod's containers."""
    spec = pod["spec"]
    found: set[tuple[Kind, str]] = set()
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    for container in [*containers, *(spec.get("ephemeralContainers") or ())]:
        for source in container.get("envFrom") or ():
            if config_map := source.get("configMapRef"):
                found.add(("configMap", config_map.get("name", "")))
            if secret := source.get("secretRef"):
                found.add(("secret", secret.get("name", "")))
        for variable in container.get("env") or ():
            value = variable.get("valueFrom") or {}
            if config_map_key := value.get("configMapKeyRef"):
                found.add(("configMap", config_map_key.get("name", "")))
            if secret_key := value.get("secretKeyRef"):
                found.add(("secret", secret_key.get("name", "")))
    return found


def mounted(pod: Pod) -> set[tuple[Kind, str]]:
    """Return kind and name of the secrets and config maps in the volumes of a pod."""
    found: set[tuple[Kind, str]] = set()
    for volume in pod["spec"].get("volumes") or ():
        if secret := volume.get("secret"):
            found.add(("secret", secret.get("secretName", "")))
        if config_map := volume.get("configMap"):
            found.add(("configMap", config_map.get("name", "")))
        if file := volume.get("azureFile"):
            found.add(("secret", file.get("secretName", "")))
        if csi := volume.get("csi"):
            found.add(("secret", (csi.get("volumeAttributes") or {}).get("secretName", "")))
        for source in (volume.get("projected") or {}).get("sources") or ():
            if projected := source.get("secret"):
                found.add(("secret", projected.get("name", "")))
            if projected_map := source.get("configMap"):
                found.add(("configMap", projected_map.get("name", "")))
    return found

"""Reads the secrets and config maps that a pod refers to."""

from __future__ import annotations

import base64
from typing import Literal

from cumulet.common.ascii import fold
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import ConfigMap, ConfigMapKeySelector, Pod, Secret, SecretKeySelector
from cumulet.node.errors import MissingError

Kind = Literal["configMap", "secret"]


class References:
    """Reads the informers of secrets and config maps."""

    def __init__(self, secrets: Informer[Secret], config_maps: Informer[ConfigMap]) -> None:
        self._secrets = secrets
        self._config_maps = config_maps

    def value(self, kind: Kind, namespace: str, reference: ConfigMapKeySelector | SecretKeySelector) -> str | None:
        """Return one value of a config map or secret, or `None` when it is missing and optional."""
        values = self.values(kind, namespace, reference.get("name"), reference.get("optional"))
        key = reference["key"]
        if key in values:
            return values[key].decode(errors="replace")
        if reference.get("optional"):
            return None
        what = "ConfigMap" if kind == "configMap" else "Secret"
        raise MissingError(f"couldn't find key {key} in {what} {namespace}/{reference['name']}")

    def values(self, kind: Kind, namespace: str, name: str | None, optional: bool | None) -> dict[str, bytes]:
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


def names_of(pod: Pod) -> set[str]:
    """Return the names of the secrets and config maps that a pod refers to."""
    spec = pod["spec"]
    names = {item.get("name", "") for item in spec.get("imagePullSecrets") or ()}
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        for source in container.get("envFrom") or ():
            names |= {value.get("name", "") for value in source.values() if isinstance(value, dict)}
        for variable in container.get("env") or ():
            names |= {value.get("name", "") for value in (variable.get("valueFrom") or {}).values()}
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            names |= {
                source[kind].get(field, "")
                for kind, field in (("secret", "secretName"), ("secret", "name"), ("configMap", "name"))
                if kind in source
            }
    return names - {""}

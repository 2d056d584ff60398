"""The environment of a container: fields, secrets, config maps and the links of services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cumulet.common.ascii import fold, raised
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import Container, EnvVarSource, Pod, Service
from cumulet.node.fields import Fields, resource_field
from cumulet.node.references import References
from cumulet.node.resource import GroupVariable

_VARIABLE = re.compile(r"\$(\$|\((\w[\w.-]*)\))", re.ASCII)


class Environment:
    """Resolves the variables of containers."""

    def __init__(self, references: References, fields: Fields, services: Informer[Service]) -> None:
        self._references = references
        self._fields = fields
        self._services = services

    def of(self, pod: Pod, container: Container) -> list[GroupVariable]:
        """Return the environment of a container; values from secrets are secure values. Raises `MissingError`."""
        namespace = pod["metadata"]["namespace"]
        plain: dict[str, str] = {}
        secure: set[str] = set()
        if pod["spec"].get("enableServiceLinks", True):
            plain |= dict(self._service_links(namespace))
        for source in container.get("envFrom") or ():
            prefix = source.get("prefix", "")
            if config_map := source.get("configMapRef"):
                values = self._references.values(
                    "configMap", namespace, config_map.get("name"), config_map.get("optional")
                )
                plain |= {prefix + key: value.decode(errors="replace") for key, value in values.items()}
            if secret := source.get("secretRef"):
                values = self._references.values("secret", namespace, secret.get("name"), secret.get("optional"))
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
            return self._fields.field(pod, field["fieldPath"])
        if resource := source.get("resourceFieldRef"):
            return resource_field(container, resource)
        if config_map := source.get("configMapKeyRef"):
            return self._references.value("configMap", namespace, config_map)
        if secret := source.get("secretKeyRef"):
            return self._references.value("secret", namespace, secret)
        return None


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value and `$$` by a dollar sign; undefined references stay."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _VARIABLE.sub(replace, text)

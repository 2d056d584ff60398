"""The environment of a container: fields, secrets, config maps and the links of services."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cumulet.common.ascii import fold, raised
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import Container, EnvVarSource, Pod, Service
from cumulet.node.errors import MissingError
from cumulet.node.fields import LATE, Fields
from cumulet.node.references import References
from cumulet.node.resource import GroupVariable

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class Variables:
    """The variables of one container, and the text that refers to them.

    With `late`, all text has the form of a container with `expandFields`: `$(status.podIP)` is the address, and every
    other dollar sign is doubled, so that no value of a secret or config map is taken for a field.
    """

    def __init__(self, *, late: bool) -> None:
        self.late = late
        self._values: dict[str, str] = {}
        self._secure: set[str] = set()

    def set(self, name: str, value: str, *, secure: bool = False) -> None:
        """Set a variable to a literal value."""
        self._set(name, self.literal(value), secure)

    def set_field(self, name: str, path: str) -> None:
        """Set a variable to a field of `LATE`."""
        self._set(name, f"$({path})", False)

    def set_text(self, name: str, text: str) -> None:
        """Set a variable to text that may refer to the variables before it; it is secure if one of those is."""
        secure = any(match[1] in self._secure for match in _REFERENCE.finditer(text))
        self._set(name, self.expand(text), secure)

    def expand(self, text: str) -> str:
        """Replace `$(NAME)` by the variable's value and `$$` by a dollar sign; undefined references stay."""
        parts, end = [], 0
        for match in _REFERENCE.finditer(text):
            parts.append(self.literal(text[end : match.start()]))
            end = match.end()
            if match[0] == "$$":
                parts.append(self.literal("$"))
            else:
                known = self._values.get(match[1])
                parts.append(self.literal(match[0]) if known is None else known)
        return "".join([*parts, self.literal(text[end:])])

    def unset_in(self, text: str) -> list[str]:
        """Return the names of the variables in the text that are undefined or empty."""
        names = {match[1] for match in _REFERENCE.finditer(text) if match[1] is not None}
        return sorted(name for name in names if not self._values.get(name))

    def literal(self, text: str) -> str:
        """Return text that does not refer to variables."""
        return text.replace("$", "$$") if self.late else text

    def listed(self) -> list[GroupVariable]:
        """Return the variables of the group; values from secrets are secure values."""
        return [
            {"name": name, "secureValue": value} if name in self._secure else {"name": name, "value": value}
            for name, value in self._values.items()
        ]

    def _set(self, name: str, value: str, secure: bool) -> None:
        self._values[name] = value
        (self._secure.add if secure else self._secure.discard)(name)


class Environment:
    """Resolves the variables of containers, as the kubelet's `makeEnvironmentVariables` does."""

    def __init__(self, references: References, fields: Fields, services: Informer[Service]) -> None:
        self._references = references
        self._fields = fields
        self._services = services

    def of(self, pod: Pod, container: Container) -> Variables:
        """Return the environment of a container. Raises `MissingError`, `UnsupportedError`."""
        variables = Variables(late=_is_late(container))
        try:
            self._add_services(variables, pod)
            self._add_sources(variables, pod, container)
            for variable in container.get("env") or ():
                # An empty value counts as absent, as in the kubelet.
                if variable.get("value") or not variable.get("valueFrom"):
                    variables.set_text(variable["name"], variable.get("value", ""))
                else:
                    self._add_from(variables, pod, container, variable["name"], variable["valueFrom"])
        except MissingError as error:
            raise MissingError(str(error), container["name"]) from None
        return variables

    def _add_sources(self, variables: Variables, pod: Pod, container: Container) -> None:
        namespace = pod["metadata"]["namespace"]
        for source in container.get("envFrom") or ():
            prefix = source.get("prefix", "")
            if config_map := source.get("configMapRef"):
                name, optional = config_map.get("name", ""), bool(config_map.get("optional"))
                for key, value in self._references.strings("configMap", namespace, name, optional=optional).items():
                    variables.set(prefix + key, value)
            if secret := source.get("secretRef"):
                name, optional = secret.get("name", ""), bool(secret.get("optional"))
                for key, value in self._references.strings("secret", namespace, name, optional=optional).items():
                    variables.set(prefix + key, value, secure=True)

    def _add_from(
        self, variables: Variables, pod: Pod, container: Container, name: str, source: EnvVarSource
    ) -> None:
        """Set a variable from its source; one whose key is optional and missing stays as it is."""
        namespace = pod["metadata"]["namespace"]
        if field := source.get("fieldRef"):
            if field["fieldPath"] in LATE:
                variables.set_field(name, field["fieldPath"])
            else:
                variables.set(name, self._fields.field(pod, field["fieldPath"]))
        elif resource := source.get("resourceFieldRef"):
            variables.set(name, self._fields.resource(pod, container, resource))
        elif key := source.get("configMapKeyRef"):
            optional = bool(key.get("optional"))
            found = self._references.string(
                "configMap", namespace, key.get("name", ""), key["key"], optional=optional
            )
            if found is not None:
                variables.set(name, found)
        elif secret := source.get("secretKeyRef"):
            optional = bool(secret.get("optional"))
            found = self._references.string(
                "secret", namespace, secret.get("name", ""), secret["key"], optional=optional
            )
            if found is not None:
                variables.set(name, found, secure=True)

    def _add_services(self, variables: Variables, pod: Pod) -> None:
        """Set the variables of the API server's service and, with `enableServiceLinks`, of those in the pod's namespace."""
        namespace, links = pod["metadata"]["namespace"], pod["spec"].get("enableServiceLinks", True)
        found: dict[str, Service] = {}
        for service in self._services:
            metadata = service["metadata"]
            if service["spec"].get("clusterIP") in (None, "", "None"):
                continue
            if (metadata["namespace"], metadata["name"]) == ("default", "kubernetes"):
                found.setdefault("kubernetes", service)
            elif metadata["namespace"] == namespace and links:
                found[metadata["name"]] = service
        for service in found.values():
            for name, value in _links(service):
                variables.set(name, value)


def _is_late(container: Container) -> bool:
    """Return whether a variable is a field that is known only when the pod has its address."""
    return any(
        ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") in LATE
        for variable in container.get("env") or ()
    )


def _links(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the variables of a service: Kubernetes' own, and those of Docker's links."""
    spec = service["spec"]
    prefix = raised(service["metadata"]["name"]).replace("-", "_")
    address, ports = spec["clusterIP"], spec.get("ports") or []
    if not ports:
        return
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

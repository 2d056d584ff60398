"""The downward API: fields of a pod and resources of its containers, as text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from cumulet.common.kubernetes.objects import Container, Pod, ResourceFieldSelector
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.errors import UnsupportedError

#: Fields that are known only when the pod has its address.
LATE = ("status.podIP", "status.podIPs")

_SUBSCRIPTED = re.compile(r"metadata\.(labels|annotations)(?:\['(.+)'\])?", re.DOTALL)
#: Escapes of Go's `strconv.Quote`.
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
            '"': '\\"', "\\": "\\\\"}  # fmt: skip


class Fields:
    """Reads the fields of pods on the node with that address and those allocatable resources."""

    def __init__(self, address: str, allocatable: Mapping[str, str]) -> None:
        self._address = address
        self._allocatable = allocatable

    def field(self, pod: Pod, path: str) -> str:
        """Return a field of the pod, as the downward API formats it, but none of `LATE`. Raises `UnsupportedError`."""
        metadata, spec = pod["metadata"], pod["spec"]
        if match := _SUBSCRIPTED.fullmatch(path):
            values = (metadata.get("labels") if match[1] == "labels" else metadata.get("annotations")) or {}
            if match[2]:
                return values.get(match[2], "")
            return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(values.items()))
        simple = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.hostIP": self._address,
            "status.hostIPs": self._address,
        }
        if path not in simple:
            raise UnsupportedError(f"the field path {path} is not supported")
        return simple[path]

    def resource(self, pod: Pod, container: Container | None, reference: ResourceFieldSelector) -> str:
        """Return a request or limit in units of the divisor, rounded up.

        It is that of the container which the reference names, or of `container`. An unset limit is what the node can
        allocate, an unset request is 0. Raises `UnsupportedError`.
        """
        name = reference.get("containerName") or (container["name"] if container is not None else "")
        found = next((item for item in _containers(pod) if item["name"] == name), None)
        kind, _, resource = reference["resource"].partition(".")
        if found is None or kind not in ("limits", "requests"):
            raise UnsupportedError(f"the resource field {reference['resource']} of container {name} is not supported")
        resources = found.get("resources") or {}
        amounts = (resources.get("limits") if kind == "limits" else resources.get("requests")) or {}
        value = decimal(amounts.get(resource, "0"))
        if not value and kind == "limits":
            value = decimal(self._allocatable.get(resource, "0"))
        return str(math.ceil(value / (decimal(reference.get("divisor") or "1") or 1)))


def _containers(pod: Pod) -> list[Container]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def _quoted(text: str) -> str:
    """Quote text as Go's `%q` does."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"

"""The downward API: fields of a pod and resources of its containers, as text."""

from __future__ import annotations

import re

import msgspec

from cumulet.common.kubernetes.objects import Container, Pod, ResourceFieldSelector
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.errors import UnsupportedError


class Fields:
    """Reads the fields of pods on the node with that address."""

    def __init__(self, address: str) -> None:
        self._address = address

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


def resource_field(container: Container, reference: ResourceFieldSelector) -> str:
    """Return a container's request or limit in units of the divisor, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    amounts = resources.get("limits") if kind == "limits" else resources.get("requests") if kind == "requests" else {}
    value = (amounts or {}).get(name, "0")
    divisor = decimal(reference.get("divisor") or "1") or 1
    quotient = decimal(value) / divisor
    return str(int(quotient) + (quotient > int(quotient)))

"""The defaults of a group's properties, which ACI writes into its answers."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.instances.model.amounts import CPU, MEMORY


def with_defaults(document: Object) -> Object:
    """Write the defaults into properties that are shown, as ACI does."""
    for name, value in (
        ("sku", "Standard"),
        ("priority", "Regular"),
        ("osType", "Linux"),
        ("restartPolicy", "Always"),
    ):
        document.setdefault(name, value)
    for name in ("initContainers", "imageRegistryCredentials", "volumes"):
        document.setdefault(name, [])
    document |= {"isCustomProvisioningTimeout": False, "isCreatedFromStandbyPool": False}
    for kind in ("initContainers", "containers"):
        for container in document[kind]:
            properties: Object = container["properties"]
            for name in ("command", "environmentVariables", "volumeMounts"):
                properties.setdefault(name, [])
            properties.setdefault("configMap", {}).setdefault("keyValuePairs", {})
            if kind == "containers":
                properties.setdefault("ports", [])
                requests = properties.setdefault("resources", {}).setdefault("requests", {})
                requests.setdefault("cpu", CPU)
                requests.setdefault("memoryInGB", MEMORY)
            for port in properties.get("ports") or ():
                port.setdefault("protocol", "TCP")
    if (address := document.get("ipAddress")) is not None:
        address.setdefault("type", "Public")
        for port in address.setdefault("ports", []):
            port.setdefault("protocol", "TCP")
    return document

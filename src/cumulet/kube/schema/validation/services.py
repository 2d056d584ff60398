"""Services."""

from __future__ import annotations

from typing import Any

from cumulet.kube.schema.validation.causes import Object, duplicate, invalid, labels, required, unsupported
from cumulet.kube.status import Cause


def service(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a service, or with its change."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        causes.append(unsupported("spec.type", spec.get("type"), kinds))
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        causes.append(required("spec.externalName"))
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if len(ports) > 1 and not name:
            causes.append(required(f"{where}.name"))
        if name and name in names:
            causes.append(duplicate(f"{where}.name", name))
        names.add(name)
        number = port.get("port")
        if number is None or not 0 < number < 65536:
            causes.append(invalid(f"{where}.port", number or 0, "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(unsupported(f"{where}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        target = port.get("targetPort")
        if isinstance(target, int) and not 0 < target < 65536:
            causes.append(invalid(f"{where}.targetPort", target, "must be between 1 and 65535, inclusive"))
        if (number, port.get("protocol")) in seen:
            causes.append(duplicate(where, {"port": number, "protocol": port.get("protocol")}))
        seen.add((number, port.get("protocol")))
    causes += labels(spec.get("selector"), "spec.selector")
    if old is not None:
        before = (old.get("spec") or {}).get("clusterIP")
        if before and spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (before, None, ""):
            causes.append(invalid("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set"))
    return causes

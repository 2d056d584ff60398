"""Validation of APIServices (`kube-aggregator/pkg/apis/apiregistration/validation`)."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.validation.field_errors import Causes, invalid, required

KEY = "apiservices.apiregistration.k8s.io"


def check(obj: Object, old: Object | None) -> Causes:
    """Validate a registration."""
    spec = obj.get("spec") or {}
    group, version, service = spec.get("group") or "", spec.get("version") or "", spec.get("service")
    name = f"{version}.{group}"
    if obj["metadata"].get("name") != name:
        why = f'must be `spec.version+"."+spec.group`: "{name}"'
        yield invalid("metadata.name", obj["metadata"].get("name", ""), why)
    if not group and version != "v1":
        yield required("spec.group", "only v1 may have an empty group and it better be legacy kube")
    for field, limit in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(field) or 0
        if not 0 < value <= limit:
            yield invalid(f"spec.{field}", value, f"must be positive and less than {limit}")
    skips = spec.get("insecureSkipTLSVerify")
    if service is None:
        if spec.get("caBundle"):
            yield invalid("spec.caBundle", spec["caBundle"], "local APIServices may not have a caBundle")
        if skips:
            yield invalid("spec.insecureSkipTLSVerify", True, "local APIServices may not have insecureSkipTLSVerify")
        return
    for field in ("namespace", "name"):
        if not service.get(field):
            yield required(f"spec.service.{field}")
    if not 0 < service.get("port", 443) < 65536:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        yield invalid("spec.service.port", service["port"], why)
    if skips and spec.get("caBundle"):
        yield invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present")

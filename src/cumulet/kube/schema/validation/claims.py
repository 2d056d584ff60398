"""Validation of persistent volume claims and their templates."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.metadata import annotation_map, immutable, labels
from cumulet.kube.schema.validation.selectors import label_selector

MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_OF_A_TEMPLATE = ("labels", "annotations")
_GROWING = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def claim(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a claim, or an update of one."""
    causes = list(claim_spec(obj.get("spec") or {}, "spec"))
    return causes if old is None else [*causes, *_update(obj, old)]


def _update(obj: Object, old: Object) -> Causes:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    kept = {key: value for key, value in spec.items() if key != "volumeAttributesClassName"}
    fixed = {key: value for key, value in before.items() if key != "volumeAttributesClassName"}
    if not fixed.get("volumeName") and "volumeName" in kept:
        fixed["volumeName"] = kept["volumeName"]
    if "storageClassName" not in fixed and "storageClassName" in kept:
        fixed["storageClassName"] = kept["storageClassName"]
    size = (((spec.get("resources") or {}).get("requests") or {}).get("storage")) or "0"
    if (old.get("status") or {}).get("phase") == "Bound":
        fixed["resources"] = {
            **(before.get("resources") or {}),
            "requests": (kept.get("resources") or {}).get("requests"),
        }
    if kept != fixed:
        yield forbidden("spec", _GROWING)
    had = ((before.get("resources") or {}).get("requests") or {}).get("storage", "0")
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
    if decimal(size) < decimal(had) and decimal(size) <= decimal(capacity):
        yield forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")
    yield from immutable(spec.get("volumeMode"), before.get("volumeMode"), "volumeMode")


def claim_template(template: Object, field: str) -> Causes:
    """Validate a claim that is created with a pod."""
    metadata = template.get("metadata") or {}
    yield from annotation_map(metadata.get("annotations"), f"{field}.metadata.annotations")
    yield from labels(metadata.get("labels"), f"{field}.metadata.labels")
    for key in metadata:
        if key not in _OF_A_TEMPLATE and metadata[key]:
            yield forbidden(f"{field}.metadata.{key}", "cannot be set")
    yield from claim_spec(template.get("spec") or {}, f"{field}.spec")


def claim_spec(spec: Object, field: str) -> Causes:
    """Validate the spec of a claim."""
    modes = spec.get("accessModes") or []
    if not modes:
        yield required(f"{field}.accessModes", "at least 1 access mode is required")
    yield from label_selector(spec.get("selector"), f"{field}.selector")
    for access in modes:
        if access not in MODES:
            yield unsupported(f"{field}.accessModes", access, MODES)
    if "ReadWriteOncePod" in modes and any(access in MODES[:3] for access in modes):
        yield forbidden(f"{field}.accessModes", "may not use ReadWriteOncePod with other access modes")
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield required(f"{field}.resources[storage]")
    elif decimal(size) <= 0:
        yield invalid(f"{field}.resources[storage]", size, name_formats.NOT_POSITIVE)
    if name := spec.get("storageClassName"):
        yield from all_invalid(f"{field}.storageClassName", name, name_formats.dns_subdomain(name))
    if spec.get("volumeMode") not in (None, "Block", "Filesystem"):
        yield unsupported(f"{field}.volumeMode", spec["volumeMode"], ("Block", "Filesystem"))
    for key in ("dataSource", "dataSourceRef"):
        if (source := spec.get(key)) is not None:
            yield from _source(source, f"{field}.{key}")
    if name := spec.get("volumeAttributesClassName"):
        yield from all_invalid(f"{field}.volumeAttributesClassName", name, name_formats.dns_subdomain(name))


def _source(source: Object, field: str) -> Causes:
    for key in ("name", "kind"):
        if not source.get(key):
            yield required(f"{field}.{key}")
    group = source.get("apiGroup", "")
    if not group and source.get("kind") != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        yield invalid(field, source.get("kind", ""), why)
    if group:
        yield from all_invalid(f"{field}.apiGroup", group, name_formats.dns_subdomain(group))
    if namespace := source.get("namespace"):
        yield from all_invalid(f"{field}.namespace", namespace, name_formats.dns_label(namespace))

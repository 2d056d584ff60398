"""Validation of metadata: names, labels, annotations, owners, finalizers, managed fields (`ValidateObjectMeta`)."""

from __future__ import annotations

import functools
from collections.abc import Callable

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    as_json,
    forbidden,
    invalid,
    required,
    too_long,
)

Form = Callable[[str], list[str]]

_ANNOTATIONS_LIMIT = 256 * 1024
_MANAGER_LIMIT = 128
_SUBRESOURCE_LIMIT = 256
_STANDARD_FINALIZERS = frozenset(("foregroundDeletion", "kubernetes", "orphan"))
_FINALIZER = "name is neither a standard finalizer name nor is it fully qualified"
_UNCHANGING = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def metadata(meta: Object, form: Form, *, has_domains: bool = True) -> Causes:
    """Validate the metadata of an object whose name has this form.

    `has_domains` states that finalizers must have a domain, except for Kubernetes' own.
    """
    if base := meta.get("generateName"):
        yield from all_invalid("metadata.generateName", base, form(name_formats.base_of(base)))
    if not (name := meta.get("name")):
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from all_invalid("metadata.name", name, form(name))
    if namespace := meta.get("namespace"):
        yield from all_invalid("metadata.namespace", namespace, name_formats.dns_label(namespace))
    yield from labels(meta.get("labels"), "metadata.labels")
    yield from annotation_map(meta.get("annotations"), "metadata.annotations")
    yield from _owners(meta.get("ownerReferences") or [])
    yield from _finalizers(meta.get("finalizers") or [])
    yield from _managed(meta.get("managedFields") or [])
    if has_domains:
        yield from _standard_finalizers(meta)


def metadata_update(meta: Object, old: Object, *, has_domains: bool = True) -> Causes:
    """Validate an update of metadata."""
    if old.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            told = ", ".join(as_json(name) for name in added)
            why = "no new finalizers can be added if the object is being deleted, found new finalizers"
            yield forbidden("metadata.finalizers", f"{why} []string{{{told}}}")
    for key in _UNCHANGING:
        if meta.get(key) != old.get(key):
            yield invalid(f"metadata.{key}", meta.get(key), name_formats.IMMUTABLE)
    yield from labels(meta.get("labels"), "metadata.labels")
    yield from annotation_map(meta.get("annotations"), "metadata.annotations")
    yield from _owners(meta.get("ownerReferences") or [])
    yield from _managed(meta.get("managedFields") or [])
    if has_domains:
        yield from _standard_finalizers(meta)


def labels(pairs: dict[str, str] | None, field: str) -> Causes:
    """Validate labels."""
    for key, value in sorted(pairs.items()) if pairs else ():
        if not _is_label(key, value):
            yield from label_key(key, field)
            yield from all_invalid(field, value, name_formats.label_value(value))


@functools.lru_cache(1024)
def _is_label(key: str, value: str) -> bool:
    return not name_formats.qualified_name(key) and not name_formats.label_value(value)


def label_key(key: str, field: str) -> Causes:
    """Validate the key of a label."""
    return all_invalid(field, key, name_formats.qualified_name(key))


def annotation_map(pairs: dict[str, str] | None, field: str) -> Causes:
    """Validate annotations."""
    if not pairs:
        return
    for key in sorted(pairs):
        if not _is_label(fold(key), ""):
            yield from all_invalid(field, key, name_formats.qualified_name(fold(key)))
    if sum(len(key) + len(value) for key, value in pairs.items()) > _ANNOTATIONS_LIMIT // 4:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in pairs.items())
        if size > _ANNOTATIONS_LIMIT:
            yield too_long(field, _ANNOTATIONS_LIMIT)


def _owners(references: list[Object]) -> Causes:
    field, first = "metadata.ownerReferences", ""
    for owner in references:
        version = owner.get("apiVersion", "")
        if not version or version.endswith("/") or version.count("/") > 1:
            yield invalid(f"{field}.apiVersion", version, "version must not be empty")
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                yield invalid(f"{field}.{key}", "", "must not be empty")
        if (version, owner.get("kind")) == ("v1", "Event"):
            yield invalid(field, owner, "/v1, Kind=Event is disallowed from being an owner")
        if owner.get("controller"):
            name = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if first:
                why = 'Only one reference can have Controller set to true. Found "true" in references for'
                yield invalid(field, references, f"{why} {first} and {name}")
            else:
                first = name


def finalizer_name(name: str, field: str) -> Causes:
    """Validate the name of a finalizer."""
    return all_invalid(field, name, name_formats.qualified_name(name))


def standard_finalizer(name: str, field: str) -> Causes:
    """Validate the name of a finalizer without a domain."""
    if "/" not in name and name not in _STANDARD_FINALIZERS:
        yield invalid(field, name, _FINALIZER)


def _finalizers(names: list[str]) -> Causes:
    for name in names:
        yield from finalizer_name(name, "metadata.finalizers")
    if {"orphan", "foregroundDeletion"} <= set(names):
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        yield invalid("metadata.finalizers", names, why)


def _standard_finalizers(meta: Object) -> Causes:
    for index, name in enumerate(meta.get("finalizers") or ()):
        yield from standard_finalizer(name, f"metadata.finalizers[{index}]")


def _managed(entries: list[Object]) -> Causes:
    for index, entry in enumerate(entries):
        field = f"metadata.managedFields[{index}]"
        if entry.get("operation") not in ("Apply", "Update"):
            yield invalid(f"{field}.operation", entry.get("operation", ""), "must be `Apply` or `Update`")
        if entry.get("fieldsType") not in (None, "", "FieldsV1"):
            yield invalid(f"{field}.fieldsType", entry["fieldsType"], "must be `FieldsV1`")
        yield from field_manager(entry.get("manager", ""), f"{field}.manager")
        if len(entry.get("subresource", "")) > _SUBRESOURCE_LIMIT:
            yield too_long(f"{field}.subresource", _SUBRESOURCE_LIMIT)


def field_manager(name: str, field: str) -> Causes:
    """Validate the name of a field manager."""
    if len(name.encode()) > _MANAGER_LIMIT:
        yield too_long(field, _MANAGER_LIMIT)
    if not name.isprintable():
        at = 0
        for char in name:
            if not char.isprintable():
                yield invalid(field, name, f"invalid character U+{ord(char):04X} (at position {at})")
            at += len(char.encode())


def immutable(new: object, old: object, field: str) -> Causes:
    """Validate that a field does not change."""
    if new != old:
        yield invalid(field, new, name_formats.IMMUTABLE)

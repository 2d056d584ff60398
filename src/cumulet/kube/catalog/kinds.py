"""The steps of an object on its way to the store, by the published or the custom schema of its kind."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube import schema
from cumulet.kube.apimachinery.status import Cause, bad_request
from cumulet.kube.catalog import custom_definitions
from cumulet.kube.catalog.resources import RESOURCES, Row
from cumulet.kube.fields import Shape, shape_of
from cumulet.kube.fields.shape import ANY
from cumulet.kube.schema.prune import Findings
from cumulet.kube.schema.validation import api_services

#: Groups whose finalizers must have a domain. Custom resources and their definitions need none.
_GROUPS = frozenset(row.group for row in RESOURCES) - {"apiextensions.k8s.io"}
#: The place of upstream's scheme, as its errors show it.
_SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"


def prune(row: Row, obj: Object, *, fill: bool = True, pruned: Object | None = None) -> Findings:
    """Remove unknown and disabled fields, in place, and return the messages about them. Raises `ApiError` 400.

    With `fill`, fields that are always written are added, and fields that are omitted when empty are removed. Parts
    that an object shares with the already pruned object `pruned` are skipped.
    """
    if row.custom is None:
        shared = frozenset(key for key, value in obj.items() if pruned.get(key) is value) if pruned else frozenset()
        return schema.prune(obj, row.group, row.version, row.kind, fill=fill, pruned=shared)
    metadata = obj.get("metadata")
    unknown: list[str] = []
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise bad_request(f"{row.kind} cannot be handled: metadata is not an object")
        unknown += [
            text.replace('"', '"metadata.', 1) for text in schema.prune(metadata, "", "v1", "ObjectMeta").unknown
        ]
    return Findings(unknown + row.custom.prune(obj), [])


def set_defaults(row: Row, obj: Object) -> None:
    """Set defaults, in place."""
    if row.custom is not None:
        row.custom.set_defaults(obj)
    else:
        schema.set_defaults(obj, row.group, row.version, row.kind)


def prepare_for_create(row: Row, obj: Object) -> None:
    """Remove fields that a client may not set, in place."""
    if row.custom is not None:
        row.custom.prepare_for_create(obj)
    else:
        schema.prepare_for_create(obj, row.group, row.version, row.kind)


def label_after_name(row: Row, obj: Object) -> None:
    """Add the labels that repeat the name, in place."""
    if row.custom is None:
        schema.label_after_name(obj, row.group, row.kind)


def prepare_for_update(row: Row, obj: Object, old: Object, subresource: str) -> None:
    """Keep the fields that this kind of update may not change, in place."""
    if row.custom is not None:
        row.custom.prepare_for_update(obj, old, subresource)
    else:
        schema.prepare_for_update(obj, old, row.group, row.kind, subresource)


def validate(row: Row, obj: Object, old: Object | None, subresource: str = "") -> list[Cause]:
    """Return every error of an object, and of its change from `old`."""
    has_domains = row.group in _GROUPS
    causes = schema.validate(obj, old, row.group, row.kind, subresource, has_domains=has_domains)
    if row.custom is not None:
        causes += row.custom.validate(obj, old)
    elif row.key == custom_definitions.KEY and not subresource:
        causes += custom_definitions.check(obj, old)
    elif row.key == api_services.KEY and not subresource:
        causes += api_services.check(obj, old)
    return causes


def warnings(row: Row, obj: Object, old: Object | None) -> list[str]:
    """Return the warnings about a written object."""
    if row.custom is not None:
        return [row.custom.warning] if row.custom.warning else []
    return schema.warnings(obj, row.group, row.kind, old)


def definition(row: Row) -> schema.Definition | None:
    """Return the published definition of a built-in kind, else `None`."""
    return None if row.custom is not None else schema.definition(row.group, row.version, row.kind)


def mismatch(row: Row, kind: str, api_version: str) -> str:
    """Return why an object of another kind or version is not accepted."""
    group, _, version = api_version.rpartition("/")
    if (group, version, kind) != (row.group, row.version, row.kind) and schema.definition(group, version, kind):
        own = row.group.partition(".")[0] or "core"
        return f"converting ({version}.{kind}) to ({own}.{row.kind}): unknown conversion"
    return f'no kind "{kind}" is registered for version "{api_version}" in scheme "{_SCHEME}"'


def shape(row: Row) -> Shape:
    """Return the shape of a kind, for field ownership."""
    if row.custom is not None:
        return row.custom.shape
    published = schema.definition(row.group, row.version, row.kind)
    return shape_of(published) if published is not None else ANY
